"""One user brings a Dataset up, another reads it; what is private stays private."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.fakes.command_line import CommandLine

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user"),
]

STRANGER = """
import hashlib, json, os, sys
from cacheop.cli.main import code_of
from cacheop.client.filesystem import CacheopFileSystem

def read():
    files = CacheopFileSystem(skip_instance_cache=True)
    with files.open("demo/train/a.bin") as file:
        own = os.readlink(f"/proc/self/fd/{file.fileno()}")
    sums = {key: hashlib.sha256(files.cat_file(f"demo/{key}")).hexdigest() for key in sys.argv[1:]}
    return own, sums

def refused(path):
    try:
        open(path).close()
    except PermissionError:
        return True
    return False

VERBS = (("status",), ("load",), ("evict", "--yes"), ("suspend",), ("down",))

# Imports what is needed later: the interpreter itself may be out of a stranger's reach.
read()
code_of(["ls", "demo/train"])
for verb, *more in VERBS:
    code_of([verb, "not-there", *more])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
private = os.environ["CACHEOP_RUN_DIR"] + "/default.demo"
own, sums = read()
print(json.dumps({
    "own": own,
    "sums": sums,
    "private": refused(private + "/token") and refused(private + "/secrets/s3/key"),
    "ls": code_of(["ls", "demo/train"]),
    "codes": [code_of([verb, *more]) for verb, *more in VERBS],
}))
"""


@pytest.fixture
def cacheop():
    # Not tmp_path: strangers cannot get there.
    directory = Path(tempfile.mkdtemp(prefix="cacheop-users-"))
    directory.chmod(0o755)
    command_line = CommandLine(directory)
    yield command_line
    command_line("down", "--all", "--purge", "--yes")
    command_line.close()
    shutil.rmtree(directory)


def test_a_stranger_reads_whatever_the_umask_and_does_nothing_else(cacheop, stored):
    before = os.umask(0o077)
    try:
        done = cacheop.process("up", *stored.files, "--listen", "127.0.0.1:0")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, *stored.checksums],
        env=cacheop.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert stranger.returncode == 0, stranger.stderr
    answer = next(line for line in stranger.stdout.splitlines() if line.startswith("{"))
    found = json.loads(answer)
    assert found["sums"] == stored.checksums
    assert found["own"].startswith(str(cacheop.cache)), "the reader opened the cached file itself"
    assert found["private"]
    assert found["ls"] == 0
    assert found["codes"] == [2] * 5
    assert cacheop.json("status")["cached_bytes"] > 0

"""Every wrong input as a user meets it: one line that says what to do, exit code 2, nothing left.

Real workers, a real S3 server. What is refused before anything starts is in tests/unit/cli.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cacheop import local
from cacheop.client.filesystem import CacheopFileSystem

pytestmark = pytest.mark.node


def refused(cacheop, *arguments, code=2):
    """The error's text without ``error:``; nothing of the attempt is left."""
    before = sorted(cacheop.tmp_path.rglob("*"))
    done = cacheop.process("up", *arguments)
    line = cacheop.one_line(code, done)
    assert done.stderr.rstrip().endswith(line), "the error is the last that is said"
    left = set(cacheop.tmp_path.rglob("*")) - set(before)
    assert {path.suffix for path in left} <= {".lock"}, left
    assert str(cacheop.tmp_path) not in Path("/proc/self/mountinfo").read_text()
    return line


def edited(stored, change):
    """The Dataset file after `change` of its document."""
    document = json.loads(stored.file.read_text())
    change(document["spec"])
    path = stored.file.with_name("edited.yaml")
    path.write_text(json.dumps(document))
    return path


SPECS = {
    "an unknown field": (
        lambda s: s.update(refesh={"interval": "5m"}),
        'spec.refesh: unknown field, did you mean "refresh"?',
    ),
    "a misspelt field that must be there": (
        lambda s: s["mounts"][0].update(mountpoint=s["mounts"][0].pop("mountPoint")),
        'unknown field, did you mean "mountPoint"?',
    ),
    "a bad quantity": (
        lambda s: s.update(cache={"tiers": [{"quota": "5Gx"}]}),
        '"5Gx" is not a size such as 500Gi',
    ),
    "an unknown scheme": (
        lambda s: s["mounts"][0].update(mountPoint="s4://demo/"),
        'did you mean "s3"?',
    ),
    "a path instead of a URL": (
        lambda s: s["mounts"][0].update(mountPoint="/data/train"),
        'did you mean "file:///data/train"?',
    ),
    "an unknown option": (
        lambda s: s["mounts"][0]["options"].update(bogus=1),
        "unknown option bogus",
    ),
    "a prefix with nothing in it": (
        lambda s: s["mounts"][0].update(mountPoint=s["mounts"][0]["mountPoint"] + "nothing/"),
        "Check the bucket and prefix",
    ),
    "a bucket that is not there": (
        lambda s: s["mounts"][0].update(mountPoint="s3://no-such-bucket/"),
        "does not exist: HTTP 404 NoSuchBucket. Check the name in mountPoint",
    ),
    "a quota larger than the disk": (
        lambda s: s.update(cache={"tiers": [{"quota": "900Ti"}]}),
        "is larger than the disk",
    ),
    "mounts within each other": (
        lambda s: s["mounts"].append(s["mounts"][0] | {"path": "/a"}),
        "give each a path of its own",
    ),
    "a version that is nowhere": (
        lambda s: s.update(version="0123456789abcdef"),
        "spec.version 0123456789abcdef is not kept here; the origin has version",
    ),
}


@pytest.mark.parametrize(("change", "says"), SPECS.values(), ids=SPECS)
def test_a_spec(cacheop, stored, change, says):
    assert says in refused(cacheop, "-f", edited(stored, change), "-f", stored.secret)


def test_wrong_credentials_and_a_missing_secret(cacheop, stored):
    assert "CACHEOP_SECRET_S3_KEY" in refused(cacheop, "-f", stored.file)
    wrong = stored.secret.with_name("wrong.yaml")
    for key in ("key", "secret"):
        document = json.loads(stored.secret.read_text())
        document["stringData"][key] = "wrong"
        wrong.write_text(json.dumps(document))
        line = refused(cacheop, "-f", stored.file, "-f", wrong)
        assert "HTTP 403" in line
        assert "Check the credentials" in line


def test_directories(cacheop, stored):
    assert "with --cache" in refused(cacheop, *stored.files, "--cache", "/proc/nowhere")
    assert "with --cache" in refused(cacheop, *stored.files, "--cache", stored.file)


DATALOAD = b"""\
apiVersion: cacheop.io/v1alpha1
kind: DataLoad
metadata: {name: x}
spec: {dataset: demo, target: [{path: /train}]}
"""
FILES = {
    "a DataLoad": (DATALOAD, "`cacheop load demo --path /train`"),
    "an empty file": (b"", "`kind: Dataset`"),
    "a list": (b"- a\n", "expected a document with `kind`, found a list"),
    "junk": (bytes(range(256)), "not text in UTF-8"),
    "zeros": (bytes(100), "not YAML"),
}


@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_dataset(cacheop, tmp_path, content, says):
    path = tmp_path / "dataset.yaml"
    path.write_bytes(content)
    assert says in refused(cacheop, "-f", path)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs FUSE")
def test_mount_points(cacheop, stored, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    for mount, says in (
        (full / "file", "it is not a directory"),
        (full / "file" / "below", "Not a directory"),
        (full, "is not empty"),
        ("/proc", "is already a mount"),
        ("/proc/nowhere", "Name an empty directory"),
    ):
        assert says in refused(cacheop, *stored.files, "--mount", mount)
    # One that `up` would have made, and then something else is wrong.
    assert "does not exist" in refused(
        cacheop, "-f", edited(stored, SPECS["a bucket that is not there"][0]),
        "-f", stored.secret, "--mount", tmp_path / "a" / "b",
    )  # fmt: skip
    assert (full / "file").read_text() == "mine"


def test_a_port_that_is_taken(cacheop, stored):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for option in ("--http", "--listen"):
            assert "port 0 picks a free one" in refused(cacheop, *stored.files, option, address)


def test_a_port_taken_later_ends_the_worker_instead_of_starting_it_for_ever(cacheop, stored):
    assert cacheop("up", *stored.files).returncode == 0
    config = cacheop.run_dir / "default.demo" / "node-0.json"
    content = json.loads(config.read_text())
    assert cacheop("down").returncode == 0
    config.parent.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as server:
        content["http"] = f"127.0.0.1:{server.getsockname()[1]}"
        content["mounts"] = []
        config.write_text(json.dumps(content))
        done = subprocess.run(
            [sys.executable, "-m", "cache_worker", "supervise", str(config)],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def flip(root, what):
    """Bit rot in a manifest: row 1 is not what it was."""
    path = next((root / "manifest").glob(f"*.{what}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a state file of junk": lambda root: (root / "state.json").write_bytes(os.urandom(99)),
    "a state file that is gone": lambda root: (root / "state.json").unlink(),
    "an index with some other bytes": lambda root: flip(root, "index"),
    "slots with some other bytes": lambda root: flip(root, "slots"),
    "an index of junk": lambda root: next((root / "manifest").glob("*.index")).write_bytes(b"junk"),
    "slots that are gone": lambda root: next((root / "manifest").glob("*.slots")).unlink(),
    "a chunk table that is gone": lambda root: (root / "chunks").unlink(),
    "files that are gone": lambda root: shutil.rmtree(root / "data"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_mends_itself(cacheop, stored, damage, monkeypatch):
    assert cacheop("up", *stored.files).returncode == 0
    assert cacheop("load").returncode == 0
    root = local_root(cacheop)
    assert cacheop("down").returncode == 0
    damage(root)
    done = cacheop.process("up", *stored.files)
    assert done.returncode == 0, done.stderr
    assert_bytes(cacheop, stored, monkeypatch)


def test_a_cache_of_another_format_is_not_touched(cacheop, stored):
    assert cacheop("up", *stored.files).returncode == 0
    root = local_root(cacheop)
    assert cacheop("down").returncode == 0
    with (root / "chunks").open("r+b") as file:
        file.write(b"COPTAB99")
    line = cacheop.one_line(2, cacheop.process("up", *stored.files))
    assert str(root) in line
    assert "Delete it to begin empty" in line
    assert (root / "data").is_dir()


def local_root(cacheop):
    return Path(json.loads((cacheop.run_dir / "default.demo.json").read_text())["nodes"][0]["root"])


def assert_bytes(cacheop, stored, monkeypatch):
    """Every file is what it was put in as, read as training reads it."""
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(cacheop.run_dir))
    files = CacheopFileSystem(skip_instance_cache=True)
    for key, checksum in stored.checksums.items():
        assert hashlib.sha256(files.cat_file(f"demo/{key}")).hexdigest() == checksum


def test_a_token_for_readers_and_one_for_control(cacheop, stored, monkeypatch):
    done = cacheop.process("up", *stored.files, "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    record = local.RunRecord("default", "demo", "", (), "", 0.0, cacheop.run_dir)
    assert record.client_token.stat().st_mode & 0o777 == 0o600
    token = record.client_token.read_text().strip()
    assert token not in done.stdout + done.stderr
    assert str(record.client_token) in done.stdout
    endpoint = cacheop.json("status")["nodes"][0]["addresses"]["tcp"]
    assert f"CACHEOP_ENDPOINT={endpoint}" in done.stdout
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(cacheop.tmp_path / "elsewhere"))
    files = CacheopFileSystem(endpoint=endpoint, token=token, skip_instance_cache=True)
    for key, checksum in stored.checksums.items():
        assert hashlib.sha256(files.cat_file(f"demo/{key}")).hexdigest() == checksum

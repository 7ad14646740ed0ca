"""The command itself: help, speed, imports, errors that are nobody's fault but ours."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

VERBS = (
    "up", "status", "top", "ls", "load", "refresh", "versions", "evict", "suspend", "resume",
    "drain", "down", "doctor", "version",
)  # fmt: skip


def test_help_names_every_verb_and_the_exit_codes(cacheop):
    done = cacheop("--help")
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout for verb in VERBS)
    assert "4 not found" in done.stdout


@pytest.mark.parametrize("verb", VERBS[:-1])
def test_every_verb_has_help_with_an_example(cacheop, verb):
    done = cacheop(verb, "--help")
    assert done.returncode == 0
    assert f"cacheop {verb}" in done.stdout.partition("Examples:")[2]


def test_nothing_said_gets_the_help(cacheop):
    done = cacheop()
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")


def test_the_command_starts_without_what_it_does_not_need(cacheop):
    code = (
        "import sys; import cacheop.cli.main; "
        "print([n for n in ('yaml', 'fsspec', 'rich', 'asyncio', 'numpy', 'pyarrow', 'json.tool') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_comes_at_once(cacheop):
    def cpu_seconds(what):
        # Of the child alone and on its own processor time: other work on the machine is not ours.
        code = (
            f"import resource, sys; {what}; "
            "u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    # The least of some tries: what runs on the same core at the same time can only add to it. A
    # slow machine is slow for the bare interpreter beside it, too.
    ours, bare = "from cacheop.cli.main import code_of; code_of(['--help'])", "pass"
    tries = [(cpu_seconds(ours), cpu_seconds(bare)) for _ in range(5)]
    least, least_bare = (min(column) for column in zip(*tries, strict=True))
    assert least <= max(0.25, 12 * least_bare), tries


def test_a_bug_is_one_line_that_says_so(cacheop):
    record = cacheop.fake(status={"conditions": 7})
    line = cacheop.one_line(1, cacheop.process("status", CACHEOP_DEBUG=""))
    assert line.startswith("a bug in cacheop")
    assert "CACHEOP_DEBUG=1" in line
    assert "Traceback" in cacheop.process("status").stderr
    assert record.directory.exists()


def test_a_reader_that_leaves_is_no_error(cacheop):
    cacheop.fake()
    process = subprocess.Popen(
        cacheop.command("status", "-o", "json"),
        env=cacheop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) in {0, 1}


def test_no_answer_is_no_hang(cacheop):
    begin = time.monotonic()
    record = cacheop.fake()
    cacheop.processes[0].send_signal(19)  # SIGSTOP: alive, but deaf
    done = cacheop("status")
    cacheop.processes[0].send_signal(18)
    assert done.returncode == 3
    assert "did not answer status" in done.stdout
    assert time.monotonic() - begin < 30
    assert record.nodes


def test_the_version_is_told_both_ways(cacheop):
    told = cacheop.process("--version")
    assert told.returncode == 0
    assert told.stdout == cacheop.process("version").stdout

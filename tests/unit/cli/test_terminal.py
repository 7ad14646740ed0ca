"""The same verbs on a terminal: colours, a bar, questions."""

from __future__ import annotations

import os
import pty
import subprocess


def on_terminal(cacheop, *arguments, types=b"", **environment):
    """(exit code, what the terminal shows)"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        cacheop.command(*arguments),
        env=cacheop.environment | {"TERM": "xterm-256color", "NO_COLOR": ""} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, types)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:
        pass  # EIO: the other side is closed
    finally:
        os.close(ours)
    return process.wait(20), shown.decode()


def test_colours_unless_no_color(cacheop):
    cacheop.fake()
    code, shown = on_terminal(cacheop, "status")
    assert code == 0
    assert "\x1b[32m" in shown
    assert "\x1b[32m" not in on_terminal(cacheop, "status", NO_COLOR="1")[1]


def test_a_bar_while_loading(cacheop):
    cacheop.fake()
    code, shown = on_terminal(cacheop, "load")
    assert code == 0
    assert "Loading demo" in shown
    assert "loaded 4 files" in shown


def test_evict_asks(cacheop):
    record = cacheop.fake()
    code, shown = on_terminal(cacheop, "evict", types=b"n\n")
    assert (code, "[y/N]" in shown) == (2, True)
    assert "nothing was done" in shown
    assert not (record.nodes[0].root / "asked").exists()
    code, shown = on_terminal(cacheop, "evict", types=b"y\n")
    assert code == 0
    assert "evicted 2 files" in shown

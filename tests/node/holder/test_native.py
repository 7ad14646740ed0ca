"""Native: the store's own tree, read-only, pinned by a lock."""

from __future__ import annotations

import errno
import fcntl
import os
import time

import pytest

from cacheop.api import names
from tests.fakes.holder_worker import VERSION

pytestmark = pytest.mark.node


@pytest.fixture
def bound(place):
    (place.data / "file").write_text("content")
    place.work(complete=True)
    place.start(mode="")
    return place, place.supervisor()


def can_lock(place):
    """Whether the worker could take the version's directory for itself."""
    fd = os.open(place.root / names.data_path(VERSION), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_it_shows_the_tree_and_nothing_can_be_done_to_it(bound):
    place, supervisor = bound
    mount, fds = supervisor.mounts["m0"]
    assert (mount["mode"], len(fds)) == ("Native", 1)
    assert place.worker.asked == 2, "asked again under the lock"
    assert (place.target / "file").read_text() == "content"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(place.seen().options)
    with pytest.raises(OSError) as refused:
        (place.target / "new").write_text("x")
    assert refused.value.errno == errno.EROFS
    (place.data / "new").write_text("the store itself can be written")


def test_it_pins_the_version_as_long_as_anybody_holds_it(bound):
    place, supervisor = bound
    assert not can_lock(place)
    place.kill()
    assert not can_lock(place), "the supervisor has the lock"
    place.start()
    successor = place.speaker()
    assert [m["op"] for m in successor.hold(having=supervisor)] == ["ready"]
    assert not can_lock(place)
    command = place.speaker()
    assert command.ask(op="report")["mounts"][0]["held"]
    assert command.ask(op="unpublish", target=str(place.target)) == {"ok": True}
    assert successor.hear()["op"] == "gone"
    assert can_lock(place)
    assert place.seen() is None


def test_an_incomplete_version_takes_another_mode(place):
    place.work(complete=False, mode="Native", bytes=1)
    place.start(mode="")
    mount, _ = place.supervisor().mounts["m0"]
    assert mount["mode"] != "Native"
    assert "Native was asked for, but not every file is in the cache" in mount["why"]
    assert can_lock(place)


def test_a_busy_bind_goes_at_once(bound):
    place, supervisor = bound
    with open(place.target / "file") as file:
        assert place.speaker().ask(op="unpublish", all=True) == {"ok": True}
        assert file.read() == "content", "who has it open reads on"
    assert supervisor.hear()["op"] == "gone"
    assert can_lock(place)


def test_the_tree_is_not_reached_through_a_symlink(place):
    (place.path / "secret").mkdir()
    (place.path / "secret/file").write_text("secret")
    place.data.rmdir()
    place.data.symlink_to(place.path / "secret")
    place.work(complete=True)
    place.start(mode="Native")
    supervisor = place.speaker()
    supervisor.hold()
    time.sleep(0.8)
    assert place.seen() is None
    assert "is not mounted yet" in place.log.read_text()

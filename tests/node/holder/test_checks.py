"""Each check of the holder, and an attempt to get round it."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess

import pytest

from cache_worker.holder import messages
from cacheop.api import names
from tests.fakes.holder_worker import VERSION

pytestmark = pytest.mark.node


def open_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_file_of_the_version_gets_an_id_once(served):
    first = served.backing()
    assert first["backing"] > 0
    assert served.ids[2] == first["backing"]
    assert served.backing() == first
    with open(served.place.target / "file.bin", "rb") as file:
        assert file.read() == served.content


def test_an_id_is_closed_and_another_one_made(served):
    served.backing()
    assert served.lane.ask(op="close", node=2) == {"node": 2, "backing": 0}
    assert served.ids[2] == 0
    assert served.backing()["backing"] > 0


@pytest.mark.parametrize(
    ("make", "path", "code"),
    [
        ("symlink", "link", errno.ELOOP),
        ("symlinked directory", "way/secret", errno.ELOOP),
        ("nothing", "../../../secret", errno.EINVAL),
        ("nothing", "../other/secret", errno.EINVAL),
        ("nothing", f"../{VERSION}/file.bin", errno.EINVAL),
        ("nothing", "missing", errno.ENOENT),
        ("directory", "directory", errno.EINVAL),
        ("fifo", "fifo", errno.EINVAL),
        ("socket", "socket", errno.ENXIO),
        ("stranger", "stranger", errno.EPERM),
        ("tmpfs", "elsewhere/secret", errno.EXDEV),
    ],
)
def test_what_is_not_a_file_of_the_version_gets_none(served, make, path, code):
    place, data = served.place, served.place.data
    (place.path / "secret").write_text("secret")
    (place.path / "away").mkdir()
    (place.path / "away/secret").write_text("secret")
    other = place.root / names.DATA_DIR / "other"
    other.mkdir()
    (other / "secret").write_text("secret")
    if make == "symlink":
        (data / "link").symlink_to(place.path / "secret")
    elif make == "symlinked directory":
        (data / "way").symlink_to(place.path / "away")
    elif make == "directory":
        (data / "directory").mkdir()
    elif make == "fifo":
        os.mkfifo(data / "fifo")
    elif make == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            directory = os.open(data, os.O_PATH)
            made.bind(f"/proc/self/fd/{directory}/socket")
            os.close(directory)
    elif make == "stranger":
        (data / "stranger").write_text("x")
        os.chown(data / "stranger", 4321, 4321)
    elif make == "tmpfs":
        (data / "elsewhere").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", data / "elsewhere"], check=True)
        (data / "elsewhere/secret").write_text("secret")
    answer = served.backing(f"{names.data_path(VERSION)}/{path}")
    assert answer["node"] == 2
    assert "backing" not in answer
    assert answer["errno"] == code
    assert served.ids[2] == 0
    assert served.backing()["backing"] > 0, "the lane works on"


@pytest.mark.parametrize("path", ["/etc/passwd", "", "data", "data/other/x", "manifest/x", "a\0b"])
def test_paths_outside_the_version_are_refused(served, path):
    assert served.backing(path)["errno"] == errno.EINVAL


@pytest.mark.parametrize("node", [0, 1, 6, 1 << 20, (1 << 32) - 1])
def test_nodes_out_of_range_are_refused(served, node):
    assert served.backing(node=node)["errno"] == errno.EINVAL
    assert served.lane.ask(op="close", node=node)["errno"] == errno.EINVAL


@pytest.mark.parametrize("node", [-1, 1 << 32, "2", None, True, 2.0, [2]])
def test_nodes_that_are_no_numbers_end_the_connection(served, node):
    served.lane.say(op="backing", node=node, path=served.path)
    assert served.lane.is_closed()


@pytest.mark.parametrize("flags", [os.O_PATH, os.O_RDWR, os.O_RDONLY])
def test_no_fd_is_taken_from_a_mount_process(served, flags):
    before = open_fds(served.place.holder.pid)
    fd = os.open(served.place.root / served.path, flags)
    try:
        message = {"op": "backing", "node": 2, "path": served.path}
        messages.send(served.lane.sock, message, [fd])
    finally:
        os.close(fd)
    assert served.lane.is_closed()
    assert served.ids[2] == 0
    assert open_fds(served.place.holder.pid) == before - 1, "the connection's own fd is gone"


@pytest.mark.parametrize(
    "packet",
    [
        *(b"garbage", b"[]", b"{", b"null", b"\xff" * 100, b"[" * 50_000, b"{}"),
        *(b'{"op": 7}', b'{"op": "format"}', b'{"op": "held_all"}', b'{"op": "held", "id": "m0"}'),
        *(b'{"op": "backing", "node": 2, "path": "x"}', b'{"op": "mode", "mode": "Fuse"}'),
        *(b'{"op": "serve"}', b'{"op": "serve", "id": "m0", "lane": -1}', b" " * 100_000),
    ],
)
def test_what_is_no_message_ends_only_its_connection(served, packet):
    stranger = served.place.speaker()
    stranger.sock.send(packet)
    assert stranger.is_closed()
    assert served.backing()["backing"] > 0


def test_too_many_fds_are_refused_and_closed(served):
    before = open_fds(served.place.holder.pid)
    stranger = served.place.speaker()
    messages.send(stranger.sock, {"op": "report"}, [0] * 20)
    assert stranger.is_closed()
    assert open_fds(served.place.holder.pid) == before


def test_unknown_mounts_are_not_served(served):
    stranger = served.place.speaker()
    assert stranger.ask(op="serve", id="m77", lane=0)["errno"] == errno.ENOENT


def test_a_successor_s_lane_ends_the_predecessor_s(served):
    successor = served.place.speaker()
    assert successor.ask(op="serve", id=served.mount["id"], lane=0) == {"ok": True}
    assert served.lane.is_closed()
    report = served.place.speaker().ask(op="report")["mounts"]
    assert report[0]["lanes"] == [0]


def test_requests_are_answered_in_order(served):
    for _ in range(500):
        served.lane.say(op="backing", node=2, path=served.path)
        served.lane.say(op="close", node=2)
        served.lane.say(op="backing", node=3, path="x")
    for _ in range(500):
        assert served.lane.hear()["backing"] > 0
        assert served.lane.hear() == {"node": 2, "backing": 0}
        assert served.lane.hear()["node"] == 3


def test_a_mount_may_fall_back_to_plain_fuse_only(served):
    assert served.lane.ask(op="mode", mode="Native", why="x")["errno"] == errno.EINVAL
    assert served.lane.ask(op="mode", mode="Fuse", why="an old kernel") == {"ok": True}
    heard = served.place.speakers[0].hear()
    assert (heard["op"], heard["mount"]["mode"]) == ("changed", "Fuse")
    record = json.loads((served.place.root / "mounts/m0.json").read_text())
    assert (record["mode"], record["why"]) == ("Fuse", "an old kernel")


def test_nobody_can_write_the_table_of_ids(served):
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(served.fds[2], b"1234")
    child = os.fork()
    if child == 0:  # as the cache's user, who could reopen what belonged to it
        os.setuid(65534)
        try:
            os.open(f"/proc/self/fd/{served.fds[2]}", os.O_RDWR)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_socket_is_the_owner_s_alone(served):
    found = (served.place.root / names.HOLDER_SOCKET).stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, served.place.root.stat().st_uid)

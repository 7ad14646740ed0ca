"""The holder dies and comes back, mounts come and go; supervisor and worker are stand-ins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache_worker.holder import messages, mounting, syscalls
from cacheop.api import names
from tests.fakes.holder_worker import VERSION

pytestmark = pytest.mark.node


def wait_for(what, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def test_a_mount_is_told_recorded_and_given_to_the_supervisor(place):
    place.work(mode="Fuse", bytes=5)
    place.start(mode="")
    supervisor = place.supervisor()
    mount, fds = supervisor.mounts["m0"]
    seen = place.seen()
    assert (seen.kind, seen.device) == (mounting.FUSE_TYPE, mount["device"])
    assert {"ro", "nosuid", "nodev"} <= set(seen.options)
    assert mount["mode"] == "Fuse"
    assert mount["version"] == VERSION
    assert mount["rows"] == 4
    assert [os.fstat(fd).st_size for fd in fds[1:]] == [16 << 20, 4 * 6]
    assert json.loads((place.root / "mounts/m0.json").read_text()) == mount
    command = place.speaker()
    wait_for(lambda: command.ask(op="report")["mounts"][0]["supervisor"])
    assert command.ask(op="report")["mounts"] == [
        {**mount, "held": True, "supervisor": True, "lanes": []}
    ]


def test_a_killed_holder_gets_everything_back(served):
    place, before = served.place, served.backing()
    supervisor = place.speakers[0]
    reader = open(place.target / "file.bin", "rb")  # noqa: SIM115
    place.kill()
    assert reader.read() == served.content, "open files read on without a holder"
    reader.close()
    place.start()
    successor = place.speaker()
    assert [m["op"] for m in successor.hold(having=supervisor)] == ["ready"]
    assert place.seen().device == served.mount["device"], "it is the same mount"
    command = place.speaker()
    assert command.ask(op="report")["mounts"] == [
        {**served.mount, "held": True, "supervisor": True, "lanes": []}
    ]
    served.lane = place.speaker()
    assert served.lane.ask(op="serve", id="m0", lane=0) == {"ok": True}
    assert served.backing() == before, "ids are kept"
    assert served.lane.ask(op="close", node=2)["backing"] == 0
    assert served.backing()["backing"] > 0
    with open(place.target / "file.bin", "rb") as file:
        assert file.read() == served.content


def test_a_new_supervisor_gets_everything_from_the_holder(served):
    place = served.place
    first = place.speakers[0]
    second = place.speaker()
    heard = second.hold()
    assert [m["op"] for m in heard] == ["mount", "ready"]
    assert first.is_closed()
    assert second.mounts["m0"][0] == served.mount
    assert len(second.mounts["m0"][1]) == 3


def test_what_nobody_holds_is_made_anew(served):
    place, old = served.place, served.mount["device"]
    place.kill()
    for _, fds in (supervisor := place.speakers[0]).mounts.values():
        messages.close_all(fds)
    supervisor.mounts.clear()
    place.start()
    again = place.supervisor()
    mount = next(iter(again.mounts.values()))[0]
    assert mount["target"] == str(place.target)
    assert place.seen().device == mount["device"]
    places = [m for m in mounting.read_mounts() if m.target == str(place.target)]
    assert len(places) == 1, "the dead one is gone"
    assert mount["id"] != "m0" or mount["device"] != old
    assert len(list((place.root / "mounts").glob("*.json"))) == 1


def test_an_unknown_mount_of_the_supervisor_is_gone(place):
    place.work()
    place.start(mode=None)
    supervisor = place.speaker()
    pretended = {
        "id": "m5",
        "target": "/",
        "mode": "Fuse",
        "why": "",
        "version": VERSION,
        "rows": 4,
        "device": "0:1",
        "grace_seconds": 1.0,
    }
    supervisor.say(op="hold")
    messages.send(supervisor.sock, {"op": "held", "mount": pretended}, [0, 1, 2])
    supervisor.say(op="held_all")
    assert supervisor.hear() == {"op": "gone", "id": "m5"}
    assert supervisor.hear() == {"op": "ready"}
    assert place.speaker().ask(op="report")["mounts"] == []


@pytest.mark.parametrize("wrong", ["files", "swapped", "other memory"])
def test_a_restarted_holder_believes_no_wrong_fds(served, wrong):
    place, supervisor = served.place, served.place.speakers[0]
    mount, fds = supervisor.mounts.pop("m0")
    place.kill()
    place.start()
    precious = place.path / "precious"
    precious.write_bytes(bytes(24))
    readable = os.open(precious, os.O_RDONLY)
    memory = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 24)
    given = {
        "files": [readable] * 3,
        "swapped": [fds[1], fds[0], fds[2]],
        "other memory": [fds[0], fds[1], memory],
    }[wrong]
    successor = place.speaker()
    successor.say(op="hold")
    messages.send(successor.sock, {"op": "held", "mount": mount}, given)
    successor.say(op="held_all")
    assert successor.hear() == {"op": "gone", "id": "m0"}
    messages.close_all([*fds, readable, memory])
    wait_for(lambda: place.seen() is not None and place.seen().device)
    assert precious.read_bytes() == bytes(24)


def test_sigterm_leaves_the_mounts(served):
    place = served.place
    place.kill(signal.SIGTERM)
    assert place.holder.returncode == 0
    assert place.seen() is not None
    assert (place.root / "mounts/m0.json").exists()


def test_only_one_holder_keeps_a_root(place):
    place.work()
    first = place.start()
    place.supervisor()
    second = subprocess.Popen(
        [sys.executable, "-m", "cache_worker", "hold", str(place.config)],
        cwd=Path(__file__).parents[3],
    )
    time.sleep(0.5)
    assert place.speaker().ask(op="report")["mounts"][0]["held"], "the first one answers"
    first.kill()
    first.wait()
    supervisor = place.speaker()
    supervisor.hold(having=place.speakers[0])
    assert "m0" in supervisor.mounts
    second.kill()
    second.wait()


@pytest.mark.parametrize("bad", ["file", "full", "foreign"])
def test_a_bad_target_of_config_is_told_at_once(place, bad):
    if bad == "file":
        place.target.write_text("x")
    else:
        place.target.mkdir()
    if bad == "full":
        (place.target / "x").write_text("x")
    if bad == "foreign":
        subprocess.run(["mount", "-t", "tmpfs", "none", place.target], check=True)
    holder = place.start()
    assert holder.wait(10) == 2
    assert f"cannot mount at {place.target}" in place.log.read_text()


def test_it_waits_for_a_worker_and_says_so_once(place):
    place.start()
    supervisor = place.speaker()
    supervisor.hold()
    time.sleep(1.0)
    place.work()
    assert supervisor.hear()["op"] == "mount"
    assert place.log.read_text().count("is not mounted yet") == 1


def test_the_worker_s_socket_is_not_followed(place):
    place.work()
    (place.root / names.WORKER_SOCKET).rename(place.path / "worker.sock")
    (place.root / names.WORKER_SOCKET).symlink_to(place.path / "worker.sock")
    place.start()
    supervisor = place.speaker()
    supervisor.hold()
    time.sleep(0.6)
    assert place.worker.asked == 0
    assert place.seen() is None


def test_commands_publish_and_unpublish(place):
    place.work()
    place.start(mode=None)
    supervisor, command = place.speaker(), place.speaker()
    supervisor.hold()
    target = str(place.target)
    mount = command.ask(op="publish", target=target, mode="Fuse", version="")["mount"]
    assert (mount["mode"], mount["target"]) == ("Fuse", target)
    assert supervisor.hear()["mount"] == mount
    again = command.ask(op="publish", target=target, mode="Fuse", version="")
    assert again == {"mount": mount}
    refused = command.ask(op="publish", target=target, mode="Native", version="")
    assert refused["error"]["error"] == "UserError"
    assert command.ask(op="unpublish", target=target) == {"ok": True}
    assert supervisor.hear() == {"op": "gone", "id": mount["id"]}
    assert place.seen() is None
    assert list((place.root / "mounts").iterdir()) == []
    assert command.ask(op="unpublish", target=target)["error"]["error"] == "NotFoundError"
    assert command.ask(op="publish", target="relative")["error"]["error"] == "UserError"
    assert command.ask(op="publish", target=target, version="../x")["error"]["error"] == "UserError"


@pytest.mark.parametrize("use", ["open file", "directory"])
def test_unpublish_while_busy_returns_and_leaks_nothing(served, use):
    place, command, supervisor = served.place, served.place.speaker(), served.place.speakers[0]
    before = connections()
    used = os.open(place.target, os.O_RDONLY) if use == "directory" else -1
    if use == "open file":
        # No backing id: the server answers what the kernel refuses, so take one first.
        served.backing()
        used = os.open(place.target / "file.bin", os.O_RDONLY)
    started = time.monotonic()
    assert command.ask(op="unpublish", all=True) == {"ok": True}
    assert time.monotonic() - started < 1.0
    assert supervisor.hear() == {"op": "gone", "id": "m0"}
    assert place.seen() is None
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.statvfs(used)
    with contextlib.suppress(OSError):  # its FLUSH is not answered any more
        os.close(used)
    wait_for(lambda: connections() == before - {int(served.mount["device"].split(":")[1])})
    wait_for(served.lane.is_closed)
    links = [os.readlink(f"/proc/{place.holder.pid}/fd/{fd}") for fd in fds_of(place.holder.pid)]
    assert not [link for link in links if "fuse" in link or "memfd" in link]


def fds_of(pid):
    return os.listdir(f"/proc/{pid}/fd")


def connections():
    """Numbers of the FUSE connections that the kernel has."""
    control = syscalls.private_mount("fusectl")
    try:
        directory = os.open(".", os.O_RDONLY, dir_fd=control)
        try:
            return {int(name) for name in os.listdir(directory)}
        finally:
            os.close(directory)
    finally:
        os.close(control)


def test_an_unmount_by_hand_is_noticed(served):
    place, supervisor = served.place, served.place.speakers[0]
    subprocess.run(["umount", "--lazy", place.target], check=True)
    assert supervisor.hear() == {"op": "gone", "id": "m0"}
    assert not (place.root / "mounts/m0.json").exists()


def test_a_command_that_leaves_cancels_its_publication(place):
    place.start(mode=None)
    command = place.speaker()
    command.say(op="publish", target=str(place.target), mode="", version="")
    time.sleep(0.3)
    command.sock.close()
    time.sleep(0.3)
    place.work()
    time.sleep(0.6)
    assert place.seen() is None
    assert place.speaker().ask(op="report") == {"mounts": []}


def test_it_is_small_and_imports_little(served):
    for number in range(2000):
        served.backing(node=2 + number % 4)
    rollup = Path(f"/proc/{served.place.holder.pid}/smaps_rollup").read_text()
    pss_kb = int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    print(f"holder: {pss_kb} kB PSS")
    assert pss_kb <= 12 * 1024
    code = "import sys, cache_worker.holder.server; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "dataclasses", "pathlib", "subprocess", "inspect", "logging", "tempfile"}
    assert not heavy & set(found.stdout.split())
    ours = {m for m in found.stdout.split() if m.startswith(("cache_worker.", "cacheop."))}
    foreign = {m for m in ours if not m.startswith("cache_worker.holder")}
    assert foreign <= {
        "cacheop.api",
        "cacheop.api.errors",
        "cacheop.api.mount_modes",
        "cacheop.api.names",
    }

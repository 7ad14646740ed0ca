"""The supervisor on a stand-in holder: what it keeps, starts, ends and tells."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache_worker import brief, launcher, supervisor
from cache_worker.holder import messages
from cacheop.api.errors import UserError

TOP = Path(__file__).parents[3]
PROGRAM = """
import json, os, sys, time
from cache_worker.{module} import {name}
sys.exit({name}(sys.argv[1], [sys.executable, sys.argv[2]]).run())
"""
CHILD = """
import json, os, sys, time
words, directory = sys.argv[1:], os.path.dirname(os.path.abspath(__file__))
fds = [int(words[words.index(w) + 1]) for w in ("--fuse", "--ring", "--ids") if w in words]
inodes = [os.fstat(fd).st_ino for fd in fds]
told = {"verb": words[0], "pid": os.getpid(), "words": words, "inodes": inodes}
with open(directory + "/log", "a") as log:
    log.write(json.dumps(told) + "\\n")
while True:
    if os.path.exists(f"{directory}/exit-{words[0]}"):
        os._exit(int(open(f"{directory}/exit-{words[0]}").read()))
    time.sleep(0.01)
"""
MOUNT = {"id": "m0", "target": "/mnt/x", "mode": "ZeroOpen", "why": "", "version": "ab", "rows": 3}


def wait_for(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


class Stage:
    """A process under test, children that only note that they run, and a holder to play."""

    def __init__(self, directory: Path, **config: object) -> None:
        self.directory = directory
        self.config = directory / "c.json"
        self.child = directory / "child.py"
        self.child.write_text(CHILD)
        said = {"root": str(directory), "mounts": [{"target": "/mnt/x"}], **config}
        self.config.write_text(json.dumps(said))
        self.listener: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        path = self.directory / "holder.sock"
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.chdir(self.directory)
        self.listener.bind("holder.sock")
        self.listener.listen()
        self.listener.settimeout(10)

    def start(self, module: str = "supervisor", name: str = "Supervisor") -> None:
        code = PROGRAM.format(module=module, name=name)
        words = [sys.executable, "-c", code, str(self.config), str(self.child)]
        self.process = subprocess.Popen(words, cwd=TOP)

    def accept(self) -> tuple[socket.socket, list[tuple[dict, list[int]]]]:
        """The supervisor's line, and what it says first."""
        line, _ = self.listener.accept()
        line.settimeout(10)
        said = []
        while not said or said[-1][0]["op"] != "held_all":
            said.append(messages.receive(line))
        return line, said

    def told(self, verb: str) -> list[dict]:
        try:
            lines = (self.directory / "log").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [told for line in lines if (told := json.loads(line))["verb"] == verb]

    def alive(self, verb: str) -> list[int]:
        return [t["pid"] for t in self.told(verb) if Path(f"/proc/{t['pid']}/fd/0").exists()]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.listener is not None:
            self.listener.close()


@pytest.fixture
def stage(tmp_path):
    made = []

    def make(**config):
        made.append(Stage(tmp_path, **config))
        return made[-1]

    before = Path.cwd()
    yield make
    os.chdir(before)
    for one in made:
        one.close()


def memfds(count: int = 3) -> list[int]:
    return [os.memfd_create(f"test-{n}", os.MFD_CLOEXEC) for n in range(count)]


def inodes(fds: list[int]) -> list[int]:
    return [os.fstat(fd).st_ino for fd in fds]


def test_how_many_processes_serve_a_mount():
    count = supervisor.process_count
    assert [count("ZeroOpen", 0, cpus) for cpus in (1, 2, 8, 64)] == [1, 1, 2, 4]
    assert [count("Fuse", 3, 64), count("Passthrough", 0, 64), count("Passthrough", 2, 1)] == [
        3,
        1,
        1,
    ]
    assert count("Native", 3, 64) == 0


def test_a_mount_gets_its_processes_with_its_fds_and_is_acknowledged(stage):
    one = stage(mount_processes=2)
    one.listen()
    one.start()
    line, said = one.accept()
    assert [message["op"] for message, _ in said] == ["hold", "held_all"]
    fds = memfds()
    messages.send(line, {"op": "mount", "mount": MOUNT}, fds)
    assert messages.receive(line) == ({"op": "held", "id": "m0"}, [])
    wait_for(lambda: len(one.told("mount")) == 2)
    assert all(told["inodes"] == inodes(fds) for told in one.told("mount"))
    for lane, told in enumerate(sorted(one.told("mount"), key=lambda t: t["words"][5])):
        assert told["words"][:6] == [
            *("mount", str(one.config), "--mount"),
            *(json.dumps(MOUNT, separators=(",", ":")), "--lane", str(lane)),
        ]


def test_a_killed_mount_process_comes_back_with_the_same_fds(stage):
    one = stage(mount_processes=1)
    one.listen()
    one.start()
    line, _ = one.accept()
    fds = memfds()
    messages.send(line, {"op": "mount", "mount": MOUNT}, fds)
    for n in range(1, 4):
        wait_for(lambda n=n: len(one.told("mount")) == n)
        os.kill(one.told("mount")[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: len(one.told("mount")) == 4)
    assert one.told("mount")[-1]["inodes"] == inodes(fds)


def test_a_new_holder_gets_every_fd_back_and_nobody_is_disturbed(stage):
    one = stage(mount_processes=1)
    one.listen()
    one.start()
    line, _ = one.accept()
    fds = memfds()
    messages.send(line, {"op": "mount", "mount": MOUNT}, fds)
    native = MOUNT | {"id": "m1", "mode": "Native"}
    messages.send(line, {"op": "mount", "mount": native}, fds[:1])
    wait_for(lambda: one.alive("mount"))
    changed = MOUNT | {"mode": "Fuse", "why": "the kernel offers no more"}
    messages.send(line, {"op": "changed", "mount": changed})
    time.sleep(0.2)
    line.close()
    one.listener.close()
    one.listen()
    line, said = one.accept()
    assert [m.get("mount") for m, _ in said] == [None, changed, native, None]
    assert inodes(said[1][1]) == inodes(fds)
    assert inodes(said[2][1]) == inodes(fds[:1])
    assert len(one.told("mount")) == 1
    os.kill(one.told("mount")[0]["pid"], signal.SIGKILL)
    wait_for(lambda: len(one.told("mount")) == 2)
    assert json.loads(one.told("mount")[1]["words"][3]) == changed


def test_a_mount_that_is_gone_leaves_no_process_and_no_fd(stage):
    one = stage(mount_processes=1)
    one.listen()
    one.start()
    line, _ = one.accept()
    wait_for(lambda: one.alive("work"))
    descriptors = Path(f"/proc/{one.process.pid}/fd")
    before = len(os.listdir(descriptors))
    for _ in range(3):
        messages.send(line, {"op": "mount", "mount": MOUNT}, memfds())
        messages.receive(line)
        wait_for(lambda: one.alive("mount"))
        messages.send(line, {"op": "gone", "id": "m0"})
        wait_for(lambda: not one.alive("mount"))
        wait_for(lambda: len(os.listdir(descriptors)) == before)
    messages.send(line, {"op": "gone", "id": "unknown"})
    assert one.process.poll() is None


def test_a_mount_process_that_ends_with_0_was_unmounted(stage):
    one = stage(mount_processes=2)
    one.listen()
    one.start()
    line, _ = one.accept()
    messages.send(line, {"op": "mount", "mount": MOUNT}, memfds())
    wait_for(lambda: len(one.alive("mount")) == 2)
    (one.directory / "exit-mount").write_text("0")
    wait_for(lambda: not one.alive("mount"))
    time.sleep(0.3)
    assert len(one.told("mount")) == 2
    assert one.alive("work")


def test_what_makes_no_sense_costs_the_line_not_the_supervisor(stage):
    one = stage()
    one.listen()
    one.start()
    for packet, fds in (
        ({"op": "mount", "mount": MOUNT}, memfds(2)),
        ({"op": "mount", "mount": {}}, memfds(3)),
        ({"op": "gone"}, []),
    ):
        line, said = one.accept()
        assert len(said) == 2  # it holds nothing
        messages.send(line, packet, fds)
        assert messages.receive(line) is None
    line, _ = one.accept()
    line.send(b"not json")
    one.accept()
    assert one.process.poll() is None


def test_sigterm_ends_the_children(stage):
    one = stage(mount_processes=1)
    one.listen()
    one.start()
    line, _ = one.accept()
    messages.send(line, {"op": "mount", "mount": MOUNT}, memfds())
    wait_for(lambda: one.alive("mount") and one.alive("work"))
    one.process.terminate()
    assert one.process.wait(10) == 0
    assert not one.alive("mount")
    assert not one.alive("work")


@pytest.mark.parametrize("code", [0, 2])
def test_exit_codes_of_the_worker_end_everything(stage, code):
    one = stage(mounts=[])
    (one.directory / "exit-work").write_text(str(code))
    one.start()
    assert one.process.wait(10) == code


def test_the_launcher_keeps_both_alive_and_ends_both(stage):
    one = stage()
    one.start("launcher", "Launcher")
    for verb in ("hold", "supervise"):
        wait_for(lambda verb=verb: one.alive(verb))
        os.kill(one.alive(verb)[0], signal.SIGKILL)
        wait_for(lambda verb=verb: len(one.told(verb)) == 2)
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(15) == 0
    assert not one.alive("hold")
    assert not one.alive("supervise")


def test_the_launcher_asks_the_holder_to_unmount_first(stage):
    one = stage()
    one.listen()
    one.start("launcher", "Launcher")
    wait_for(lambda: one.alive("hold") and one.alive("supervise"))
    one.process.terminate()
    line, _ = one.listener.accept()
    assert messages.receive(line) == ({"op": "unpublish", "all": True}, [])
    assert one.alive("hold")
    assert one.alive("supervise")
    messages.send(line, {"ok": True})
    assert one.process.wait(15) == 0


def test_without_mounts_there_is_no_holder(stage):
    one = stage(mounts=[])
    one.start("launcher", "Launcher")
    wait_for(lambda: one.alive("supervise"))
    assert not one.told("hold")


@pytest.mark.parametrize(("verb", "code"), [("hold", 2), ("supervise", 2), ("supervise", 0)])
def test_bad_input_and_a_supervisor_that_ended_end_the_launcher(stage, verb, code):
    one = stage()
    (one.directory / f"exit-{verb}").write_text(str(code))
    one.start("launcher", "Launcher")
    assert one.process.wait(15) == code
    assert not one.alive("hold")
    assert not one.alive("supervise")


def test_a_killed_launcher_takes_both_along(stage):
    one = stage()
    one.start("launcher", "Launcher")
    wait_for(lambda: one.alive("hold") and one.alive("supervise"))
    one.process.kill()
    wait_for(lambda: not one.alive("hold") and not one.alive("supervise"))


def test_jemalloc_is_preloaded_unless_something_else_is():
    base = {"PATH": "/bin"}
    assert supervisor.worker_environment(base, "") == base
    found = supervisor.worker_environment(base, "/lib/libjemalloc.so.2")
    assert found["LD_PRELOAD"] == "/lib/libjemalloc.so.2"
    assert "background_thread:true" in found["MALLOC_CONF"]
    chosen = {"LD_PRELOAD": "/lib/asan.so"}
    assert supervisor.worker_environment(chosen, "/lib/libjemalloc.so.2") == chosen


def test_the_brief_of_a_configuration(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"root": "/r", "mounts": [{"target": "/a"}], "mount_processes": 3}')
    found = brief.read(str(path))
    assert (found.root, found.targets, found.mount_processes) == ("/r", ["/a"], 3)
    path.write_text('{"root": "/r"}')
    assert brief.read(str(path)).targets == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"root": "/", "mounts": [{}]}', '{"root": "/", "mounts": 1}']
)
def test_a_broken_configuration_is_the_users_error(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot read"):
        brief.read(str(path))
    with pytest.raises(UserError, match="cannot read"):
        brief.read(str(tmp_path / "none.json"))


@pytest.mark.parametrize("module", [supervisor, launcher])
def test_wrong_use_exits_with_2(tmp_path, capfd, module):
    assert module.main([]) == 2
    assert module.main([str(tmp_path / "none.json")]) == 2
    # What it watched it gives back: a mask left behind is inherited by every later process.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capfd.readouterr().err.count(f"cacheop {module.__name__.split('.')[1]}: ") == 2


@pytest.mark.parametrize(
    ("module", "name"), [("supervisor", "Supervisor"), ("launcher", "Launcher")]
)
def test_they_stay_tiny(stage, module, name):
    one = stage(mounts=[])
    one.start(module, name)
    wait_for(lambda: one.told("work") or one.told("supervise"))
    lines = Path(f"/proc/{one.process.pid}/smaps_rollup").read_text().splitlines()
    pss_kib = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert pss_kib <= 12 << 10

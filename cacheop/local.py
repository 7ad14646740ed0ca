"""What `cacheop up` runs on this machine: one record per Dataset in the run directory.

    <run>/<namespace>.<name>.json   the record, readable by all: every user's client finds it
    <run>/<namespace>.<name>.lock   held by the `up` or `down` at work on it
    <run>/<namespace>.<name>/       0700: config files, secrets, logs of the processes

The run directory is $CACHEOP_RUN_DIR, else /run/cacheop for root, else $XDG_RUNTIME_DIR/cacheop,
else /tmp/cacheop-<uid>. A record says what was started; `is_alive` whether it still runs. Standard
library only: the fsspec client imports this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop.api import names
from cacheop.api.errors import UserError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_RUN_DIR = Path("/run/cacheop")

EXEC_TRIES, EXEC_SECONDS = 20, 0.005


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of a Dataset: a launcher and its cache directory."""

    node: str
    root: Path
    """<cache>/<namespace>/<name>/local"""
    pid: int
    """of the launcher; 0 = `cacheop down --node` stopped it, `cacheop up` starts it again"""
    config: Path
    """The file the launcher was started with; also what proves that `pid` is still it."""

    @property
    def is_stopped(self) -> bool:
        """Whether it is meant not to run."""
        return self.pid == 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One Dataset that was brought up."""

    namespace: str
    name: str
    file: str
    """The Dataset file, for people; empty when there was none."""
    nodes: tuple[NodeRecord, ...]
    mount: str
    """Where it is mounted; empty = nowhere."""
    started: float
    """Seconds since the epoch."""
    run_dir: Path
    """The run directory that this record lies in."""

    @property
    def client_token(self) -> Path:
        """The file (0600) with the token of readers on other machines; there with --listen."""
        return self.directory / "client-token"

    @property
    def directory(self) -> Path:
        """Config files, secrets and logs of this Dataset."""
        return directory(self.run_dir, self.namespace, self.name)

    def with_nodes(self, changed: Mapping[str, NodeRecord]) -> RunRecord:
        """This record with other records of some of its nodes, by their names."""
        return replace(self, nodes=tuple(changed.get(n.node, n) for n in self.nodes))


def own_run_dir() -> Path:
    """Where this user's `cacheop up` writes."""
    return run_dirs()[0]


def run_dirs() -> list[Path]:
    """Where records are looked for, in this order; the first is this user's own."""
    named = os.environ.get(names.ENV_RUN_DIR)
    if named:
        return [Path(named)]
    if os.geteuid() == 0:
        return [SYSTEM_RUN_DIR]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = Path(runtime) / "cacheop" if runtime else Path(f"/tmp/cacheop-{os.geteuid()}")  # noqa: S108 - ownership is checked
    return [own, SYSTEM_RUN_DIR]


def directory(run_dir: Path, namespace: str, name: str) -> Path:
    """The private directory of a Dataset below `run_dir`."""
    return run_dir / f"{namespace}.{name}"


def find(namespace: str, name: str) -> RunRecord | None:
    """The record of a Dataset, whether it still runs or not; None if there is none."""
    for run_dir in _trusted_dirs():
        record = _read(run_dir / f"{namespace}.{name}.json")
        if record is not None:
            return record
    return None


def all_records() -> list[RunRecord]:
    """Every record on this machine that this user can see, sorted by namespace and name."""
    found: dict[tuple[str, str], RunRecord] = {}
    for run_dir in _trusted_dirs():
        for path in run_dir.glob("*.json"):
            record = _read(path)
            if record is not None:
                found.setdefault((record.namespace, record.name), record)
    return [found[key] for key in sorted(found)]


def write(record: RunRecord) -> None:
    """Put `record` into its run directory, in one step."""
    content = asdict(record)
    del content["run_dir"]
    for node in content["nodes"]:
        node["root"], node["config"] = str(node["root"]), str(node["config"])
    path = record.run_dir / f"{record.namespace}.{record.name}.json"
    replace_file(path, json.dumps(content, indent=1) + "\n", mode=0o644)


def remove(record: RunRecord) -> None:
    """Forget `record`; nothing is stopped."""
    path = record.run_dir / f"{record.namespace}.{record.name}.json"
    path.unlink(missing_ok=True)


def make_run_dir() -> Path:
    """This user's run directory, made if missing. UserError if it cannot be used."""
    path = own_run_dir()
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the run directory {path}: {error.strerror}",
            hint=f"Set {names.ENV_RUN_DIR} to a directory you can write",
        ) from error
    if not _is_trusted(path):
        raise UserError(
            f"the run directory {path} belongs to somebody else or others can write it",
            hint=f"Set {names.ENV_RUN_DIR} to a directory of your own",
        )
    return path


@contextlib.contextmanager
def locked(
    run_dir: Path, namespace: str, name: str, *, wait_seconds: float = 0.0
) -> Iterator[None]:
    """Hold the lock of one Dataset, so that one `up` or `down` at a time works on it.

    The kernel lets go of it when this process ends. The file stays: removing a lock file races.
    Raises WorkerUnavailable if another process holds it longer than `wait_seconds`.
    """
    path = run_dir / f"{namespace}.{name}.lock"
    deadline = time.monotonic() + wait_seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise WorkerUnavailable(
                        f"another `cacheop up` or `cacheop down` of {namespace}/{name} is at work",
                        hint="Wait for it, then try again",
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_alive(node: NodeRecord) -> bool:
    """Whether the launcher of `node` still runs: its pid lives and was started with its config.

    The config's path in the command line tells it from another process that got the pid later.
    """
    if node.is_stopped:
        return False
    process = Path(f"/proc/{node.pid}")
    for _ in range(EXEC_TRIES):
        try:
            command = (process / "cmdline").read_bytes()
            if command or b"Z (zombie)" in (process / "status").read_bytes():
                return os.fsencode(node.config) in command.split(b"\0")
        except OSError:
            return False
        time.sleep(EXEC_SECONDS)  # in the middle of execve(2) a process has no command line
    return False


def replace_file(path: Path, text: str, *, mode: int) -> None:
    """Write `text` to `path` so that readers see the old or the new content, never a part."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _trusted_dirs() -> list[Path]:
    return [path for path in run_dirs() if _is_trusted(path)]


def _is_trusted(path: Path) -> bool:
    """Whether no stranger can have written here: a record names files that we open.

    A directory that the user named is the user's choice.
    """
    try:
        found = path.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    if os.environ.get(names.ENV_RUN_DIR):
        return True
    return found.st_uid in {0, os.geteuid()} and not found.st_mode & stat.S_IWOTH


def _read(path: Path) -> RunRecord | None:
    """The record in `path`; None if it is not there. UserError if it is not a record."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        return RunRecord(
            namespace=raw["namespace"],
            name=raw["name"],
            file=raw["file"],
            nodes=tuple(
                NodeRecord(n["node"], Path(n["root"]), int(n["pid"]), Path(n["config"]))
                for n in raw["nodes"]
            ),
            mount=raw["mount"],
            started=float(raw["started"]),
            run_dir=path.parent,
        )
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(
            f"cannot read the run record {path}: {error.strerror}",
            hint=f"It is another user's; ask them, or set {names.ENV_RUN_DIR} to another directory",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read the run record {path}: {error!r}",
            hint="Remove the file if nothing runs any more",
        ) from error

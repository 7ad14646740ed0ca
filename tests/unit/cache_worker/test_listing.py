"""The index child: what it writes, what it says, and that a failure leaves nothing behind."""

from __future__ import annotations

import io
import json
import mmap
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from cache_worker.drop import only_in
from cache_worker.listing import report, run
from cache_worker.origins import Listing
from cache_worker.settings import load
from cache_worker.version_files import open_index, open_slots, versions_on_disk
from cacheop.api.errors import CredentialError, NotFoundError, OriginError, StoreError, UserError
from cacheop.api.index import Index

REPOSITORY = Path(__file__).parents[3]


@dataclass
class Shelf:
    """An origin that lists a dict {key: (size, etag)} in batches of two, then may fail."""

    objects: dict[str, tuple[int, str]]
    error: Exception | None = None
    batches: int = 0
    closed: bool = False
    lister: str = ""

    def list_objects(self):
        self.lister = threading.current_thread().name
        items = list(self.objects.items())
        for start in range(0, len(items), 2):
            keys, about = zip(*items[start : start + 2], strict=True)
            sizes, etags = zip(*about, strict=True)
            self.batches += 1
            yield Listing(keys, sizes, [0] * len(keys), etags, [""] * len(keys))
        if self.error:
            raise self.error

    async def close(self):
        self.closed = True


@dataclass
class Bench:
    """A Dataset whose mounts are shelves."""

    root: Path
    shelves: dict[str, Shelf]
    config: Path = field(init=False)

    def __post_init__(self):
        self.config = write_config(
            self.root, [{"mountPoint": uri, "path": f"/{uri[5:-1]}"} for uri in self.shelves]
        )

    def index(self):
        """(result, all lines)."""
        out = io.StringIO()
        code = report(
            lambda: run(load(self.config), lambda m, _: self.shelves[m.mount_point], out), out
        )
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        return code, lines[-1], lines[:-1]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.root / "manifest").glob("*"))


def write_config(root: Path, mounts: list[dict]) -> Path:
    dataset = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "demo"},
        "spec": {"mounts": mounts},
    }
    document = {
        "dataset": dataset,
        "namespace": "default",
        "name": "demo",
        "node": "node-0",
        "root": str(root),
        "secrets": str(root / "secrets"),
    }
    root.mkdir(parents=True, exist_ok=True)
    config = root / "config.json"
    config.write_text(json.dumps(document))
    return config


@pytest.fixture
def bench(tmp_path):
    one = Shelf({f"d/{n}": (n, "t") for n in range(5)})
    two = Shelf({"x": (1, "t"), "bad//key": (1, "t")})
    return Bench(tmp_path / "root", {"s3://one/": one, "s3://two/": two})


def test_a_version_is_written_and_told(bench) -> None:
    code, last, progress = bench.index()
    assert code == 0
    version = last["version"]
    assert last == {
        "version": version,
        "changed": True,
        "files": 6,
        "bytes": 11,
        "directories": 3,
        "skipped": {"empty part in the key": {"count": 1, "examples": ["bad//key"]}},
    }
    assert progress[-1]["keys"] == 7
    assert set(progress[-1]) == {"keys", "seconds"}
    assert bench.files == [f"{version}.arrow", f"{version}.index", f"{version}.slots"]
    index = open_index(bench.root, version)
    row = index.resolve("one/d/3")
    assert row is not None
    assert index.size(row) == 3
    assert open_slots(bench.root, version).first_slot(row) < 6
    with pa.ipc.open_file(str(bench.root / "manifest" / f"{version}.arrow")) as table:
        paths = table.read_all().column("path").to_pylist()
    assert paths == ["one/d/0", "one/d/1", "one/d/2", "one/d/3", "one/d/4", "two/x"]
    assert all(shelf.closed for shelf in bench.shelves.values())
    assert {shelf.lister.split("_")[0] for shelf in bench.shelves.values()} == {"list"}


def test_what_is_there_is_not_written_again(bench) -> None:
    version = bench.index()[1]["version"]
    stamps = {path: path.stat().st_mtime_ns for path in (bench.root / "manifest").iterdir()}
    again = bench.index()[1]
    assert (again["version"], again["changed"]) == (version, False)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_changed_means_not_the_current_version(bench) -> None:
    first = bench.index()[1]["version"]
    (bench.root / "state.json").write_text(json.dumps({"current": first}))
    assert bench.index()[1]["changed"] is False
    bench.shelves["s3://two/"].objects["x"] = (1, "other")
    second = bench.index()[1]
    assert second["changed"] is True
    (bench.root / "state.json").write_text(json.dumps({"current": second["version"]}))
    bench.shelves["s3://two/"].objects["x"] = (1, "t")
    back = bench.index()[1]
    assert (back["version"], back["changed"]) == (first, True)


def test_missing_slots_are_written_again(bench) -> None:
    version = bench.index()[1]["version"]
    before = (bench.root / "manifest" / f"{version}.slots").read_bytes()
    (bench.root / "manifest" / f"{version}.slots").unlink()
    assert versions_on_disk(bench.root) == []
    bench.index()
    assert (bench.root / "manifest" / f"{version}.slots").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        (CredentialError("who are you", hint="set a key"), "CredentialError", 2),
        (OriginError("down"), "OriginError", 1),
        (ConnectionResetError("reset"), "OriginError", 1),
    ],
)
def test_a_listing_that_fails_leaves_nothing(bench, error, name, code) -> None:
    bench.shelves["s3://two/"].error = error
    found, last, _ = bench.index()
    assert (found, last["error"]) == (code, name)
    assert set(last) == {"error", "message", "hint"}
    assert bench.files == []
    assert all(shelf.closed for shelf in bench.shelves.values())


def test_one_failing_mount_stops_the_others(bench) -> None:
    bench.shelves["s3://two/"].error = OriginError("down")
    endless = bench.shelves["s3://one/"]
    endless.objects = {f"d/{n}": (n, "t") for n in range(200_000)}
    assert bench.index()[0] == 1
    assert endless.batches < 100_000


def test_an_empty_mount_is_the_users_mistake(bench) -> None:
    bench.shelves["s3://two/"].objects = {}
    code, last, _ = bench.index()
    assert (code, last["error"]) == (UserError.exit_code, "UserError")
    assert "s3://two/" in last["message"]


def test_leftovers_of_a_killed_child_go(bench) -> None:
    (bench.root / "manifest").mkdir()
    (bench.root / "manifest" / "0123.index.new").write_bytes(b"half")
    bench.index()
    assert not [name for name in bench.files if name.endswith(".new")]


def test_a_broken_kept_version_is_an_error_not_a_guess(bench) -> None:
    version = bench.index()[1]["version"]
    index = bench.root / "manifest" / f"{version}.index"
    index.write_bytes(index.read_bytes()[:-1])
    bench.shelves["s3://two/"].objects["x"] = (2, "t")
    code, last, _ = bench.index()
    assert (code, last["error"]) == (1, "StoreError")


def test_a_version_is_gone_or_cut_short(tmp_path) -> None:
    with pytest.raises(NotFoundError):
        open_index(tmp_path, "nothere")
    (tmp_path / "manifest").mkdir()
    for content in (b"", b"COPSLT01", b"COPSLT01" + b"\1" * 8, b"SOMETHINGELSE..."):
        (tmp_path / "manifest" / "v.slots").write_bytes(content)
        with pytest.raises(StoreError):
            open_slots(tmp_path, "v")


def test_an_index_can_be_let_go_of(bench) -> None:
    version = bench.index()[1]["version"]
    with (bench.root / "manifest" / f"{version}.index").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    index = Index(memoryview(mapped))
    assert index.resolve("two/x") is not None
    index.release()
    mapped.close()  # BufferError if a view were left


def test_drop_names_the_slots_that_no_other_version_uses(bench) -> None:
    first = bench.index()[1]["version"]
    assert only_in(bench.root, first) == [(0, 6)]
    bench.shelves["s3://two/"].objects["x"] = (1, "other")
    second = bench.index()[1]["version"]
    (one,), (other,) = only_in(bench.root, first), only_in(bench.root, second)
    assert one[1] == other[1] == 1
    assert one != other
    command = [sys.executable, "-m", "cache_worker", "drop", str(bench.config)]
    found = subprocess.run([*command, first], capture_output=True, cwd=REPOSITORY, check=True)
    assert json.loads(found.stdout) == [list(one)]
    missing = subprocess.run([*command, "0" * 16], capture_output=True, cwd=REPOSITORY, check=False)
    assert missing.returncode == NotFoundError.exit_code
    assert json.loads(missing.stdout)["error"] == "NotFoundError"


def test_the_command_lists_a_server(tmp_path) -> None:
    stub = subprocess.Popen(
        [sys.executable, "benchmarks/list_stub.py", "2500", "siblings"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stub.stdout is not None
        options = {
            "endpoint_url": f"http://127.0.0.1:{int(stub.stdout.readline())}",
            "anon": True,
        }
        config = write_config(tmp_path / "r", [{"mountPoint": "s3://stub/", "options": options}])
        done = subprocess.run(
            [sys.executable, "-m", "cache_worker", "index", str(config)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        stub.communicate()
    assert done.stderr == ""
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["files"], last["directories"]) == (0, 2500, 6)
    index = open_index(tmp_path / "r", last["version"])
    assert [index.name(row) for row in index.children(-1)] == [b"train", b"train-extra"]

"""How fast one node gets what another has: our client and server against raw loops, over loopback.

    python -m benchmarks.peers [--quick] [--directory DIR]

Every way moves the same bytes from files in the page cache. `hash` ways check an xxh3-64 of each
chunk; `write` ways end with the bytes in a file. CPU seconds are of both sides together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import mmap
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from benchmarks.report import Row, show, write
from cache_worker.cluster.view import Member
from cache_worker.peers.client import Peers
from cache_worker.peers.server import PeerServer
from cache_worker.peers.service import Asker, OpenChunk, Provided
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_BYTES = 110 * 1024
INLINE_BYTES = 512 << 10
PIECE_BYTES = 1 << 20
AT_A_TIME = {"big": 8, "small": 256}
"""Fetches in flight."""
TOKEN = "of the benchmark"


@dataclass(frozen=True, slots=True)
class Data:
    """What is moved: one file in chunks, and small files."""

    directory: Path
    big_chunks: int
    small_files: int

    @property
    def big(self) -> Path:
        """The file in chunks."""
        return self.directory / "big"

    def small(self, row: int) -> Path:
        """One of the small files."""
        return self.directory / f"small-{row:05d}"

    def make(self) -> None:
        """Write the files and their checksums."""
        block = os.urandom(CHUNK_BYTES)
        with self.big.open("wb") as file:
            for number in range(self.big_chunks):
                file.write(number.to_bytes(8, "little") + block[8:])
        for row in range(self.small_files):
            self.small(row).write_bytes(row.to_bytes(8, "little") + block[8:SMALL_BYTES])
        checksums = {"big": [], "small": []}
        with self.big.open("rb") as file:
            while part := file.read(CHUNK_BYTES):
                checksums["big"].append(xxhash.xxh3_64_intdigest(part))
        for row in range(self.small_files):
            checksums["small"].append(xxhash.xxh3_64_intdigest(self.small(row).read_bytes()))
        (self.directory / "checksums").write_text(json.dumps(checksums))

    def checksums(self) -> dict[str, list[int]]:
        """As a store recorded them."""
        found: dict[str, list[int]] = json.loads((self.directory / "checksums").read_text())
        return found

    def jobs(self, kind: str) -> list[tuple[int, int]]:
        """(number, length) of what is asked for."""
        if kind == "big":
            return [(n, CHUNK_BYTES) for n in range(self.big_chunks)]
        return [(n, SMALL_BYTES) for n in range(self.small_files)]


class Files:
    """A cache_worker.peers Service over Data; version is big or small."""

    def __init__(self, data: Data) -> None:
        self._data, self._checksums = data, data.checksums()

    def open_present(self, version: str, row: int, chunk: int) -> OpenChunk | None:
        """All there is is present."""
        good = self._checksums[version]
        if version == "big":
            fd = os.open(self._data.big, os.O_RDONLY | os.O_CLOEXEC)
            return OpenChunk(fd, chunk * CHUNK_BYTES, CHUNK_BYTES, good[chunk], lambda: True)
        fd = os.open(self._data.small(row), os.O_RDONLY | os.O_CLOEXEC)
        return OpenChunk(fd, 0, SMALL_BYTES, good[row], lambda: True)

    async def provide(
        self, version: str, row: int, chunk: int, length: int, *,
        only_if_present: bool, hops: int, asker: Asker,
    ) -> Provided | None:  # fmt: skip
        """Nothing is absent."""
        raise NotFoundError(f"{version} {row} {chunk} {length} {only_if_present} {hops} {asker}")

    async def answer(
        self, op: str, meta: dict[str, Any], asker: Asker
    ) -> tuple[dict[str, Any], bytes]:
        """No other operation is measured."""
        raise NotFoundError(f"{op} {meta} {asker}")


# -- the serving process ---------------------------------------------------------------------------


def serve(data: Data) -> None:
    """Both servers; says their ports and runs until its input ends."""

    async def run() -> None:
        server = PeerServer(Files(data), TOKEN, "there")
        address = server.listen("127.0.0.1", 0)
        raw = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_accept_raw, args=(raw, data), daemon=True).start()
        print(json.dumps({"peers": address, "raw": raw.getsockname()[1]}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.close()

    asyncio.run(run())


def _accept_raw(listener: socket.socket, data: Data) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve_raw, args=(sock, data), daemon=True).start()


def _serve_raw(sock: socket.socket, data: Data) -> None:
    """The prototype's loop: 16 bytes of offset and length in, sendfile out."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fd = os.open(data.big, os.O_RDONLY)
    with sock, sock.makefile("rb") as requests:
        while request := requests.read(16):
            offset = int.from_bytes(request[:8], "little")
            left = int.from_bytes(request[8:], "little")
            while left:
                sent = os.sendfile(sock.fileno(), fd, offset, left)
                offset += sent
                left -= sent
    os.close(fd)


# -- the raw ways ----------------------------------------------------------------------------------


def raw(port: int, jobs: list[tuple[int, int]], sink: str, out: int) -> None:
    """One connection, one request after the other."""
    pipe = os.pipe()
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, length in jobs:
            place = number * length
            sock.sendall(place.to_bytes(8, "little") + length.to_bytes(8, "little"))
            _SINKS[sink](sock, out, place, length, pipe, buffer)
    for fd in pipe:
        os.close(fd)


def _discard(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202, ARG001
    while length:
        length -= sock.recv_into(buffer, min(length, PIECE_BYTES))


def _splice(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202, ARG001
    while length:
        got = left = os.splice(sock.fileno(), pipe[1], min(length, 1 << 20))
        while left:
            moved = os.splice(pipe[0], out, left, offset_dst=place)
            left -= moved
            place += moved
        length -= got


def _splice_then_hash(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202
    """Verify what is in the file already, without a copy: through a mapping of its pages."""
    _splice(sock, out, place, length, pipe, buffer)
    start = place // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(out, place - start + length, prot=mmap.PROT_READ, offset=start) as pages:
        view = memoryview(pages)[place - start :]
        xxhash.xxh3_64_intdigest(view)
        view.release()


def _splice_then_read(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202
    """Verify what is in the file already, by reading it."""
    _splice(sock, out, place, length, pipe, buffer)
    digest = xxhash.xxh3_64()
    while length:
        got = os.preadv(out, [buffer[: min(length, PIECE_BYTES)]], place)
        digest.update(buffer[:got])
        place += got
        length -= got
    digest.intdigest()


def _receive_write(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202, ARG001
    while length:
        got = sock.recv_into(buffer, min(length, PIECE_BYTES))
        os.pwrite(out, buffer[:got], place)
        place += got
        length -= got


def _receive_hash_write(sock, out, place, length, pipe, buffer):  # noqa: ANN001, ANN202, ARG001
    """All of it into memory, verified, then written."""
    data = buffer[:length]
    digest = xxhash.xxh3_64()
    done = 0
    while done < length:
        end = min(done + PIECE_BYTES, length)
        got = sock.recv_into(data[done:end], 0, socket.MSG_WAITALL)
        digest.update(data[done : done + got])
        done += got
    digest.intdigest()
    os.pwrite(out, data, place)


_SINKS: dict[str, Callable[..., None]] = {
    "discard": _discard,
    "splice": _splice,
    "splice, hash of the mapped file": _splice_then_hash,
    "splice, hash of the file read": _splice_then_read,
    "recv + pwrite": _receive_write,
    "recv, hash, pwrite": _receive_hash_write,
}


# -- ours ------------------------------------------------------------------------------------------


async def ours(member: Member, kind: str, jobs: list[tuple[int, int]], out: int | None) -> None:
    """Fetch everything with a few requests in flight; `out`: and write it, as a store would."""
    peers = Peers(TOKEN, "here")
    pool = ThreadPoolExecutor(2)
    loop = asyncio.get_running_loop()
    left = iter(jobs)

    async def take() -> None:
        for number, length in left:
            row, chunk = (0, number) if kind == "big" else (number, 0)
            found = await peers.fetch(member, kind, row, chunk, length)
            if out is None:
                continue
            if length <= INLINE_BYTES:
                os.pwrite(out, found.data, number * length)
            else:
                await loop.run_in_executor(pool, os.pwrite, out, found.data, number * length)

    await asyncio.gather(*(take() for _ in range(AT_A_TIME[kind])))
    await peers.close()
    pool.shutdown()


# -- measuring -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """One run of one way."""

    seconds: float
    cpu_seconds: float


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(server: int, call: Callable[[], object]) -> Taken:
    def cpu() -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime + cpu_of(server)

    before, start = cpu(), time.monotonic()
    call()
    return Taken(time.monotonic() - start, cpu() - before)


@contextlib.contextmanager
def serving(data: Data) -> Iterator[tuple[int, dict[str, Any]]]:
    command = [sys.executable, "-m", "benchmarks.peers", "--serve", str(data.directory)]
    command += [str(data.big_chunks), str(data.small_files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


def measure(data: Data, rounds: int) -> dict[tuple[str, str], list[Taken]]:
    """All ways in turn, `rounds` times."""
    taken: dict[tuple[str, str], list[Taken]] = {}
    out = os.open(data.directory / "out", os.O_RDWR | os.O_CREAT)
    os.ftruncate(out, data.big_chunks * CHUNK_BYTES)
    with serving(data) as (pid, ports):
        member = Member("there", ports["peers"])
        for _ in range(rounds):
            for kind in ("big", "small"):
                jobs = data.jobs(kind)
                ways: dict[str, Callable[[], Any]] = {
                    sink: lambda jobs=jobs, sink=sink: raw(ports["raw"], jobs, sink, out)
                    for sink in _SINKS
                }
                for name, target in (
                    ("cacheop: verified", None),
                    ("cacheop: verified, written", out),
                ):
                    ways[name] = lambda k=kind, j=jobs, t=target: asyncio.run(ours(member, k, j, t))
                for name, call in ways.items():
                    taken.setdefault((kind, name), []).append(timed(pid, call))
    os.close(out)
    return taken


GOALS = {"big": ("GB/s", 0.7), "small": ("requests/s", 0.5)}


def rows(data: Data, taken: dict[tuple[str, str], list[Taken]]) -> list[Row]:
    """Rates against the raw loop that throws away what it gets."""
    found = []
    for (kind, name), runs in taken.items():
        jobs = data.jobs(kind)
        size = sum(length for _, length in jobs)
        amount = size / 1e9 if kind == "big" else len(jobs)
        unit, goal = GOALS[kind]
        rates = [amount / run.seconds for run in runs]
        limit = statistics.median(amount / run.seconds for run in taken[kind, "discard"])
        cpu = statistics.median(run.cpu_seconds for run in runs) / (size / 1e9)
        value = statistics.median(rates)
        is_ours = name == "cacheop: verified"
        found.append(
            Row(
                f"{kind}: {name} (CPU {cpu:.2f} s/GB)", value, unit, limit, value / limit,
                f">= {goal:g} x baseline" if is_ours else "",
                value / limit >= goal if is_ours else None,
                f"{min(rates):.3g} to {max(rates):.3g}",
            )
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        directory, chunks, files = options.serve
        serve(Data(Path(directory), int(chunks), int(files)))
        return
    directory = Path(tempfile.mkdtemp(prefix="cacheop-peers-", dir=options.directory))
    try:
        data = Data(directory, 16 if options.quick else 128, 500 if options.quick else 5000)
        data.make()
        found = rows(data, measure(data, 2 if options.quick else options.rounds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    write("peers", found)
    show("one node from another, loopback", found)


if __name__ == "__main__":
    main()

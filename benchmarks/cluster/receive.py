"""A peer that takes chunks of a real worker and throws them away: no checksum, no file.

PLAN is one line of JSON on standard input: {"address", "token" (file), "node", "version", "chunks":
[[row, chunk, length]…], "connections"}. Prints {"seconds", "bytes", "cpu_seconds"} as JSON.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_worker.peers.messages import PROTOCOL
from cache_worker.peers.stream import Stream, split_address
from cacheop.api import wire
from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.tokens import peer_token, proof

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 60.0
BATCH_CHUNKS = 64


def connect(plan: dict[str, Any]) -> Stream:
    """Connected, and known to the worker."""
    stream = Stream(socket.create_connection(split_address(plan["address"]), 10), WAIT_SECONDS)
    nonce = stream.head(WAIT_SECONDS).meta["nonce"]
    token = peer_token(Path(plan["token"]).read_text().strip())
    auth = {
        "op": "auth",
        "purpose": "peer",
        "mac": proof(token, "peer", nonce),
        "nonce": secrets.token_hex(16),
        "node": plan["node"],
        "zone": "",
        "protocol": PROTOCOL,
    }
    stream.send_frame(wire.Frame(wire.REQUEST, 0, auth))
    head = stream.head(WAIT_SECONDS)
    if head.kind != wire.RESPONSE:
        raise PermissionError(str(head.meta))
    return stream


def batches(chunks: list[list[int]]) -> Iterator[list[list[int]]]:
    """As a worker asks: as many as make up a chunk of the largest size."""
    batch: list[list[int]] = []
    for chunk in chunks:
        full = len(batch) == BATCH_CHUNKS
        if batch and (full or sum(c[2] for c in batch) + chunk[2] > CHUNK_BYTES):
            yield batch
            batch = []
        batch.append(chunk)
    if batch:
        yield batch


def take(stream: Stream, version: str, work: Iterator[list[list[int]]], taken: list[int]) -> None:
    """One connection's part."""
    scratch = memoryview(bytearray(CHUNK_BYTES))
    for number, batch in enumerate(work):
        ask = {
            "op": "get",
            "version": version,
            "chunks": batch,
            "only_if_present": True,
            "hops": 1,
        }
        stream.send_frame(wire.Frame(wire.REQUEST, number, ask))
        left = len(batch)
        while left:
            head = stream.head(WAIT_SECONDS)
            if head.kind == wire.ERROR:
                sys.exit(f"the worker answers {head.meta}")
            stream.receive(scratch[: head.payload_bytes])
            taken.append(head.payload_bytes)
            left -= head.kind == wire.RESPONSE


def main() -> None:
    """Take everything, by all connections together."""
    plan = json.loads(sys.stdin.readline())
    work, lock = batches(plan["chunks"]), threading.Lock()
    taken: list[int] = []

    def shared() -> Iterator[list[list[int]]]:
        while True:
            with lock:
                batch = next(work, None)
            if batch is None:
                return
            yield batch

    streams = [connect(plan) for _ in range(plan["connections"])]
    threads = [
        threading.Thread(target=take, args=(stream, plan["version"], shared(), taken))
        for stream in streams
    ]
    began, cpu = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    cpu = time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "bytes": sum(taken), "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()

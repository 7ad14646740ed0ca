"""A worker that fills from memory: real socket, real store.

It behaves as `<root>/fake.json` says, read again at each request: {"delay_seconds": s,
"bind_seconds": s (publish, too), "complete": bool (what publish may say when all is there),
"errors": {path: error class}, "no_room": [paths], "forget": [paths], "deaf": bool}, and appends
each request to `<root>/fake.log`. "forget" evicts the chunk again before it is answered, "deaf"
does so even when the bytes were asked for in the answer.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from cacheop.api import errors, names, wire
from cacheop.api.chunk import chunk_count, chunks_of_span
from cacheop.api.quantity import parse_duration
from cacheop.api.table import PRESENT, STATE_MASK
from tests.fakes.stored_version import StoreFiles, content


class FakeWorker:
    def __init__(self, root: Path, config: Path | None = None) -> None:
        self.root = root
        spec = json.loads(config.read_text())["dataset"]["spec"] if config else {}
        self.mode = spec.get("mount", {}).get("mode", "Auto")
        self.grace_seconds = parse_duration(spec.get("mount", {}).get("grace", "10m"))
        self.store: StoreFiles | None = None
        self.lock = threading.Lock()  # of the store and the log
        self.log = (root / "fake.log").open("a")

    def script(self) -> dict[str, Any]:
        try:
            return json.loads((self.root / "fake.json").read_text())
        except (OSError, ValueError):
            return {}

    def serve(self) -> None:
        os.chdir(self.root)  # socket addresses are short, test directories are not
        Path(names.WORKER_SOCKET).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(names.WORKER_SOCKET)
            listener.listen(64)
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        decoder, sending = wire.Decoder(), threading.Lock()
        while data := connection.recv(1 << 20):
            for frame in decoder.feed(data):
                threading.Thread(
                    target=self.answer, args=(connection, sending, frame), daemon=True
                ).start()

    def answer(self, connection: socket.socket, sending: threading.Lock, frame: wire.Frame) -> None:
        try:
            meta, payload = getattr(self, f"op_{frame.meta['op']}")(frame.meta)
            reply = wire.Frame(wire.RESPONSE, frame.request_id, meta, payload)
        except errors.CacheopError as error:
            reply = wire.Frame(wire.ERROR, frame.request_id, errors.to_wire(error))
        with sending:
            connection.sendall(wire.encode(reply))

    def op_bind(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        time.sleep(self.script().get("bind_seconds", 0))
        with self.lock:
            found = sorted((self.root / names.MANIFEST_DIR).glob("*.index"))
            if not found:
                raise errors.WorkerUnavailable("no version yet")
            version = meta["version"] or found[0].stem
            if self.store is None:
                self.store = StoreFiles(self.root, version)
            self.log.write(f"bind {meta['version']}\n")
            self.log.flush()
        return {"version": version}, b""

    def op_publish(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        version = self.op_bind(meta)[0]["version"]
        store = self.store
        assert store is not None
        rows = range(store.index.rows)
        total_bytes = sum(store.index.size(row) for row in rows)
        cached_bytes = sum(self._cached_bytes(row) for row in rows)
        complete = cached_bytes == total_bytes and bool(self.script().get("complete"))
        return {
            "version": version,
            "rows": len(rows),
            "bytes": total_bytes,
            "complete": complete,
            "cached_percentage": 100.0 * cached_bytes / total_bytes if total_bytes else 100.0,
            "mode": self.mode,
            "grace_seconds": self.grace_seconds,
            "data": names.data_path(version),
        }, b""

    def _cached_bytes(self, row: int) -> int:
        store = self.store
        assert store is not None
        size, first = store.index.size(row), store.slots.first_slot(row)
        states = store.state[first : first + chunk_count(size)]
        present = sum(state & STATE_MASK == PRESENT for state in states)
        return size if present == len(states) else present * (8 << 20)

    def op_served(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self.lock:
            self.log.write(f"served {meta['id']} {json.dumps(meta['requests'])}\n")
            self.log.flush()
        return {}, b""

    def op_read(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        store, script = self.store, self.script()
        assert store is not None
        row, offset, length = meta["row"], meta["offset"], meta["length"]
        path, size = store.index.path(row), store.index.size(row)
        with self.lock:
            self.log.write(f"read {path} {offset} {length}\n")
            self.log.flush()
        time.sleep(script.get("delay_seconds", 0))
        if path in script.get("errors", {}):
            name = script["errors"][path]
            raise errors.from_wire({"error": name, "message": f"{path}: as the test wants"})
        if path in script.get("no_room", []) or (meta.get("inline") and not script.get("deaf")):
            return {"present": False}, content(path, offset, max(0, min(length, size - offset)))
        with self.lock:
            for chunk in chunks_of_span(size, offset, length):
                store.fill(row, chunk)
                if path in script.get("forget", []):
                    store.drop(row, chunk)
        return {"present": True}, b""

    def op_evict(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        store = self.store
        if store is None:
            return {}, b""
        with self.lock:
            for path in meta["paths"]:
                row = store.index.resolve(path)
                assert row is not None
                for chunk in range(chunk_count(store.index.size(row))):
                    if store.state[store.slots.first_slot(row) + chunk] & STATE_MASK == PRESENT:
                        store.drop(row, chunk)
        return {}, b""

    def op_touched(self, meta: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        store = self.store
        assert store is not None
        with self.lock:
            for row, times in meta["rows"].items():
                self.log.write(f"touched {store.index.path(int(row))} {times}\n")
            self.log.flush()
        return {}, b""

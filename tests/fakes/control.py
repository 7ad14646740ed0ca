"""A worker's control socket without a worker: `python -m tests.fakes.control CONFIG`.

Speaks docs/protocol.md on <root>/worker.sock from a thread per connection, plays the supervisor too
(its command line names CONFIG), and ends on `shutdown` or SIGTERM. CONFIG's "fake" changes answers:
{"status": {...}} adds fields, {"fail": {op: [NAME, message, hint]}}, {"failed": [...]} of a load,
{"stall": true} keeps a load going until its connection closes, which goes to <root>/cancelled,
{"dies": OP} kills it in the midst of OP (with "returns" it comes back, as by its supervisor, and
lives), {"left": N} makes a drain late, {"hot": [...]}.

CONFIG's "others" are the roots of the nodes of one cluster, this one too: who of them answers is a
live member, and a shared load is divided among those.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from cacheop.api import names, wire

VERSION = "00112233aabbccdd"
GONE_SECONDS = 3.0


class FakeWorker:
    def __init__(self, config: dict) -> None:
        self.root = Path(config["root"])
        self.config, self.fake = config, config.get("fake", {})
        self.suspended = self.draining = False
        self.started = time.monotonic()
        self.heard: dict[str, float] = {}

    def serve(self) -> None:
        path = self.root / names.WORKER_SOCKET
        path.unlink(missing_ok=True)
        directory = os.open(self.root, os.O_PATH)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{directory}/{names.WORKER_SOCKET}")
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        decoder = wire.Decoder()
        while data := connection.recv(1 << 16):
            for frame in decoder.feed(data):
                self.answer(connection, frame)

    def answer(self, connection: socket.socket, frame: wire.Frame) -> None:
        op = frame.meta["op"]
        if op in self.fake.get("fail", {}):
            name, message, hint = self.fake["fail"][op]
            meta = {"error": name, "message": message, "hint": hint}
            connection.sendall(wire.encode(wire.Frame(wire.ERROR, frame.request_id, meta)))
            return
        if op not in {"hello", "status", "hot"}:
            self.note(frame.meta)
        meta = getattr(self, op)(connection, frame)
        connection.sendall(wire.encode(wire.Frame(wire.RESPONSE, frame.request_id, meta)))
        if op == "shutdown":
            os._exit(0)

    def note(self, meta: dict) -> None:
        with (self.root / "asked").open("a") as file:
            file.write(json.dumps(meta) + "\n")

    def event(self, connection: socket.socket, frame: wire.Frame, meta: dict) -> None:
        connection.sendall(wire.encode(wire.Frame(wire.EVENT, frame.request_id, meta)))

    def hello(self, connection: socket.socket, frame: wire.Frame) -> dict:
        return {"dataset": self.config["name"], "pid": os.getpid()}

    def shutdown(self, connection: socket.socket, frame: wire.Frame) -> dict:
        return {}

    def live(self) -> list[str]:
        """The roots of the members that answer, or did a moment ago."""
        for root in self.config.get("others", [str(self.root)]):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                directory = os.open(root, os.O_PATH)
                try:
                    line.connect(f"/proc/self/fd/{directory}/{names.WORKER_SOCKET}")
                    self.heard[root] = time.monotonic()
                except OSError:
                    pass
                finally:
                    os.close(directory)
        now, others = time.monotonic(), self.config.get("others", [str(self.root)])
        return [root for root in others if now - self.heard.get(root, -9) < GONE_SECONDS]

    def cluster(self) -> dict:
        """What a status says of the cluster."""
        if "others" not in self.config:
            return {}
        live = self.live()
        seconds = time.monotonic() - self.started
        return {
            "zone": "zone-0",
            "draining": self.draining,
            "members": [
                {
                    "node": f"node-{k}",
                    "zone": "zone-0",
                    "live": root in live,
                    "draining": False,
                    "version": VERSION,
                }
                for k, root in enumerate(self.config["others"])
            ],
            # A counter that grows by 1000, 200 and 0 bytes a second.
            "read_sources": {"local": 1000 * seconds, "peer": 200 * seconds, "origin": 0},
            "peer": {"in_bytes": 70, "out_bytes": 80, "hedged_origin_bytes": 9, "bans": 1},
        }

    def die(self, op: str) -> None:
        if self.fake.get("dies") != op:
            return
        if not self.fake.get("returns"):
            os._exit(1)
        if "again" not in sys.argv:
            command = [sys.executable, "-m", "tests.fakes.control", sys.argv[1], "again"]
            os.execv(sys.executable, command)

    def hot(self, connection: socket.socket, frame: wire.Frame) -> dict:
        return {"files": self.fake.get("hot", [])[: frame.meta["count"]]}

    def drain(self, connection: socket.socket, frame: wire.Frame) -> dict:
        whole = {"chunks_total": 4, "bytes_total": 400}
        self.draining = True
        self.event(connection, frame, {"chunks": 2, "bytes": 200} | whole)
        self.die("drain")
        left = self.fake.get("left", 0)
        self.event(connection, frame, {"chunks": 4 - left, "bytes": 400 - 100 * left} | whole)
        return {"phase": "Late" if left else "Drained", "left": left}

    def bind(self, connection: socket.socket, frame: wire.Frame) -> dict:
        version = frame.meta.get("version") or self.fake["version"]
        return {
            "version": version,
            "index": names.index_path(version),
            "slots": names.slots_path(version),
            "table": names.CHUNK_TABLE,
            "data": names.data_path(version),
        }

    def status(self, connection: socket.socket, frame: wire.Frame) -> dict:
        return {
            "namespace": self.config["namespace"],
            "dataset": self.config["name"],
            "node": self.config["node"],
            "pid": os.getpid(),
            "phase": "Ready",
            "version": VERSION,
            "file_count": 4,
            "bytes_total": 1000,
            "cached_bytes": 500,
            "cached_percentage": 50.0,
            "quota_bytes": 10_000,
            "suspended": self.suspended,
            "hit_ratio": 0.5,
            "origin_bytes": 500,
            "origin_ratio": 0.5,
            "origin_requests": 3,
            "read_bytes": 1000,
            "indexing": None,
            "skipped": {},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}],
            "addresses": {"http": "127.0.0.1:1", "tcp": ""},
            "mounts": [],
            "root": str(self.root),
            "error": None,
            **self.cluster(),
        } | self.fake.get("status", {})

    def refresh(self, connection: socket.socket, frame: wire.Frame) -> dict:
        self.event(connection, frame, {"keys": 2, "seconds": 0.1})
        skipped = {"a part over 255 bytes": {"count": 1, "examples": ["x" * 300]}}
        return {"version": VERSION, "changed": True, "files": 4, "bytes": 1000, "skipped": skipped}

    def load(self, connection: socket.socket, frame: wire.Frame) -> dict:
        live = self.live()
        # Of 1000 bytes in 4 files; the last node's share has what does not divide.
        parts = len(live) if frame.meta.get("share") and frame.meta["replicas"] != "all" else 1
        last = live[-1] == str(self.root)
        total = 1000 // parts + (1000 % parts if last else 0)
        files = 4 // parts + (4 % parts if last else 0)
        report = {
            "phase": "Loading",
            "bytes": total // 4,
            "bytes_total": total,
            "files": files // 4,
            "files_total": files,
            "failed": [],
            "failed_files": 0,
            "rate_bytes_per_second": 100.0,
            "eta_seconds": 7.5,
        }
        try:
            self.event(connection, frame, report)
            self.die("load")
            while self.fake.get("stall") and connection.recv(1 << 16):
                time.sleep(0.01)
        except OSError:
            pass  # who asked is gone already
        if self.fake.get("stall"):
            (self.root / "cancelled").touch()
        failed = self.fake.get("failed", [])
        done = {"phase": "Failed" if failed else "Complete", "bytes": total, "files": files}
        return report | done | {"failed": failed, "failed_files": len(failed), "eta_seconds": 0}

    def evict(self, connection: socket.socket, frame: wire.Frame) -> dict:
        pinned = "pinned" in frame.meta["paths"]
        why = "mounted in mode Native"
        return {"bytes": 500, "files": 2, "pinned_files": 3 * pinned, "why": why * pinned}

    def suspend(self, connection: socket.socket, frame: wire.Frame) -> dict:
        self.suspended = True
        return {}

    def resume(self, connection: socket.socket, frame: wire.Frame) -> dict:
        self.suspended = False
        return {}

    def versions(self, connection: socket.socket, frame: wire.Frame) -> dict:
        version = {
            "version": VERSION,
            "files": 4,
            "bytes": 1000,
            "cached_bytes": 500,
            "created": 1_700_000_000.0,
            "current": True,
            "in_use": False,
        }
        return {"versions": [version]}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    FakeWorker(json.loads(Path(sys.argv[1]).read_text())).serve()

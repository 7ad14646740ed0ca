"""Workers' control ports without workers: the real server with scripted answers, in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from cache_worker.control import Server
from cacheop.api.tokens import client_token

if TYPE_CHECKING:
    from typing import Self

    from cacheop.api.errors import CacheopError

VERSION = "0123456789abcdef"
HOLDS = {"Ready": "Ready", "Indexed": "Indexed", "OriginReachable": "Answers", "Healthy": "Stores"}


class ScriptedWorker:
    """Answers `status` with `status`, and remembers what else it is asked."""

    def __init__(self, node: str, **status: Any) -> None:
        self.status: dict[str, Any] = {
            "node": node,
            "phase": "Ready",
            "version": VERSION,
            "file_count": 10,
            "bytes_total": 1000,
            "cached_bytes": 250,
            "suspended": False,
            "conditions": [
                {"type": kind, "status": "True", "reason": reason, "message": ""}
                for kind, reason in HOLDS.items()
            ],
            **status,
        }
        self.asked: list[dict[str, Any]] = []
        self.refuse: dict[str, CacheopError] = {}
        self.loads: list[dict[str, Any]] = []
        """Reports of a load: events, then the answer."""
        self.pause_seconds = 0.0

    async def run(self, session: Any, request: Any) -> tuple[dict[str, Any], bytes]:
        """See cache_worker.control.Operations."""
        op = request.meta["op"]
        if op != "status":
            self.asked.append(dict(request.meta))
        if op in self.refuse:
            raise self.refuse[op]
        if op == "status":
            return self.status, b""
        if op in ("suspend", "resume"):
            self.status["suspended"] = op == "suspend"
        if op == "drain":
            self.status["draining"] = True
            return {"phase": "Drained", "left": 0}, b""
        if op == "load":
            for told in self.loads[:-1]:
                await session.send_event(request.request_id, told)
                await asyncio.sleep(self.pause_seconds)
            return self.loads[-1], b""
        return {}, b""

    def ops(self) -> list[str]:
        """What it was asked, in order."""
        return [meta["op"] for meta in self.asked]


class ControlPorts:
    """`with ControlPorts() as ports: ports.open(worker, "127.77.0.1", token)`."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._servers: list[Server] = []
        return self

    def open(self, worker: ScriptedWorker, host: str, token: str, port: int = 0) -> int:
        """Serve `worker` to who knows `token`; the port."""

        async def listen() -> str:
            server = Server(worker)
            self._servers.append(server)
            return await server.listen_tcp(
                host, port, {"client": client_token(token), "control": token}
            )

        address = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)
        return int(address.rpartition(":")[2])

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            for server in self._servers:
                await server.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

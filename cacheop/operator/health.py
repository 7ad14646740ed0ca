"""/healthz and /metrics of the operator."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacheop.operator.api import Api
    from cacheop.operator.lease import Lease

REQUEST_SECONDS = 5.0


async def serve(port: int, api: Api, lease: Lease) -> asyncio.Server:
    """Listen on all addresses; healthy means that the loop runs."""

    def metrics() -> str:
        lines = [
            "# HELP cacheop_operator_active Whether this one acts.",
            "# TYPE cacheop_operator_active gauge",
            f"cacheop_operator_active {int(lease.acting.is_set())}",
            "# HELP cacheop_operator_api_calls_total Requests to the API server.",
            "# TYPE cacheop_operator_api_calls_total counter",
        ]
        for key, count in sorted(api.calls.items()):
            verb, _, resource = key.partition(" ")
            labels = f'{{verb="{verb}",resource="{resource}"}}'
            lines.append(f"cacheop_operator_api_calls_total{labels} {count}")
        return "\n".join(lines) + "\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].split(b"?")[0]
            found = {b"/healthz": lambda: "ok\n", b"/metrics": metrics}.get(path)
            body = found().encode() if found else b"/metrics or /healthz\n"
            status = "200 OK" if found else "404 Not Found"
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, IndexError):
            pass  # not a request we know
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(answer, None, port)

"""A slow link in front of the S3 server, as a context manager: owns the proxy's process."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from examples.demo.proxy import (
    CONTROL_PATH,
    DEFAULT_BITS_PER_SECOND,
    DEFAULT_DELAY_SECONDS,
    HOST,
)

if TYPE_CHECKING:
    from types import TracebackType

STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed the link so far: requests, and bytes of answers' bodies."""

    requests: int
    bytes: int


class SlowLink:
    """`endpoint` is the S3 service behind `delay_seconds` a request and a shared bandwidth."""

    def __init__(
        self,
        upstream_port: int,
        *,
        port: int = 0,
        delay_seconds: float = DEFAULT_DELAY_SECONDS,
        bits_per_second: float = DEFAULT_BITS_PER_SECOND,
    ) -> None:
        self.port = port
        self._arguments = (upstream_port, delay_seconds, bits_per_second)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL of the S3 service through the link."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the proxy and learn its port. Raises RuntimeError when the port is taken."""
        command = [sys.executable, "-m", "examples.demo.proxy", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *map(str, self._arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # ^C at a terminal is ours; it ends when its stdin does
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the proxy did not start on port {self.port}: see its error above")
        self.port = int(line)

    def stop(self) -> None:
        """End the proxy; nothing happens when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def traffic(self) -> Traffic:
        """What passed so far."""
        state = self._control("GET", "")
        return Traffic(requests=int(state["requests"]), bytes=int(state["bytes"]))

    def set(self, *, delay_seconds: float, bits_per_second: float) -> None:
        """Change the link while it runs; 0 bits per second takes the cap away."""
        self._control("PUT", f"?delay_seconds={delay_seconds}&bits_per_second={bits_per_second}")

    def _control(self, method: str, query: str) -> dict[str, float]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=STOP_SECONDS)
        try:
            connection.request(method, CONTROL_PATH.decode() + query)
            answer: dict[str, float] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

"""Who holds the mounts of each Dataset on this node: a holder's loop in a thread of its own.

So a Dataset whose disk hangs stops no other. The code is the local holder's; what CSI asks goes to
the loop as commands do, over a socket pair instead of holder.sock, which the worker could replace.
"""

from __future__ import annotations

import os
import threading
import time
import traceback

from cache_worker.holder import messages
from cache_worker.holder.publishing import Place
from cache_worker.holder.server import Server
from cacheop.api.errors import ProtocolError, WorkerUnavailable, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.csi.directories import Directory

RETRY_SECONDS = 1.0
START_SECONDS = 15.0
ANSWER_SECONDS = 10.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.02


class HeldPlace:
    """The cache directory of one Dataset and the thread that holds its mounts."""

    def __init__(self, directory: Directory, log: Callable[[str], None]) -> None:
        """Raises OSError when the directory cannot be opened."""
        self.directory = directory
        self.place = Place(directory.path)
        self.sharing = threading.Lock()
        """Held while a mount that pods share is made, bound into one, or looked at as the last."""
        self.share_bytes = 0
        """What its worker was told that it may keep."""
        self._log = log
        self._server: Server | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, message: dict[str, object], seconds: float = ANSWER_SECONDS) -> dict[str, object]:
        """What the loop answers. Raises the error it answers with, or WorkerUnavailable."""
        server = self._wait()
        with server.connect() as line:
            line.settimeout(max(0.1, seconds))
            try:
                messages.send(line, message)
                received = messages.receive(line)
            except ProtocolError:
                raise
            except OSError as error:
                raise WorkerUnavailable(
                    "the holder of the mounts did not answer in time"
                ) from error
        if received is None:
            raise WorkerUnavailable("the holder of the mounts is being started again")
        answer, fds = received
        messages.close_all(fds)
        refused = answer.get("error")
        if isinstance(refused, dict):
            raise from_wire(refused)
        return answer

    def mounts(self) -> list[dict[str, object]]:
        """What it holds: records.Mount as JSON, with who has the fds."""
        found = self.ask({"op": "report"})["mounts"]
        assert isinstance(found, list), "as Commands answers"
        return found

    def has_all(self) -> bool:
        """Whether every mount is held again, by it and its supervisor."""
        return all(mount["held"] and mount["supervisor"] for mount in self.mounts())

    def is_there(self) -> bool:
        """Whether the directory is still the one that was opened."""
        try:
            return os.path.samestat(os.fstat(self.place.fd), os.lstat(self.place.path))
        except OSError:
            return False

    def close(self) -> None:
        """End the thread; mounts stay."""
        self._ending = True
        if self._server is not None:
            self._server.stop()
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self.place.close()

    def _wait(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while (server := self._server) is None:
            if time.monotonic() > deadline:
                raise WorkerUnavailable("the holder of the mounts does not start")
            time.sleep(POLL_SECONDS)
        return server

    def _run(self) -> None:
        while not self._ending:
            try:
                self._server = server = Server(self.place, [], self._report)
                try:
                    server.serve()
                finally:
                    self._server = None
                    server.close()
            except OSError as error:
                self._report(f"cannot hold mounts just now: {error}")
            except Exception:  # noqa: BLE001 - one Dataset's trouble is not the others'
                self._report(traceback.format_exc())
            if not self._ending:
                time.sleep(RETRY_SECONDS)

    def _report(self, line: str) -> None:
        self._log(f"{self.directory.namespace}/{self.directory.name}: {line}")


class Places:
    """All of them, by directory. Any thread may call."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._held: dict[str, HeldPlace] = {}

    def hold(self, directory: Directory) -> HeldPlace:
        """Who holds the mounts of `directory`, from now on. Raises OSError."""
        with self._lock:
            found = self._held.get(directory.path)
            if found is not None and not found.is_there():
                found.close()
                found = None
            if found is None:
                found = self._held[directory.path] = HeldPlace(directory, self._log)
            return found

    def all(self) -> list[HeldPlace]:
        """Every one."""
        with self._lock:
            return list(self._held.values())

    def forget(self, held: HeldPlace) -> None:
        """Its directory goes."""
        with self._lock:
            self._held.pop(held.directory.path, None)
        held.close()

    def close(self) -> None:
        """End all threads; mounts stay."""
        for held in self.all():
            self.forget(held)

"""Loads that `waitFor` started: one a Dataset and version, in a thread that waits for it."""

from __future__ import annotations

import threading
import time

from cache_worker.holder import worker_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_worker.csi.places import HeldPlace

SILENCE_SECONDS = 7 * 24 * 3600.0  # a load takes what it takes; the worker's end ends it
AGAIN_SECONDS = 10.0


class Loading:
    """One load. Written by its thread, read by others."""

    def __init__(self, held: HeldPlace, version: str) -> None:
        self.percentage = 0.0
        self.failure = ""
        """Why it is not whole, once it ended."""
        self.has_ended = False
        self.ended = 0.0
        self._held, self._version = held, version
        threading.Thread(target=self._run, daemon=True).start()

    def is_to_be_tried_again(self) -> bool:
        """Whether it failed, and some time ago."""
        if not self.has_ended or not self.failure:
            return False
        return time.monotonic() - self.ended > AGAIN_SECONDS

    def _run(self) -> None:
        request: dict[str, object] = {"op": "load", "version": self._version}
        deadline = time.monotonic() + SILENCE_SECONDS
        try:
            answer = worker_line.ask(self._held.place.fd, request, deadline, told=self._take)
            self._take(answer)
            failed = answer.get("failed")
            if answer.get("phase") != "Complete":
                first = failed[0] if isinstance(failed, list) and failed else {}
                self.failure = f"{answer.get('failed_files')} files are lacking: {first}"
        except OSError as error:
            self.failure = str(error)
        self.ended = time.monotonic()
        self.has_ended = True

    def _take(self, report: dict[str, object]) -> None:
        done, total = report.get("bytes"), report.get("bytes_total")
        if isinstance(done, int) and isinstance(total, int):
            self.percentage = 100.0 * done / total if total else 100.0


class Loads:
    """Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: dict[tuple[str, str], Loading] = {}

    def of(self, held: HeldPlace, version: str) -> Loading:
        """The load of that version; begun again some seconds after one that failed."""
        key = held.directory.path, version
        with self._lock:
            found = self._loads.get(key)
            if found is None or found.is_to_be_tried_again():
                found = self._loads[key] = Loading(held, version)
            return found

    def forget(self, held: HeldPlace, version: str) -> None:
        """It was published, or is not wanted."""
        with self._lock:
            self._loads.pop((held.directory.path, version), None)

"""What went between us and the peers, counted by threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """One direction: what we got (client), or what we gave (server). Since the worker started."""

    same_zone_bytes: int = 0
    other_zone_bytes: int = 0
    """Payload only, whether it was good or not."""
    results: dict[str, int] = field(default_factory=dict)
    """Chunks and questions, by how they ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def moved(self, count: int, *, same_zone: bool) -> None:
        """So many bytes of payload went over the wire."""
        with self._lock:
            if same_zone:
                self.same_zone_bytes += count
            else:
                self.other_zone_bytes += count

    def ended(self, result: str) -> None:
        """One more ended like that."""
        with self._lock:
            self.results[result] = self.results.get(result, 0) + 1

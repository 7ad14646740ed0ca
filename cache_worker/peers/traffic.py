"""What went between us and the peers, counted by threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """One direction: what we got (client), or what we gave (server). Since the worker started."""

    same_zone_bytes: int = 0
    other_zone_bytes: int = 0
    """Bytes of chunks only (manifests are not counted), whether they were good or not."""
    by_node: dict[str, int] = field(default_factory=dict)
    """What we got, by node that sent it: one that sends much is not slow, whatever it was."""
    results: dict[str, int] = field(default_factory=dict)
    """Chunks and questions, by how they ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def moved(self, count: int, *, same_zone: bool, node: str = "") -> None:
        """So many bytes of chunks went over the wire; `node`: who sent them to us."""
        with self._lock:
            if node:
                self.by_node[node] = self.by_node.get(node, 0) + count
            if same_zone:
                self.same_zone_bytes += count
            else:
                self.other_zone_bytes += count

    def ended(self, result: str) -> None:
        """One more ended like that."""
        with self._lock:
            self.results[result] = self.results.get(result, 0) + 1

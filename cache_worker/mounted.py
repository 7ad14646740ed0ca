"""What this node has mounted: the holder's records, and what the mount processes count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api import names
from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNSEEN_MODES = frozenset({"ZeroOpen", "Native"})
"""The kernel answers reads there alone, and nobody can count them."""
RECORD_BYTES_MAX = 65536
_FIELDS = ("id", "target", "mode", "why", "version")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount."""

    id: str
    target: str
    mode: str
    why: str
    version: str


class Mounts:
    """All mounts of this Dataset on this node."""

    def __init__(self, root: Path) -> None:
        self._directory = root / names.MOUNTS_DIR
        self._requests: dict[str, dict[str, int]] = {}

    def served(self, mount_id: str, requests: Mapping[str, Any]) -> None:
        """A mount process tells the requests of its mount since that began, by operation."""
        counts = {str(op): int(number) for op, number in requests.items()}
        if mount_id not in {mount.id for mount in self.records()}:
            raise ProtocolError(f"no mount {mount_id!r} is known here")
        self._requests[mount_id] = counts

    def requests(self, mount_id: str) -> dict[str, int]:
        """As told last; empty when nobody told."""
        return self._requests.get(mount_id, {})

    def records(self) -> list[Mounted]:
        """The holder's records. One that is not whole is passed over: it is being replaced."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                with path.open("rb") as file:
                    raw = json.loads(file.read(RECORD_BYTES_MAX))
                mount = Mounted(**{field: raw[field] for field in _FIELDS})
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
            if all(isinstance(getattr(mount, field), str) for field in _FIELDS):
                found.append(mount)
        known = {mount.id for mount in found}
        self._requests = {key: value for key, value in self._requests.items() if key in known}
        return found

    def status(self) -> list[dict[str, Any]]:
        """As docs/protocol.md has it."""
        return [
            {
                **{field: getattr(mount, field) for field in _FIELDS},
                "requests": self.requests(mount.id),
            }
            for mount in self.records()
        ]

    def are_unseen(self) -> bool:
        """Whether there are mounts, and no reader of any of them can be counted."""
        modes = {mount.mode for mount in self.records()}
        return bool(modes) and modes <= UNSEEN_MODES

"""What peers say to each other, and the checks on what they said. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.chunk import CHUNK_BYTES
from cacheop.api.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = 1
"""Of the peers' messages; wire.VERSION is that of the frames."""
BATCH_CHUNKS = 64
BATCH_BYTES = CHUNK_BYTES
"""The most that one `get` may ask for."""
AUTH_META_BYTES = 4096
"""The most we read from somebody who has not shown yet that it knows the token."""
_CHECKSUM = re.compile(r"[0-9a-f]{16}")
_NAME_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chunk as peers name it: the index of a version is the same on all nodes."""

    row: int
    chunk: int
    length: int


@dataclass(frozen=True, slots=True)
class Get:
    """A batch of chunks of one version."""

    version: str
    wanted: tuple[Wanted, ...]
    only_if_present: bool
    hops: int
    without: tuple[str, ...] = ()
    """Nodes that the asker could not get it from: not to be asked on its behalf."""

    def to_meta(self) -> dict[str, Any]:
        """The meta of the REQUEST."""
        return {
            "op": "get",
            "version": self.version,
            "chunks": [[w.row, w.chunk, w.length] for w in self.wanted],
            "only_if_present": self.only_if_present,
            "hops": self.hops,
            **({"without": list(self.without)} if self.without else {}),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Get:
        """What was asked; ProtocolError if it is not a `get` within the limits."""
        version, chunks = meta.get("version"), meta.get("chunks")
        present, hops = meta.get("only_if_present", False), meta.get("hops", 1)
        if not is_name(version) or not isinstance(present, bool) or not is_count(hops):
            raise ProtocolError("get: version, only_if_present or hops is wrong")
        without = meta.get("without", [])
        if not isinstance(without, list) or not all(map(is_name, without)):
            raise ProtocolError("get: without is not a list of nodes")
        if not isinstance(chunks, list) or not 0 < len(chunks) <= BATCH_CHUNKS:
            raise ProtocolError(f"get: 1 to {BATCH_CHUNKS} chunks may be asked for at once")
        wanted = []
        for item in chunks:
            if not isinstance(item, list) or len(item) != 3 or not all(map(is_count, item)):
                raise ProtocolError("get: a chunk is [row, chunk, length]")
            wanted.append(Wanted(*item))
        if sum(w.length for w in wanted) > BATCH_BYTES:
            raise ProtocolError(f"get: more than {BATCH_BYTES} bytes at once")
        return cls(str(version), tuple(wanted), present, hops, tuple(without))


def is_count(value: object) -> bool:
    """A JSON number >= 0 that fits 63 bits; true and false are none."""
    return type(value) is int and 0 <= value < 1 << 63


def is_name(value: object) -> bool:
    """Text of a sane length."""
    return isinstance(value, str) and len(value) <= _NAME_LENGTH


class Answers:
    """What may still come in answer to a `get`; ProtocolError for anything else.

    Each chunk: pieces (EVENT) that add up to its length, then its checksum (RESPONSE); or an ERROR
    at any point. The chunks come in any order, one after the other.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.open = set(range(len(lengths)))
        """Numbers of the chunks that have no end yet."""
        self._missing = list(lengths)
        self._lengths = lengths
        self._current: int | None = None

    def piece(self, meta: dict[str, Any], payload_bytes: int) -> tuple[int, int]:
        """(number, offset in the chunk) of a piece that follows."""
        number = self._number(meta)
        if not 0 < payload_bytes <= self._missing[number]:
            raise ProtocolError(
                f"a piece of {payload_bytes} bytes where {self._missing[number]} are missing"
            )
        offset = self._lengths[number] - self._missing[number]
        self._missing[number] -= payload_bytes
        self._current = number
        return number, offset

    def end(self, meta: dict[str, Any], payload_bytes: int) -> tuple[int, int]:
        """(number, checksum) of a chunk that is whole."""
        number = self._number(meta)
        checksum = meta.get("checksum")
        if payload_bytes or not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
            raise ProtocolError("a response to get that is not a checksum")
        if self._missing[number]:
            raise ProtocolError(f"{self._missing[number]} bytes of a chunk did not come")
        self._ended(number)
        return number, int(checksum, 16)

    def failed(self, meta: dict[str, Any], payload_bytes: int) -> list[int]:
        """The numbers that an ERROR is for: without `n`, all that are open."""
        if payload_bytes:
            raise ProtocolError("an error with a payload")
        numbers = [self._number(meta)] if "n" in meta else sorted(self.open)
        for number in numbers:
            self._ended(number)
        return numbers

    def _number(self, meta: dict[str, Any]) -> int:
        number = meta.get("n")
        if type(number) is not int or number not in self.open:
            raise ProtocolError("an answer to what was not asked")
        if self._current is not None and number != self._current:
            raise ProtocolError("a chunk begins before the last one ended")
        return number

    def _ended(self, number: int) -> None:
        self.open.discard(number)
        self._current = None

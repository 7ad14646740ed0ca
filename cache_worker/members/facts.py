"""A member as JSON: in Redis, and in the answer to `hello`. Pure.

Newer members may say more than we know: unknown fields are passed over, missing ones are as in
view.Member. What has a wrong type, or is not sane, is refused as a whole.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.view import Member

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_MAX = 300
ENTRY_MAX_BYTES = 8 << 10
INTEGER_MAX = 2**63 - 1
_TYPES: dict[str, type] = {
    field.name: str if field.default is MISSING else type(field.default) for field in fields(Member)
}
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([0-9]{1,5})", re.ASCII)


def is_address(text: str) -> bool:
    """Whether `text` is host:port with a port that one can connect to."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[2]) < 65536


def to_meta(member: Member) -> dict[str, Any]:
    """`member` as the answer to `hello` has it."""
    return {name: getattr(member, name) for name in _TYPES}


def from_meta(meta: Mapping[str, Any]) -> Member:
    """The member that `meta` describes. Raises ValueError that says why it describes none."""
    found = {}
    for name, kind in _TYPES.items():
        if name in meta:
            found[name] = _checked(name, meta[name], kind)
    if not found.get("node"):
        raise ValueError("node is missing")
    return Member(**found)


def to_entry(member: Member, beat_ms: int) -> bytes:
    """The value of `member` in Redis's hash."""
    return json.dumps({**to_meta(member), "beat_ms": beat_ms}, separators=(",", ":")).encode()


def from_entry(node: str, value: bytes) -> tuple[Member, int]:
    """(member, beat_ms) of the hash's field `node`. Raises ValueError."""
    if len(value) > ENTRY_MAX_BYTES:
        raise ValueError(f"{len(value)} bytes are more than {ENTRY_MAX_BYTES}")
    try:
        meta = json.loads(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(meta, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for bad values
    member = from_meta(meta)
    if member.node != node:
        raise ValueError(f"it is of node {member.node!r}")
    if not is_address(member.address):
        raise ValueError(f"address {member.address!r} is not host:port")
    return member, _checked("beat_ms", meta.get("beat_ms"), int)


def _checked(name: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{name} is {_shown(value)}, not of type {kind.__name__}")
    if isinstance(value, str) and not (len(value) <= TEXT_MAX and value.isprintable()):
        raise ValueError(f"{name} is not a short text: {_shown(value)}")
    if type(value) is int and not 0 <= value <= INTEGER_MAX:
        raise ValueError(f"{name} is out of range: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return ascii(value)[:80]

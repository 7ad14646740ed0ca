"""Conditions: what holds, why not and what to do; `lastTransitionTime` kept from before. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MESSAGE_MAX = 1024
_WORDS = {True: "True", False: "False", None: "Unknown"}
_REASON = re.compile(r"[^A-Za-z0-9]")


def condition(kind: str, holds: bool | None, reason: str, message: str = "") -> dict[str, Any]:
    """A condition without its time. `holds` None is Unknown."""
    word = _REASON.sub("", reason)[:64] or "Unknown"
    if not word[0].isalpha():
        word = f"R{word}"[:64]
    return {
        "type": kind,
        "status": _WORDS[holds],
        "reason": word,
        "message": message[:MESSAGE_MAX],
    }


def stamped(
    new: Iterable[dict[str, Any]],
    before: Iterable[Mapping[str, Any]],
    generation: int,
    now: str,
) -> list[dict[str, Any]]:
    """`new` with times: the old one where the status is what it was."""
    known = {c.get("type"): c for c in before}
    found = []
    for item in new:
        old = known.get(item["type"]) or {}
        same = old.get("status") == item["status"]
        since = (old.get("lastTransitionTime") if same else None) or now
        found.append({**item, "lastTransitionTime": since, "observedGeneration": generation})
    return found

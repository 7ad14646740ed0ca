"""Sizes and durations as Kubernetes writes them. Pure.

Sizes: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

from cacheop.api.errors import SpecError

MAX_BYTES = (1 << 63) - 1
MAX_SECONDS = 36500 * 86400.0
TEXT_MAX_LENGTH = 32

_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SCALE = _BINARY | _DECIMAL | {"": 1}

# Both are also the patterns of the CRD, so they use only what RE2 knows.
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{1,2})?$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"

_QUANTITY = re.compile(
    r"([0-9]+)(?:\.([0-9]+))?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{1,2})?", re.ASCII
)
_DURATION = re.compile(DURATION_PATTERN[1:-1], re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|s|m|h|d|w)", re.ASCII)
_LOOSE_SIZE = re.compile(
    r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtpe])(i?)b?\s*", re.ASCII | re.IGNORECASE
)
_MICROSECONDS = {
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 7 * 86400 * 10**6,
}


def parse_quantity(value: object) -> int:
    """Bytes in `500Gi`, `1.5T`, `2e9` or a whole number; a fraction of a byte is rounded up.

    Raises SpecError. The suffixes below one (`100m`) are no sizes: they are nearly always a slip.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_BYTES:
            raise SpecError(f"{_shown(value)} is not a size between 0 and 8Ei")
        return value
    match = _QUANTITY.fullmatch(_short_text(value))
    if match is None:
        raise SpecError(f"{_shown(value)} is not a size such as 500Gi or 1.5T{_size_help(value)}")
    whole, fraction, suffix = match[1], match[2] or "", match[3] or ""
    if suffix in _SCALE:
        scale: int = _SCALE[suffix]
    else:
        scale = pow(10, int(suffix[1:]))
    size_bytes = -(-int(whole + fraction) * scale // pow(10, len(fraction)))
    if size_bytes > MAX_BYTES:
        raise SpecError(f"{_shown(value)} is more than 8Ei")
    return int(size_bytes)


def format_quantity(size_bytes: int) -> str:
    """The shortest exact text for `size_bytes`, so that parse_quantity gives it back."""
    if size_bytes == 0:
        return "0"
    candidates = [str(size_bytes)]
    for suffix, scale in (_BINARY | _DECIMAL).items():
        if size_bytes % scale == 0:
            candidates.append(f"{size_bytes // scale}{suffix}")
    return min(candidates, key=len)


def parse_duration(value: object) -> float:
    """Seconds in `10m`, `1h30m`, `250ms`, `30d`, to the microsecond. Raises SpecError."""
    text = _short_text(value)
    if _DURATION.fullmatch(text) is None:
        digits = text or str(value)
        bare = digits.isascii() and digits.isdigit() and len(digits) < TEXT_MAX_LENGTH
        help_ = f'; for seconds write "{digits}s"' if bare else ""
        raise SpecError(f"{_shown(value)} is not a duration such as 90s, 10m or 30d{help_}")
    microseconds = 0
    for part in _DURATION_PART.finditer(text):
        fraction = part[2] or ""
        microseconds += int(part[1] + fraction) * _MICROSECONDS[part[3]] // pow(10, len(fraction))
    if microseconds > MAX_SECONDS * 10**6:
        raise SpecError(f"{_shown(value)} is more than 100 years")
    return microseconds / 10**6


def format_duration(seconds: float) -> str:
    """An exact text for `seconds` (to the microsecond), so that parse_duration gives it back."""
    microseconds = round(seconds * 10**6)
    for unit in ("d", "h", "m", "s", "ms"):
        if microseconds and microseconds % _MICROSECONDS[unit] == 0:
            return f"{microseconds // _MICROSECONDS[unit]}{unit}"
    whole, rest = divmod(microseconds, 10**6)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") + "s"


def _short_text(value: object) -> str:
    """`value` if it is a text that may be a size or duration, else the empty text."""
    return value if isinstance(value, str) and len(value) <= TEXT_MAX_LENGTH else ""


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else f"{value!r}"
    return text if len(text) <= 40 else text[:37] + "…"


def _size_help(value: object) -> str:
    """What was probably meant: `500GB` -> 500G, `100m` -> 100M."""
    match = _LOOSE_SIZE.fullmatch(_short_text(value))
    if match is None:
        return ""
    letter = match[2].upper()
    suffix = letter + "i" if match[3] else {"K": "k"}.get(letter, letter)
    return f', did you mean "{match[1]}{suffix}"?'

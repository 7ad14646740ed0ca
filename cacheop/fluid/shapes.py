"""Values of a document as the shape they ought to have, or empty: nobody validated it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_map(value: Any) -> Mapping[str, Any]:
    """A map with text for names."""
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """A list."""
    return value if isinstance(value, list) else []


def as_maps(value: Any) -> list[Mapping[str, Any]]:
    """The maps in a list."""
    return [as_map(item) for item in as_list(value) if isinstance(item, Mapping)]

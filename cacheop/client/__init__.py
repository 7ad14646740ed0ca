"""Reads through fsspec: `cacheop://dataset[.namespace][@version]/path`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheop.client.planning import Plan, Read, plan

__all__ = ["Plan", "Read", "plan"]


def __getattr__(name: str) -> Any:
    """What is public, imported when it is used."""
    if name in __all__:
        from cacheop.client import planning

        return getattr(planning, name)
    raise AttributeError(f"module {__name__} has no {name}")

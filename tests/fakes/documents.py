"""Hypothesis strategies for documents, read off the models: what is right, and any JSON at all."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from cacheop.api.dataset import Mount
from cacheop.api.document import LABEL
from cacheop.api.model import MISSING, Field, Kind, tree_of
from cacheop.api.mounts import SCHEMES
from cacheop.api.quantity import format_duration, format_quantity

_WORD = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=8)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["500Gi", "10m", "/a", "/a/b", "s3://b/", "Auto", "Disk", "*"])
)


def any_json(names: list[str]) -> st.SearchStrategy[Any]:
    """JSON in which maps often have the names of fields, so that it gets deep into a parser."""
    keys = st.sampled_from(names) | st.text(max_size=4) | st.integers(0, 3)
    return st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=24,
    )


def names_below(model: type[Any]) -> list[str]:
    """The names of all fields of a model and of the models in it."""
    found: set[str] = set()

    def visit_tree(tree: Any) -> None:
        for name, node in tree.items():
            found.add(name)
            if isinstance(node, Field):
                visit_kind(node.kind)
            else:
                visit_tree(node)

    def visit_kind(kind: Kind) -> None:
        if kind.item is not None:
            visit_kind(kind.item)
        if kind.model is not None:
            visit_tree(tree_of(kind.model))

    visit_tree(tree_of(model))
    return sorted(found)


def right(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents in which every single field is right; rules between fields may not hold."""
    return _level(tree_of(model))


def labels() -> st.SearchStrategy[str]:
    """DNS labels."""
    return _like(LABEL.pattern)


def _like(pattern: str) -> st.SearchStrategy[str]:
    # Without $, which in Python leaves room for a newline.
    return st.from_regex(f"(?:{pattern[1:-1]})", fullmatch=True)


def _level(tree: Any) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, node in tree.items():
        if isinstance(node, Field):
            into = required if node.default is MISSING else optional
            special = _special(name)
            into[name] = _kind(node.kind) if special is None else special
        else:
            required[name] = _level(node)
    return st.fixed_dictionaries(required, optional=optional)


def _special(name: str) -> st.SearchStrategy[Any] | None:
    """Fields with rules that a pattern does not tell."""
    if name == "mountPoint":
        return st.builds("{}://{}/{}".format, st.sampled_from(SCHEMES), _WORD, _WORD)
    if name == "schedule":
        return st.sampled_from(["0 3 * * *", "*/5 8-18 * jan,mar mon-fri", "@daily"])
    if name == "low":
        return st.floats(0.05, 0.5)
    if name == "high":
        return st.floats(0.51, 1)
    if name in ("podLabels", "podAnnotations"):
        return st.dictionaries(_WORD, _WORD, max_size=3)
    if name == "mounts":
        return st.lists(right(Mount), min_size=1, max_size=4).map(_own_paths)
    return None


def _own_paths(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(mounts) == 1:
        return mounts
    return [
        {**mount, "path": f"/{i}{mount.get('path', '')}".rstrip("/")}
        for i, mount in enumerate(mounts)
    ]


def _kind(kind: Kind) -> st.SearchStrategy[Any]:
    limits = kind.limits
    if limits.notation is not None:
        low = int(limits.minimum or 0)
        if limits.notation.write is format_quantity:
            return st.integers(low, 2**50) | st.integers(low, 2**50).map(format_quantity)
        return st.integers(low, 10**8).map(format_duration)
    if kind.shape == "object":
        return _level(tree_of(kind.model))
    if kind.shape == "array":
        size = int(limits.minimum or 0)
        return st.lists(_kind(kind.item), min_size=size, max_size=2)
    if kind.shape == "map":
        return st.dictionaries(_WORD, _kind(kind.item), max_size=3)
    return _scalar(kind)


def _scalar(kind: Kind) -> st.SearchStrategy[Any]:
    limits = kind.limits
    low, high = limits.minimum, limits.maximum
    if kind.shape == "choice":
        return st.sampled_from(kind.choices)
    if kind.shape == "boolean":
        return st.booleans()
    if kind.shape == "number":
        return st.floats(low, high)
    if kind.shape == "integer":
        return st.integers(int(low), int(high))
    if kind.shape == "count":
        return st.integers(int(low), int(high)) | st.sampled_from(kind.choices)
    if kind.shape == "json":
        inner = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
        return inner | st.dictionaries(_WORD, inner | st.lists(inner, max_size=2), max_size=2)
    if limits.pattern:
        return _like(limits.pattern).filter(lambda found: len(found) <= limits.max_length)
    return st.text(min_size=1, max_size=9)

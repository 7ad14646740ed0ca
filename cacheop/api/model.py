"""What parser, writer and schema read off the dataclasses: types, limits, names in the document.

A field's type says its shape; `Annotated[type, Limits(...)]` says the rest. Shapes: str, bool, int,
float, Literal["A", "B"], int | Literal["all"], JSON, a dataclass, tuple[X, ...], Mapping[str, X];
each may be `| None`, which means "may be absent" (then the default is None). A class may have
`problems(self)` for what no single field can say, and `RULES`, the same as CEL for the CRD.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value: options are handed through as they are."""

MISSING = dataclasses.MISSING

Path: TypeAlias = tuple[str | int, ...]
"""Names and list positions from the root of a document, e.g. ("spec", "mounts", 0, "path")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a document."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{show(self.path)}: {self.text}" if self.path else self.text


def show(path: Path) -> str:
    """`path` as people write it: spec.mounts[0].path."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and all(c.isalnum() or c in "-_" for c in part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of the CRD and what the API server says when it does not hold."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Notation:
    """A text form of a number: `read` raises SpecError, `write` is its inverse."""

    read: Callable[[Any], Any]
    write: Callable[[Any], str]
    schema: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a value may be. Every text, list and map has a maximum: CEL's cost depends on it."""

    name: str = ""
    """Name in the document where it is not the attribute in camelCase; dots for levels."""
    max_length: int = 253
    max_items: int = 64
    """Entries of a list or map."""
    key_max_length: int = 253
    """Length of a map's keys."""
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    """Whole-text regular expression that RE2 and Python both know; begins ^ and ends $."""
    says: str = ""
    """What `pattern` means, for people."""
    keys: tuple[str, ...] = ()
    """A list of objects in which these attributes together are unique."""
    unique: bool = False
    """A list of texts, each once."""
    notation: Notation | None = None
    check: Callable[[Any], Iterator[Problem]] | None = None
    """More that must hold of the value; paths are relative to it."""
    rules: tuple[Rule, ...] = ()
    """The same as CEL."""


Shape: TypeAlias = Literal[
    "text", "choice", "boolean", "integer", "number", "count", "json", "object", "array", "map"
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as the parser wants it."""

    shape: Shape
    limits: Limits
    choices: tuple[str, ...] = ()
    """choice: the words; count: the words that may stand for a number."""
    item: Kind | None = None
    """Entries of an array or values of a map."""
    model: type[Any] | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model."""

    attribute: str
    names: tuple[str, ...]
    """Where it is in the document; more than one name when the document is deeper."""
    kind: Kind
    default: Any
    """MISSING when the field is required."""


def fields_of(model: type[Any]) -> tuple[Field, ...]:
    """The fields of a dataclass in order."""
    if model not in _FIELDS:
        _FIELDS[model] = tuple(_fields(model))
    return _FIELDS[model]


def _fields(model: type[Any]) -> Iterator[Field]:
    hints = typing.get_type_hints(model, include_extras=True)
    for field in dataclasses.fields(model):
        kind = _kind(hints[field.name], Limits())
        name = kind.limits.name or camel(field.name)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        yield Field(field.name, tuple(name.split(".")), kind, default)


def tree_of(model: type[Any]) -> Mapping[str, Any]:
    """The fields of a dataclass as the document nests them: name -> Field or another such map."""
    if model not in _TREES:
        _TREES[model] = _tree(model)
    return _TREES[model]


def _tree(model: type[Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for field in fields_of(model):
        level = tree
        for name in field.names[:-1]:
            level = level.setdefault(name, {})
        level[field.names[-1]] = field
    return tree


# What is read off a class never changes; two threads that find it missing write the same.
_FIELDS: dict[type[Any], tuple[Field, ...]] = {}
_TREES: dict[type[Any], dict[str, Any]] = {}


def camel(attribute: str) -> str:
    """`keep_versions` -> `keepVersions`."""
    head, *rest = attribute.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _kind(hint: Any, limits: Limits) -> Kind:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0], arguments[1])
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in arguments if a is not type(None)]
        if len(rest) == 1:
            return _kind(rest[0], limits)
        number, words = rest  # int | Literal[...]
        assert number is int, hint
        return Kind("count", limits, choices=typing.get_args(words))
    if origin is Literal:
        return Kind("choice", limits, choices=arguments)
    if origin is tuple:
        return Kind("array", limits, item=_kind(arguments[0], Limits()))
    if origin is Mapping:
        return Kind("map", limits, item=_kind(arguments[1], Limits()))
    if dataclasses.is_dataclass(hint):
        return Kind("object", limits, model=typing.cast("type[Any]", hint))
    return Kind(_SCALARS[hint], limits)


_SCALARS: dict[Any, Shape] = {
    str: "text",
    bool: "boolean",
    int: "integer",
    float: "number",
    Any: "json",
}

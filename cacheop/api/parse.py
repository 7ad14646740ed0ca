"""Documents to models and back, driven by model.py alone. Pure; reports every problem at once."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cacheop.api.errors import SpecError
from cacheop.api.model import JSON, MISSING, Field, Kind, Path, Problem, fields_of, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON_MAX_DEPTH = 16
PROBLEMS_SHOWN = 20

BAD: Final = object()
"""Stands for a value that had a problem."""


def read(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    """`raw` as the model's value, or BAD after adding to `problems`."""
    value = _READERS[kind.shape](kind, raw, path, problems)
    if value is not BAD and kind.limits.check is not None:
        found = [Problem(path + p.path, p.text) for p in kind.limits.check(value)]
        problems += found
        if found:
            return BAD
    return value


def read_object(model: type[Any], raw: JSON, path: Path, problems: list[Problem]) -> Any:
    """`raw` as a `model`, or BAD after adding to `problems`."""
    values: dict[str, Any] = {}
    good = _read_level(tree_of(model), raw, path, values, problems)
    if not good:
        return BAD
    value = model(**values)
    if hasattr(value, "problems"):
        found = [Problem(path + p.path, p.text) for p in value.problems()]
        problems += found
        if found:
            return BAD
    return value


def write(value: Any, *, full: bool = False) -> dict[str, JSON]:
    """The document of a model; what equals its default is left out unless `full`."""
    document: dict[str, JSON] = {}
    for field in fields_of(type(value)):
        item = getattr(value, field.attribute)
        if item is None or (not full and field.default is not MISSING and item == field.default):
            continue
        level = document
        for name in field.names[:-1]:
            level = level.setdefault(name, {})
        level[field.names[-1]] = write_value(field.kind, item, full=full)
    return document


def write_value(kind: Kind, value: Any, *, full: bool = False) -> JSON:
    """The document of one value."""
    if kind.limits.notation is not None:
        return kind.limits.notation.write(value)
    if kind.shape == "object":
        return write(value, full=full)
    if kind.shape == "array" and kind.item is not None:
        return [write_value(kind.item, item, full=full) for item in value]
    if kind.shape == "map" and kind.item is not None:
        return {key: write_value(kind.item, item, full=full) for key, item in value.items()}
    return value


def spec_error(what: str, problems: Iterable[Problem]) -> SpecError:
    """All problems of one document as the error for its writer."""
    lines = [str(problem) for problem in problems]
    if len(lines) == 1:
        return SpecError(f"{what}: {lines[0]}")
    shown = lines[:PROBLEMS_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} more")
    return SpecError("\n  ".join([f"{what}: {len(lines)} problems", *shown]))


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean "…"?` if a known word is near, else nothing."""
    import difflib

    known = list(known)
    folded = {k.lower(): k for k in known}
    cutoff = 0.5 if len(word) < 4 else 0.6
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return f', did you mean "{folded[found[0]]}"?' if found else ""


def called(raw: object) -> str:
    """What `raw` is, in the words of YAML."""
    if raw is None:
        return "nothing"
    if isinstance(raw, bool):
        return f"{str(raw).lower()} (a boolean)"
    if isinstance(raw, (int, float)):
        return f"{raw!r:.30} (a number)"
    if isinstance(raw, str):
        return f'the text "{raw}"' if len(raw) <= 40 else f'the text "{raw[:37]}…"'
    if isinstance(raw, Mapping):
        return "a map"
    if isinstance(raw, (list, tuple)):
        return "a list"
    return f"a {type(raw).__name__} (put it in quotes)"


def _is_required(node: object) -> bool:
    return isinstance(node, Field) and node.default is MISSING


def _read_level(
    tree: Mapping[str, Any], raw: JSON, path: Path, values: dict[str, Any], problems: list[Problem]
) -> bool:
    """Fill `values` from one map of the document; whether every value in it is good."""
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"expected a map, found {called(raw)}"))
        return False
    good = True
    misspelt = ""  # told once: not again as missing
    for name in raw:
        if name not in tree:
            missing = [n for n, node in tree.items() if n not in raw and _is_required(node)]
            help_ = nearest(name, missing) or nearest(name, tree) if isinstance(name, str) else ""
            misspelt += help_
            problems.append(Problem((*path, str(name)), f"unknown field{help_}"))
    for name, node in tree.items():
        item = raw.get(name)
        if not isinstance(node, Field):
            # A level that only the document has: its fields say themselves what is missing.
            good &= _read_level(node, {} if item is None else item, (*path, name), values, problems)
        elif item is not None:
            value = read(node.kind, item, (*path, name), problems)
            values[node.attribute] = value
            good &= value is not BAD
        elif node.default is MISSING:  # null counts as absent, as in Kubernetes
            if f'"{name}"' not in misspelt:
                problems.append(Problem((*path, name), "is missing"))
            good = False
    return good


def _read_text(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    limits = kind.limits
    if not isinstance(raw, str):
        quotes = "; put it in quotes" if isinstance(raw, (int, float)) else ""
        problems.append(Problem(path, f"expected text, found {called(raw)}{quotes}"))
        return BAD
    if len(raw) > limits.max_length:
        text = f"has {len(raw)} characters, at most {limits.max_length} are allowed"
        problems.append(Problem(path, text))
        return BAD
    # \Z and not $: Python's $ also matches before a newline at the end.
    if limits.pattern and re.match(limits.pattern[:-1] + r"\Z", raw) is None:
        problems.append(Problem(path, f'"{raw}" is not {limits.says or limits.pattern}'))
        return BAD
    return raw


def _read_choice(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    if isinstance(raw, str) and raw in kind.choices:
        return raw
    words = ", ".join(kind.choices)
    help_ = nearest(raw, kind.choices) if isinstance(raw, str) else ""
    if isinstance(raw, bool):  # YAML reads a bare Off, No, On or Yes as a boolean
        help_ = '; put the word in quotes, such as "Off"'
    problems.append(Problem(path, f"expected one of {words}; found {called(raw)}{help_}"))
    return BAD


def _read_boolean(_kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    if isinstance(raw, bool):
        return raw
    problems.append(Problem(path, f"expected true or false, found {called(raw)}"))
    return BAD


def _read_number(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    limits = kind.limits
    value: Any = raw
    if limits.notation is not None:
        try:
            value = limits.notation.read(raw)
        except SpecError as error:
            problems.append(Problem(path, error.message))
            return BAD
    elif isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        wanted = "a whole number" if kind.shape == "integer" else "a number"
        problems.append(Problem(path, f"expected {wanted}, found {called(raw)}"))
        return BAD
    elif kind.shape == "integer":
        if value != int(value):
            problems.append(Problem(path, f"expected a whole number, found {called(raw)}"))
            return BAD
        value = int(value)
    else:
        value = float(value)
    bound = _bound(kind, value)
    if bound:
        problems.append(Problem(path, f"{called(raw)} is {bound}"))
        return BAD
    return value


def _bound(kind: Kind, value: float) -> str:
    limits = kind.limits
    shown = limits.notation.write if limits.notation is not None else lambda x: f"{x:g}"
    if limits.minimum is not None and value < limits.minimum:
        return f"less than {shown(limits.minimum)}"
    if limits.maximum is not None and value > limits.maximum:
        return f"more than {shown(limits.maximum)}"
    return ""


def _read_count(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    if isinstance(raw, str):
        if raw in kind.choices:
            return raw
        words = " or ".join(f'"{word}"' for word in kind.choices)
        problems.append(Problem(path, f"expected a whole number or {words}, found {called(raw)}"))
        return BAD
    return _read_number(dataclasses.replace(kind, shape="integer"), raw, path, problems)


def _read_json(_kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    return _json(raw, path, problems, JSON_MAX_DEPTH)


def _json(raw: JSON, path: Path, problems: list[Problem], depth: int) -> Any:
    """A deep copy of `raw`, so that a model never shares state with the document it came from."""
    if raw is None or isinstance(raw, (str, bool, int)):
        return raw
    if isinstance(raw, float) and math.isfinite(raw):
        return raw
    if depth == 0:
        problems.append(Problem(path, f"is nested more than {JSON_MAX_DEPTH} levels deep"))
        return BAD
    if isinstance(raw, (list, tuple)):
        items = [_json(item, (*path, i), problems, depth - 1) for i, item in enumerate(raw)]
        return BAD if any(item is BAD for item in items) else items
    if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
        pairs = {k: _json(v, (*path, k), problems, depth - 1) for k, v in raw.items()}
        return BAD if any(value is BAD for value in pairs.values()) else pairs
    problems.append(Problem(path, f"expected JSON, found {called(raw)}"))
    return BAD


def _read_object(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    assert kind.model is not None
    return read_object(kind.model, raw, path, problems)


def _read_array(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    limits, item_kind = kind.limits, kind.item
    assert item_kind is not None
    if not isinstance(raw, (list, tuple)):
        problems.append(Problem(path, f"expected a list, found {called(raw)}"))
        return BAD
    if len(raw) > limits.max_items:
        text = f"has {len(raw)} entries, at most {limits.max_items} are allowed"
        problems.append(Problem(path, text))
        return BAD
    if len(raw) < (limits.minimum or 0):
        problems.append(Problem(path, f"needs at least {limits.minimum:g} entry"))
        return BAD
    items = [read(item_kind, item, (*path, i), problems) for i, item in enumerate(raw)]
    good = all(item is not BAD for item in items)
    for i, (at, said) in _twice(kind, items).items():
        problems.append(Problem((*path, i), f"{said} is already at {at}"))
        good = False
    return tuple(items) if good else BAD


def _twice(kind: Kind, items: list[Any]) -> dict[int, tuple[str, str]]:
    """Position of an entry that is there already -> (position of the first one, what is equal)."""
    seen: dict[Any, int] = {}
    found: dict[int, tuple[str, str]] = {}
    keys = kind.limits.keys
    if not keys and not kind.limits.unique:
        return found
    for i, item in enumerate(items):
        if item is BAD:
            continue
        key = tuple(getattr(item, k) for k in keys) if keys else item
        if key in seen:
            said = ", ".join(f'{k} "{getattr(item, k)}"' for k in keys) if keys else f'"{item}"'
            found[i] = (f"[{seen[key]}]", said)
        seen.setdefault(key, i)
    return found


def _read_map(kind: Kind, raw: JSON, path: Path, problems: list[Problem]) -> Any:
    limits, item_kind = kind.limits, kind.item
    assert item_kind is not None
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"expected a map, found {called(raw)}"))
        return BAD
    if len(raw) > limits.max_items:
        text = f"has {len(raw)} entries, at most {limits.max_items} are allowed"
        problems.append(Problem(path, text))
        return BAD
    pairs: dict[str, Any] = {}
    good = True
    for key, item in raw.items():
        if not isinstance(key, str) or not 0 < len(key) <= limits.key_max_length:
            text = f"a name here is a text of 1 to {limits.key_max_length} characters"
            problems.append(Problem((*path, str(key)[:40]), text))
            good = False
            continue
        pairs[key] = read(item_kind, item, (*path, key), problems)
        good &= pairs[key] is not BAD
    return pairs if good else BAD


_READERS = {
    "text": _read_text,
    "choice": _read_choice,
    "boolean": _read_boolean,
    "integer": _read_number,
    "number": _read_number,
    "count": _read_count,
    "json": _read_json,
    "object": _read_object,
    "array": _read_array,
    "map": _read_map,
}

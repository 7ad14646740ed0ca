"""The frame around a spec that all kinds share: apiVersion, kind, metadata. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cacheop.api.model import JSON, Kind, Limits, Problem
from cacheop.api.names import API_VERSION
from cacheop.api.parse import BAD, called, nearest, read, read_object, write

DEFAULT_NAMESPACE = "default"
LABEL = Limits(
    max_length=63,
    pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
    says="a DNS label (a-z, 0-9 and -, at most 63, no dots)",
)
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(frozen=True, slots=True)
class Head:
    """Name and namespace."""

    name: Annotated[str, LABEL]
    namespace: Annotated[str, LABEL] = DEFAULT_NAMESPACE


def read_document(
    document: JSON, kind: str, spec_model: type[Any]
) -> tuple[Head | None, Any, tuple[Problem, ...]]:
    """(head, spec, no problems), or (None, None, all problems). `status` is not looked at."""
    problems: list[Problem] = []
    if not isinstance(document, Mapping):
        problems.append(Problem((), f"expected a {kind} document, found {called(document)}"))
        return None, None, tuple(problems)
    for name in document:
        if name not in _TOP:
            help_ = nearest(name, _TOP) if isinstance(name, str) else ""
            problems.append(Problem((str(name),), f"unknown field{help_}"))
    for name, wanted in (("apiVersion", API_VERSION), ("kind", kind)):
        if document.get(name) != wanted:
            found = called(document.get(name))
            problems.append(Problem((name,), f'expected "{wanted}", found {found}'))
    head = _read_head(document.get("metadata"), problems)
    if document.get("spec") is None:
        problems.append(Problem(("spec",), "is missing"))
        spec = BAD
    else:
        spec = read_object(spec_model, document["spec"], ("spec",), problems)
    if problems:
        return None, None, tuple(problems)
    return head, spec, ()


def write_document(kind: str, name: str, namespace: str, spec: Any) -> dict[str, JSON]:
    """A document that read_document takes."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": write(spec),
    }


def _read_head(raw: JSON, problems: list[Problem]) -> Head | None:
    """Name and namespace; the rest of metadata is Kubernetes' own."""
    if not isinstance(raw, Mapping):
        problems.append(Problem(("metadata",), f"expected a map, found {called(raw)}"))
        return None
    label = Kind("text", LABEL)
    if raw.get("name") is None:
        problems.append(Problem(("metadata", "name"), "is missing"))
        return None
    name = read(label, raw["name"], ("metadata", "name"), problems)
    given = raw.get("namespace")
    namespace = (
        DEFAULT_NAMESPACE
        if given is None
        else read(label, given, ("metadata", "namespace"), problems)
    )
    return None if BAD in (name, namespace) else Head(name, namespace)

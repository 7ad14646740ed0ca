"""The CRDs, read off the models: structural OpenAPI v3 schemas and CEL rules. Pure.

Kubernetes' limits: no $ref, every field has a type, and every text, list and map a maximum, because
the API server refuses rules whose worst case costs too much.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.dataload import DataLoadSpec, DataLoadStatus
from cacheop.api.dataset import DatasetSpec
from cacheop.api.dataset_status import DatasetStatus
from cacheop.api.document import LABEL
from cacheop.api.model import JSON, MISSING, Field, Kind, Rule, camel, tree_of
from cacheop.api.names import API_GROUP
from cacheop.api.parse import write_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Describe = Callable[[type[Any]], Mapping[str, str]]
    """Attribute -> description of a model's fields; "" -> of the model."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; priority 1 is shown by -o wide only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


_READY = '.status.conditions[?(@.type=="Ready")]'
_AGE = Column("AGE", ".metadata.creationTimestamp", "date")
DATASET_COLUMNS = (
    Column("READY", f"{_READY}.status"),
    Column("CACHED %", ".status.cacheStates.cachedPercentage"),
    Column("SIZE", ".status.ufsTotal"),
    Column("FILES", ".status.fileNum", "integer"),
    Column("WORKERS", ".status.readyReplicas", "integer"),
    Column("ORIGIN x", ".status.cacheStates.originRatio"),
    _AGE,
    Column("MESSAGE", f"{_READY}.message"),
    Column("PHASE", ".status.phase", priority=1),
    Column("VERSION", ".status.version", priority=1),
    Column("MODE", ".status.mode", priority=1),
    Column("HIT %", ".status.cacheStates.hitRatio", priority=1),
)
DATALOAD_COLUMNS = (
    Column("DATASET", ".spec.dataset"),
    Column("PHASE", ".status.phase"),
    Column("LOADED %", ".status.percentage", "integer"),
    Column("RATE", ".status.rate"),
    Column("ETA", ".status.eta"),
    _AGE,
    Column("FILES", ".status.files", "integer", 1),
    Column("SCHEDULE", ".spec.schedule", priority=1),
)
_NAME_RULE = Rule(
    f"self.metadata.name.matches('{LABEL.pattern}')",
    f"metadata.name must be {LABEL.says}",
)
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def crds(describe: Describe) -> dict[str, dict[str, JSON]]:
    """Every CRD by the name of its file."""
    return {
        "datasets.yaml": _crd(
            ("Dataset", "datasets", "cds"),
            (DatasetSpec, DatasetStatus),
            DATASET_COLUMNS,
            {"status": {}, "scale": _SCALE},
            describe,
        ),
        "dataloads.yaml": _crd(
            ("DataLoad", "dataloads", "cdl"),
            (DataLoadSpec, DataLoadStatus),
            DATALOAD_COLUMNS,
            {"status": {}},
            describe,
        ),
    }


def object_schema(model: type[Any], describe: Describe) -> dict[str, JSON]:
    """The schema of a dataclass."""
    texts = describe(model)
    schema = _level(tree_of(model), texts, describe)
    if texts.get(""):
        schema = {"description": texts[""], **schema}
    return schema | _rules(getattr(model, "RULES", ()))


def _crd(
    names: tuple[str, str, str],
    models: tuple[type[Any], type[Any]],
    columns: tuple[Column, ...],
    subresources: Mapping[str, JSON],
    describe: Describe,
) -> dict[str, JSON]:
    kind, plural, short = names
    spec, status = models
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": object_schema(spec, describe),
            "status": object_schema(status, describe),
        },
    } | _rules((_NAME_RULE,))
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": dict(subresources),
        "additionalPrinterColumns": [_column(column) for column in columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{API_GROUP}"},
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["cacheop"],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, JSON]:
    found = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return found | ({"priority": column.priority} if column.priority else {})


def _level(
    tree: Mapping[str, Any], texts: Mapping[str, str], describe: Describe
) -> dict[str, JSON]:
    """One map of the document: the fields of a model, or a level that only the document has."""
    properties: dict[str, JSON] = {}
    required = []
    for name, node in tree.items():
        if isinstance(node, Field):
            properties[name] = _field(node, texts, describe)
            needed = node.default is MISSING
        else:
            properties[name] = _level(node, texts, describe)
            needed = "required" in properties[name]
        if needed:
            required.append(name)
    schema: dict[str, JSON] = {"type": "object", "properties": properties}
    return schema | ({"required": required} if required else {})


def _field(field: Field, texts: Mapping[str, str], describe: Describe) -> dict[str, JSON]:
    schema = _kind(field.kind, describe)
    text = texts.get(field.attribute)
    if text:
        schema = {"description": text, **{k: v for k, v in schema.items() if k != "description"}}
    default = field.default
    # An absent list or map stays absent: nothing is gained by storing an empty one.
    if default is not MISSING and default is not None and default not in ((), {}):
        # The API server fills a default map from below, but checks the rules on a list as it is.
        schema["default"] = write_value(field.kind, default, full=field.kind.shape == "array")
    return schema


def _kind(kind: Kind, describe: Describe) -> dict[str, JSON]:
    limits = kind.limits
    if limits.notation is not None:
        return dict(limits.notation.schema) | _rules(limits.rules)
    if kind.shape == "object":
        assert kind.model is not None
        return object_schema(kind.model, describe)
    if kind.shape in ("array", "map"):
        return _collection(kind, describe) | _rules(limits.rules)
    return _scalar(kind) | _rules(limits.rules)


def _scalar(kind: Kind) -> dict[str, JSON]:
    limits = kind.limits
    if kind.shape == "json":
        return {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
    if kind.shape == "boolean":
        return {"type": "boolean"}
    if kind.shape == "choice":
        return {"type": "string", "enum": list(kind.choices)}
    if kind.shape == "text":
        pattern = {"pattern": limits.pattern} if limits.pattern else {}
        return {"type": "string", "maxLength": limits.max_length} | pattern
    schema: dict[str, JSON] = {"type": kind.shape}
    if kind.shape == "integer":
        schema["format"] = "int64"
    if kind.shape == "count":
        words = "|".join(kind.choices)
        schema = {"x-kubernetes-int-or-string": True, "pattern": f"^({words})$"}
    for name in ("minimum", "maximum"):
        bound = getattr(limits, name)
        if bound is not None:
            schema[name] = bound
    return schema


def _collection(kind: Kind, describe: Describe) -> dict[str, JSON]:
    limits = kind.limits
    assert kind.item is not None
    item = _kind(kind.item, describe)
    if kind.shape == "map":
        return {"type": "object", "additionalProperties": item, "maxProperties": limits.max_items}
    schema: dict[str, JSON] = {"type": "array", "items": item, "maxItems": limits.max_items}
    if limits.minimum is not None:
        schema["minItems"] = int(limits.minimum)
    if limits.keys:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = [camel(key) for key in limits.keys]
    elif limits.unique:
        schema["x-kubernetes-list-type"] = "set"
    else:
        schema["x-kubernetes-list-type"] = "atomic"
    return schema


def _rules(rules: tuple[Rule, ...]) -> dict[str, JSON]:
    if not rules:
        return {}
    return {"x-kubernetes-validations": [{"rule": r.rule, "message": r.message} for r in rules]}

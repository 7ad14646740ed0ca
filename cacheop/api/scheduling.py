"""Where worker pods may run and what they may use: Kubernetes' own types, field by field.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#scheduling
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping  # noqa: TC003 - the parser reads the annotations
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cacheop.api.model import Limits, Problem, Rule

RESERVED_PREFIXES = ("cacheop.io/", "app.kubernetes.io/")
DNS_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
AMOUNT_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"

_LABEL_KEY = Limits(max_length=317, pattern=LABEL_KEY_PATTERN, says="a label name")
_LABEL_VALUE = Limits(max_length=63, pattern=LABEL_VALUE_PATTERN, says="a label value")
DNS_NAME = Limits(pattern=DNS_NAME_PATTERN, says="a Kubernetes name")
_AMOUNT = Limits(max_length=32, pattern=AMOUNT_PATTERN, says='an amount such as "500m" or "2Gi"')


def _not_reserved(labels: Mapping[str, str]) -> Iterator[Problem]:
    for key in labels:
        if key.startswith(RESERVED_PREFIXES):
            yield Problem((key,), "is reserved for cacheop itself; choose a name of your own")


_NO_RESERVED = Rule(
    "self.all(k, !k.startsWith('cacheop.io/') && !k.startsWith('app.kubernetes.io/'))",
    "names under cacheop.io/ and app.kubernetes.io/ are reserved for cacheop itself",
)
POD_LABELS = Limits(max_items=32, key_max_length=317, check=_not_reserved, rules=(_NO_RESERVED,))


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint that workers tolerate; given any, they tolerate only these."""

    key: Annotated[str | None, _LABEL_KEY] = None
    """Taint key; absent with operator Exists means every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Equal compares the value, Exists only the key."""
    value: Annotated[str | None, _LABEL_VALUE] = None
    """Taint value for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which effect is tolerated; absent means all."""
    toleration_seconds: Annotated[int | None, Limits(minimum=0, maximum=2**31 - 1)] = None
    """How long a NoExecute taint is tolerated; absent means for ever."""


@dataclass(frozen=True, slots=True)
class NodeSelectorRequirement:
    """One condition on a node's labels or fields."""

    key: Annotated[str, _LABEL_KEY]
    """Name of the label or field."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the node's value is compared."""
    values: Annotated[
        tuple[Annotated[str, Limits(max_length=253)], ...], Limits(max_items=128)
    ] = ()
    """What it is compared with; none for Exists and DoesNotExist, one number for Gt and Lt."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.operator in ['Exists', 'DoesNotExist']"
            " ? !has(self.values) || size(self.values) == 0"
            " : has(self.values) && size(self.values) > 0"
            " && (self.operator in ['In', 'NotIn'] || size(self.values) == 1)",
            "In and NotIn need values, Gt and Lt exactly one, Exists and DoesNotExist none",
        ),
    )

    def problems(self) -> Iterator[Problem]:
        """Whether the number of values fits the operator."""
        count = len(self.values)
        if self.operator in ("Exists", "DoesNotExist"):
            good = count == 0
        elif self.operator in ("Gt", "Lt"):
            good = count == 1
        else:
            good = count > 0
        if not good:
            yield Problem(("values",), f"has {count} entries; {self.RULES[0].message}")


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """Conditions that must all hold."""

    match_expressions: Annotated[tuple[NodeSelectorRequirement, ...], Limits(max_items=32)] = ()
    """Conditions on labels."""
    match_fields: Annotated[tuple[NodeSelectorRequirement, ...], Limits(max_items=8)] = ()
    """Conditions on fields (metadata.name)."""


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """Nodes for which at least one term holds."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Limits(minimum=1, max_items=16)]
    """The terms."""


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """Nodes on which workers may run."""

    required: NodeSelector | None = None
    """Must hold; absent means every node."""


@dataclass(frozen=True, slots=True)
class Resources:
    """CPU and memory of a worker pod, as in any container."""

    requests: Annotated[Mapping[str, Annotated[str, _AMOUNT]], Limits(max_items=16)] = field(
        default_factory=dict
    )
    """What the scheduler sets aside."""
    limits: Annotated[Mapping[str, Annotated[str, _AMOUNT]], Limits(max_items=16)] = field(
        default_factory=dict
    )
    """What the worker may use at most."""


@dataclass(frozen=True, slots=True)
class LocalReference:
    """An object in the Dataset's namespace."""

    name: Annotated[str, DNS_NAME]
    """Its name."""

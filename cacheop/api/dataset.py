"""`kind: Dataset`: the one source of the file format, the CRD and what the processes are told.

The text below each field becomes its description in the CRD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping  # noqa: TC003 - the parser reads the annotations
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cacheop.api.document import LABEL, read_document, write_document
from cacheop.api.model import JSON, Limits, Notation, Problem, Rule
from cacheop.api.mounts import MOUNT_RULES, OVERLAP_RULE, check_mount_point, overlaps
from cacheop.api.parse import spec_error
from cacheop.api.quantity import (
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    TEXT_MAX_LENGTH,
    format_duration,
    format_quantity,
    parse_duration,
    parse_quantity,
)
from cacheop.api.scheduling import (
    DNS_NAME,
    POD_LABELS,
    LocalReference,
    NodeAffinity,
    Resources,
    Toleration,
)

KIND = "Dataset"
QUANTITY = Notation(
    parse_quantity,
    format_quantity,
    {"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN, "minimum": 0},
)
DURATION = Notation(
    parse_duration,
    format_duration,
    {"type": "string", "pattern": DURATION_PATTERN, "maxLength": TEXT_MAX_LENGTH},
)
PATH_PATTERN = r"^/([^/]+(/[^/]+)*)?$"
VERSION_PATTERN = r"^([0-9a-f]{8,64})?$"

PATH = Limits(max_length=1024, pattern=PATH_PATTERN, says='a path such as "/" or "/train"')
VERSION = Limits(max_length=64, pattern=VERSION_PATTERN, says="a version (`cacheop versions`)")
# Not `.`, and nothing that begins with `..`: keys become file names.
_KEY = Limits(pattern=r"^([-_a-zA-Z0-9]|\.[-_a-zA-Z0-9])[-._a-zA-Z0-9]*$", says="a key of a Secret")
_RATIO = Limits(minimum=0.05, maximum=1)
RATE = Limits(name="maxOriginBytesPerSecond", notation=QUANTITY, minimum=1)


@dataclass(frozen=True, slots=True)
class EncryptOption:
    """An option whose value is in a Secret of the Dataset's namespace."""

    name: Annotated[str, Limits(max_length=128)]
    """Name of the option."""
    secret_name: Annotated[
        str,
        Limits(name="valueFrom.secretKeyRef.name", pattern=DNS_NAME.pattern, says=DNS_NAME.says),
    ]
    """Name of the Secret."""
    secret_key: Annotated[
        str, Limits(name="valueFrom.secretKeyRef.key", pattern=_KEY.pattern, says=_KEY.says)
    ]
    """Key in the Secret."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A prefix of slow storage and where it appears in the Dataset."""

    mount_point: Annotated[str, Limits(max_length=1024, check=check_mount_point)]
    """URL of the prefix, such as s3://bucket/imagenet/."""
    path: Annotated[str, PATH] = "/"
    """Where it appears in the Dataset; no mount lies within another."""
    options: Annotated[Mapping[str, JSON], Limits(max_items=64, key_max_length=128)] = field(
        default_factory=dict
    )
    """fsspec's own words for this storage: any JSON scalar or map."""
    encrypt_options: Annotated[tuple[EncryptOption, ...], Limits(max_items=32, keys=("name",))] = ()
    """Options whose values are in Secrets."""

    RULES: ClassVar[tuple[Rule, ...]] = MOUNT_RULES

    def problems(self) -> Iterator[Problem]:
        """Options that are given twice."""
        for i, option in enumerate(self.encrypt_options):
            if option.name in self.options:
                yield Problem(
                    ("encryptOptions", i, "name"),
                    f'"{option.name}" is in options too; keep only one of them',
                )


@dataclass(frozen=True, slots=True)
class Refresh:
    """When the origin is listed again into a new version."""

    interval_seconds: Annotated[
        float | None, Limits(name="interval", notation=DURATION, minimum=1)
    ] = None
    """How often; unset means never."""
    requested_at: Annotated[str | None, Limits(max_length=64)] = None
    """Change it, to the time now for instance, for a refresh now."""


@dataclass(frozen=True, slots=True)
class PathTarget:
    """A file or directory of the Dataset."""

    path: Annotated[str, PATH] = "/"
    """Its path."""


@dataclass(frozen=True, slots=True)
class ShareWith:
    """Other namespaces that may read this Dataset through the same workers."""

    namespaces: Annotated[tuple[Annotated[str, LABEL], ...], Limits(max_items=64, unique=True)] = ()
    """Only those annotated cacheop.io/accept-from with this namespace's name."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A medium that holds cached files."""

    medium: Literal["Disk", "Memory"] = "Disk"
    """Disk is the node's cache directory, Memory a tmpfs that counts as the worker's memory."""
    quota_bytes: Annotated[int | None, Limits(name="quota", notation=QUANTITY, minimum=1 << 20)] = (
        None
    )
    """Most bytes on each node; unset means a share of the node's cache directory."""
    high: Annotated[float, _RATIO] = 0.95
    """Share of the quota at which eviction begins."""
    low: Annotated[float, _RATIO] = 0.85
    """Share of the quota at which eviction ends."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.high > self.low", "high must be above low"),
        Rule("self.medium != 'Memory' || has(self.quota)", "a Memory tier needs a quota"),
    )

    def problems(self) -> Iterator[Problem]:
        """Marks the wrong way round; memory without a bound."""
        if self.high <= self.low:
            yield Problem(("high",), f"{self.high:g} must be above low, which is {self.low:g}")
        if self.medium == "Memory" and self.quota_bytes is None:
            yield Problem(("quota",), "is missing: a Memory tier needs one")


@dataclass(frozen=True, slots=True)
class Eviction:
    """What leaves when a tier is full."""

    policy: Literal["Auto", "LRU", "SIEVE", "NoEvict"] = "Auto"
    """Auto keeps what the training jobs will want most; the others are classics."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Where and how much is kept on each node."""

    tiers: Annotated[tuple[Tier, ...], Limits(minimum=1, max_items=2, keys=("medium",))] = (Tier(),)
    """At most one of each medium."""
    eviction: Eviction = Eviction()
    """What leaves when a tier is full."""
    pin: bool = False
    """Never evict; loads nothing by itself."""
    floor_bytes: Annotated[int, Limits(name="floor", notation=QUANTITY)] = 0
    """Bytes on each node that other Datasets never take from this one."""
    priority: Annotated[int, Limits(minimum=-1000, maximum=1000)] = 0
    """Among Datasets that share a cache directory, the lower gives way first."""
    ttl_seconds: Annotated[float | None, Limits(name="ttl", notation=DURATION, minimum=1)] = None
    """Files not read for so long leave even when there is room; unset means never."""

    def problems(self) -> Iterator[Problem]:
        """A floor that no quota can hold."""
        # No CEL rule: sizes are numbers or texts there, and only newer servers can compare those.
        quotas = [tier.quota_bytes for tier in self.tiers]
        total = sum(quota for quota in quotas if quota is not None)
        if None not in quotas and self.floor_bytes > total:
            text = f"{format_quantity(self.floor_bytes)} is more than all quotas together"
            yield Problem(("floor",), f"{text} ({format_quantity(total)})")


@dataclass(frozen=True, slots=True)
class Prefetch:
    """What is fetched before somebody asks."""

    mode: Literal["Auto", "Plan", "Off"] = "Auto"
    """Plan fetches only what training code announced, Off nothing."""
    headers: bool = False
    """Fetch the first chunk of big files when a version is new."""
    max_origin_bytes_per_second: Annotated[int | None, RATE] = None
    """Most bytes a second from the origin for what nobody waits for; unset means no limit."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How training pods see the files."""

    mode: Literal["Auto", "Native", "ZeroOpen", "Passthrough", "Fuse"] = "Auto"
    """Auto takes the fastest that the node can do."""
    grace_seconds: Annotated[float, Limits(name="grace", notation=DURATION, minimum=1)] = 600.0
    """How long a read of uncached data waits for a worker that is away, before EIO."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What deleting the Dataset does."""

    when_mounted: Literal["Wait", "Force"] = "Wait"
    """Wait lets running pods end first."""
    timeout_seconds: Annotated[float, Limits(name="timeout", notation=DURATION)] = 600.0
    """How long cleaning up on nodes may take before it is left to them."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The pods that serve the Dataset."""

    idle_seconds: Annotated[float, Limits(name="idle", notation=DURATION, minimum=1)] = 1800.0
    """How long a worker beyond `replicas` stays after the last use on its node."""
    max_unavailable: Annotated[int, Limits(minimum=1, maximum=10000)] = 1
    """Workers that may be replaced at the same time."""
    resources: Resources = field(default_factory=Resources)
    """CPU and memory; memory of a Memory tier is added."""
    service_account_name: Annotated[str | None, DNS_NAME] = None
    """Whose cloud identity the origin sees."""
    pod_labels: Annotated[Mapping[str, Annotated[str, Limits(max_length=63)]], POD_LABELS] = field(
        default_factory=dict
    )
    """Labels to add; those under cacheop.io/ and app.kubernetes.io/ are refused."""
    pod_annotations: Annotated[
        Mapping[str, Annotated[str, Limits(max_length=4096)]], POD_LABELS
    ] = field(default_factory=dict)
    """Annotations to add; those under cacheop.io/ and app.kubernetes.io/ are refused."""
    image_pull_secrets: Annotated[
        tuple[LocalReference, ...], Limits(max_items=16, keys=("name",))
    ] = ()
    """Secrets for the image's registry."""
    priority_class_name: Annotated[str | None, DNS_NAME] = None
    """PriorityClass of the pods."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What to cache and how. Everything but `mounts` is optional."""

    mounts: Annotated[
        tuple[Mount, ...],
        Limits(minimum=1, max_items=64, keys=("path",), check=overlaps, rules=(OVERLAP_RULE,)),
    ]
    """Where the data comes from."""
    version: Annotated[str, VERSION] = ""
    """The version that is served; empty means the newest."""
    keep_versions: Annotated[int, Limits(minimum=1, maximum=100)] = 2
    """How many versions stay besides those in use."""
    refresh: Refresh = Refresh()
    """When the origin is listed again."""
    replicas: Annotated[int, Limits(minimum=0, maximum=10000)] = 1
    """Nodes that keep a worker always; others get one while they use the Dataset."""
    all_nodes: bool = False
    """Keep a worker on every node."""
    placement: Literal["Zone", "Cluster"] = "Zone"
    """Within what the workers share chunks: each zone by itself, or the whole cluster."""
    preload: Annotated[tuple[PathTarget, ...], Limits(max_items=64)] = ()
    """Trees that are loaded without being asked for."""
    suspend: bool = False
    """No reads from the origin; reads of cached data go on."""
    share_with: ShareWith = ShareWith()
    """Other namespaces that may read."""
    cache: Cache = Cache()
    """Where and how much is kept."""
    prefetch: Prefetch = Prefetch()
    """What is fetched before somebody asks."""
    mount: MountOptions = MountOptions()
    """How training pods see the files."""
    deletion: Deletion = Deletion()
    """What deleting the Dataset does."""
    node_affinity: NodeAffinity = field(default_factory=NodeAffinity)
    """Nodes on which workers may run."""
    tolerations: Annotated[tuple[Toleration, ...] | None, Limits(max_items=32)] = None
    """Taints that workers tolerate; unset means every taint."""
    worker: Worker = field(default_factory=Worker)
    """The pods that serve the Dataset."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A `kind: Dataset` document."""

    name: str
    spec: DatasetSpec
    namespace: str = "default"


def read_dataset(document: JSON) -> tuple[Dataset | None, tuple[Problem, ...]]:
    """The Dataset and no problem, or None and all problems."""
    head, spec, problems = read_document(document, KIND, DatasetSpec)
    if problems or head is None:
        return None, problems
    return Dataset(name=head.name, namespace=head.namespace, spec=spec), ()


def parse_dataset(document: Mapping[str, JSON]) -> Dataset:
    """The Dataset of a document as YAML or JSON gave it. Raises SpecError with every problem."""
    dataset, problems = read_dataset(document)
    if dataset is None:
        raise spec_error(KIND, problems)
    return dataset


def to_document(dataset: Dataset) -> dict[str, JSON]:
    """The document of `dataset` without what is default: parse_dataset gives `dataset` back."""
    return write_document(KIND, dataset.name, dataset.namespace, dataset.spec)

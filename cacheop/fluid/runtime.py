"""What a Fluid runtime says of replicas, tiers and pods, as fields of our Dataset's spec. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import SpecError
from cacheop.api.quantity import MAX_SECONDS, format_duration, format_quantity, parse_quantity
from cacheop.fluid import words
from cacheop.fluid.shapes import as_map, as_maps
from cacheop.fluid.storage import JUICEFS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.fluid.notes import Notes

LEAST_QUOTA_BYTES = 1 << 20
_HANDLED = frozenset({"replicas", "tieredstore", "tieredStore", "data", "worker", "podMetadata"})
_HANDLED_OF_WORKER = frozenset({"podMetadata", "nodeSelector", "replicas", "labels", "annotations"})
_WHY: Mapping[str, str] = {
    "master": "there is no master",
    "jobMaster": "loads run in the workers",
    "jobWorker": "loads run in the workers",
    "jvmOptions": "there is no JVM",
    "fuse": "mounts are made by the node plugin and last as long as their pods (spec.mount)",
    "runAs": "every uid may read the files",
    "user": "every uid may read the files",
    "initUsers": "every uid may read the files",
    "management": "status is always recomputed; a deleted Dataset takes its cache along",
    "disablePrometheus": "workers always have /metrics on port 9090",
    "imagePullSecrets": "the image is another one: spec.worker.imagePullSecrets",
    "profileName": "the storage is read by fsspec, without a FUSE client of its own",
    "networkmode": "workers have a network of their own, with a NetworkPolicy",
    "volumes": "only credentials were looked for in them",
}
_OF_WORKER: Mapping[str, str] = {
    "resources": "was sized for another cache; ours asks for little (spec.worker.resources)",
    "tolerations": "workers tolerate every taint",
    "jvmOptions": "there is no JVM",
}
_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_TIME = re.compile(rf"([0-9]{{1,18}}) *({'|'.join(_SECONDS)})?s?", re.IGNORECASE)


def convert_runtime(kind: str, spec: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """Fields of our spec."""
    found: dict[str, Any] = {}
    if isinstance(spec.get("replicas"), int):
        found["replicas"] = spec["replicas"]
    cache: dict[str, Any] = {}
    if tier := _tier(kind, spec.get("tieredstore") or spec.get("tieredStore") or {}, notes):
        cache["tiers"] = [tier]
    data = as_map(spec.get("data"))
    if data.get("pin") is True:
        cache["pin"] = True
    if cache:
        found["cache"] = cache
    if interval := _sync_interval(as_map(spec.get("properties")), notes):
        found["refresh"] = {"interval": interval}
    worker = as_map(spec.get("worker"))
    if pods := _pods(as_map(spec.get("podMetadata")), worker):
        found["worker"] = pods
    if selector := as_map(worker.get("nodeSelector")) or as_map(spec.get("nodeSelector")):
        found["nodeSelector"] = selector  # convert.py makes it part of the affinity
    _tell_dropped(spec, worker, notes)
    return found


def storage_options(spec: Mapping[str, Any]) -> dict[str, str]:
    """The storage's words among the properties of a runtime; they hold for all mounts."""
    properties = as_map(spec.get("properties"))
    return {str(k): str(v) for k, v in properties.items() if words.is_storage_word(str(k))}


def secret_files(spec: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Directory in the runtime's pods -> (Secret that is mounted there, "")."""
    secrets = {
        volume.get("name"): as_map(volume.get("secret")).get("secretName")
        for volume in as_maps(spec.get("volumes"))
    }
    mounts = [
        mount
        for component in ("worker", "master", "fuse")
        for mount in as_maps(as_map(spec.get(component)).get("volumeMounts"))
    ]
    return {
        str(mount.get("mountPath")).rstrip("/"): (str(secrets[mount["name"]]), "")
        for mount in mounts
        if secrets.get(mount.get("name"))
    }


def _tier(kind: str, store: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """One Disk tier that holds as much as all levels together."""
    tier: dict[str, Any] = {}
    quotas: list[int | None] = []
    for number, level in enumerate(as_maps(as_map(store).get("levels"))):
        where = f"spec.tieredstore.levels[{number}]"
        quotas.append(_quota_bytes(level, where, notes))
        if str(level.get("mediumtype")).upper() == "MEM":
            # Workers keep one tier with medium Disk yet.
            notes.changed(
                where, "is kept on the node's disk; what is hot stays in the kernel's page cache"
            )
        elif level.get("path"):
            notes.changed(
                f"{where}.path",
                f"cache directories are the cluster's: node.cacheDirs of the Helm chart "
                f"({level['path']})",
            )
        tier |= _marks(kind, level, where, notes)
    if quotas and None not in quotas:
        tier["quota"] = format_quantity(sum(quota for quota in quotas if quota is not None))
    return tier


def _quota_bytes(level: Mapping[str, Any], where: str, notes: Notes) -> int | None:
    given = level.get("quotaList") or level.get("quota")
    if given is None:
        return None
    try:
        parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else [given]
        total = sum(parse_quantity(int(p) if isinstance(p, float) else p) for p in parts)
    except SpecError as error:
        notes.todo(f"{where}.quota", f"{error.message}; left out")
        return None
    if total < LEAST_QUOTA_BYTES:
        notes.todo(f"{where}.quota", f"{given} is less than 1Mi; left out, so say what was meant")
        return None
    return total


def _marks(kind: str, level: Mapping[str, Any], where: str, notes: Notes) -> dict[str, float]:
    given = {name: level[name] for name in ("high", "low") if level.get(name) not in (None, "")}
    if not given:
        return {}
    if kind == JUICEFS:
        notes.dropped(where, "low is JuiceFS's free space, not a mark; ours are 0.95 and 0.85")
        return {}
    try:
        marks = {name: float(value) for name, value in given.items()}
    except (ValueError, TypeError):
        marks = {}
    high, low = marks.get("high", 0.95), marks.get("low", 0.85)
    if not marks or not 0.05 <= low < high <= 1:
        notes.changed(where, f"high and low {given} cannot be used; ours are 0.95 and 0.85")
        return {}
    return marks


def _sync_interval(properties: Mapping[str, Any], notes: Notes) -> str:
    """How often the engine looked whether files changed, as our refresh.interval."""
    given = next((n for n in properties if words.is_sync_interval(n)), "")
    if not given:
        return ""
    text = str(properties[given]).strip()
    match = _TIME.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[(match[2] or "ms").lower()] if match else 0
    if 1 <= seconds <= MAX_SECONDS:
        notes.changed(
            f"spec.properties.{given}",
            "is refresh.interval: changed files make a new version, which new pods get; "
            "running pods keep theirs",
        )
        return format_duration(seconds)
    if text != "-1":  # -1 is "never", like ours
        notes.changed(
            f"spec.properties.{given}",
            "looking at the storage at each read has no equal; set refresh.interval",
        )
    return ""


def _pods(general: Mapping[str, Any], worker: Mapping[str, Any]) -> dict[str, Any]:
    own = as_map(worker.get("podMetadata"))
    found = {}
    for ours, theirs in (("podLabels", "labels"), ("podAnnotations", "annotations")):
        merged = {
            **as_map(general.get(theirs)), **as_map(worker.get(theirs)), **as_map(own.get(theirs)),
        }  # fmt: skip
        if merged:
            found[ours] = {str(key): str(value) for key, value in merged.items()}
    return found


def _tell_dropped(spec: Mapping[str, Any], worker: Mapping[str, Any], notes: Notes) -> None:
    properties = [
        str(name)
        for name in as_map(spec.get("properties"))
        if not words.is_storage_word(str(name)) and not words.is_sync_interval(str(name))
    ]
    if properties:
        notes.dropped("spec.properties", f"the other cache's own: {', '.join(properties)}")
    if spec.get("hadoopConfig"):
        notes.todo("spec.hadoopConfig", "what it says of the storage must go into options")
    for name, value in spec.items():
        if name in _HANDLED or name in ("properties", "hadoopConfig", "nodeSelector") or not value:
            continue
        notes.dropped(f"spec.{name}", _WHY.get(name, "no equal"))
    for name, value in worker.items():
        if name in _HANDLED_OF_WORKER or not value:
            continue
        notes.dropped(f"spec.worker.{name}", _OF_WORKER.get(name, "no equal"))

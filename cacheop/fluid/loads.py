"""A Fluid DataLoad as ours. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.fluid.shapes import as_map, as_maps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacheop.fluid.notes import Notes

_PODS = ("podMetadata", "affinity", "tolerations", "nodeSelector", "schedulerName", "resources")


def convert_load(spec: Mapping[str, Any], copies: int, notes: Notes) -> dict[str, Any]:
    """Our spec; `copies` is what the Dataset's runtime says (data.replicas)."""
    target = as_maps(spec.get("target"))
    found: dict[str, Any] = {"dataset": str(as_map(spec.get("dataset")).get("name") or "")}
    if target:
        found["target"] = [{"path": _path(item.get("path"))} for item in target]
    wanted = [_copies(item.get("replicas"), copies) for item in target] or [copies]
    if max(wanted) > 1:
        found["replicas"] = max(wanted)
    if len(set(wanted)) > 1:
        notes.changed(
            "spec.target",
            f"replicas is one number for a whole DataLoad, here {max(wanted)}; make several "
            "DataLoads for several numbers",
        )
    _when(spec, found, notes)
    if isinstance(spec.get("ttlSecondsAfterFinished"), int):
        found["ttlSecondsAfterFinished"] = spec["ttlSecondsAfterFinished"]
    _tell_dropped(spec, notes)
    return found


def _copies(given: Any, default: int) -> int:
    return given if isinstance(given, int) and given > 0 else default


def _path(path: Any) -> str:
    return "/" + "/".join(part for part in str(path or "").split("/") if part)


def _when(spec: Mapping[str, Any], found: dict[str, Any], notes: Notes) -> None:
    policy = spec.get("policy") or "Once"
    if policy == "Cron":
        found |= {"policy": "Cron", "schedule": str(spec.get("schedule") or "")}
        notes.changed("spec.schedule", "is in UTC")
    elif policy != "Once":
        notes.changed("spec.policy", f"{policy} has no equal; this loads once, when it is made")
    if spec.get("runAfter"):
        notes.changed("spec.runAfter", "has no equal: make the DataLoad when the other is done")


def _tell_dropped(spec: Mapping[str, Any], notes: Notes) -> None:
    if spec.get("loadMetadata"):
        notes.changed(
            "spec.loadMetadata",
            "a load takes the version that is there; for what is new at the storage set "
            "spec.refresh of the Dataset, or say `cacheop refresh` first",
        )
    if options := as_map(spec.get("options")):
        named = ", ".join(options)
        notes.dropped("spec.options", f"the other cache's own: {named}")
    given = [name for name in _PODS if spec.get(name)]
    if given:
        notes.dropped(f"spec.{given[0]}", f"no pod is made for a load ({', '.join(given)})")
    for name in spec:
        known = ("dataset", "target", "policy", "schedule", "runAfter", "loadMetadata", "options")
        if name not in (*known, *_PODS, "ttlSecondsAfterFinished") and spec[name]:
            notes.dropped(f"spec.{name}", "no equal")

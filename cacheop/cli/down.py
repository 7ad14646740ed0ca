"""`cacheop down`: stop what `up` started; the cache stays unless it is purged."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import CacheopError, UserError, WorkerUnavailable
from cacheop.cli import asking, launch, output, select, view
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from pathlib import Path

    from cacheop.local import NodeRecord, RunRecord


def stop(record: RunRecord) -> None:
    """Stop `record` when no other `up` or `down` is at work on it."""
    with local.locked(
        record.run_dir, record.namespace, record.name, wait_seconds=launch.STOP_SECONDS
    ):
        launch.stop(record)


def down(
    name: str, namespace: str, fmt: Format, *, node: str, everything: bool, purge: bool, yes: bool
) -> int:
    """Stop Datasets, or one node of one; the cache stays unless `purge`."""
    if everything and name:
        raise UserError("a NAME and --all cannot both be said")
    if everything and node:
        raise UserError("--node and --all cannot both be said")
    records = local.all_records()
    chosen = records if everything else [select.pick(records, name, namespace)]
    if everything and not chosen:
        raise WorkerUnavailable("no Dataset runs on this machine")
    if node:
        _check_not_last(chosen[0], asking.node_named(chosen[0], node))
    done = []
    for record in chosen:
        output.note(view.subject(record), fmt)
        if not os.access(record.run_dir, os.W_OK):
            raise UserError(
                f"Dataset {record.namespace}/{record.name} was brought up by another user",
                hint="Run `cacheop down` as that user or as root",
            )
        ending = [asking.node_named(record, node)] if node else list(record.nodes)
        done.append(_down(record, ending, fmt, whole=not node, purge=purge, yes=yes))
    if fmt is Format.JSON:
        output.print_json({"datasets": done} if everything else done[0])
    return 0


def _check_not_last(record: RunRecord, node: NodeRecord) -> None:
    others = [one for one in record.nodes if one is not node and local.is_alive(one)]
    if not others:
        raise UserError(
            f"{node.node} is the last node of {record.namespace}/{record.name} that runs",
            hint=f"`cacheop down {record.namespace}/{record.name}` stops the Dataset",
        )


def _down(
    record: RunRecord, ending: list[NodeRecord], fmt: Format, *, whole: bool, purge: bool, yes: bool
) -> dict[str, Any]:
    roots = [node.root for node in ending]
    if purge:
        output.confirm(f"delete the cache in {', '.join(map(str, roots))}", yes=yes)
    cached_bytes = _cached_bytes(replace(record, nodes=tuple(ending)))
    if whole:
        stop(record)
    else:
        _stop_node(record, ending[0])
    if purge:
        for root in roots:
            _purge(root)
    if fmt is Format.TEXT:
        kept = "deleted" if purge else "kept"
        size = "" if cached_bytes is None else f", {view.size(cached_bytes)}"
        which = "" if whole else f"{ending[0].node} of "
        print(f"stopped {which}{record.namespace}/{record.name}")
        for root in roots:
            print(f"cache {kept}: {root}{size if len(roots) == 1 else ''}")
    return _down_result(record, ending, cached_bytes, purged=purge)


def _stop_node(record: RunRecord, node: NodeRecord) -> None:
    with local.locked(
        record.run_dir, record.namespace, record.name, wait_seconds=launch.STOP_SECONDS
    ):
        # Another may have stopped or started nodes before we had the lock.
        found = local.find(record.namespace, record.name)
        if found is not None:
            launch.stop_node(found, asking.node_named(found, node.node))


def _down_result(
    record: RunRecord, ended: list[NodeRecord], cached_bytes: int | None, *, purged: bool
) -> dict[str, Any]:
    return {
        "dataset": record.name,
        "namespace": record.namespace,
        "stopped": [node.node for node in ended],
        "cache": [str(node.root) for node in ended],
        "cached_bytes": cached_bytes,
        "purged": purged,
    }


def _cached_bytes(record: RunRecord) -> int | None:
    """What the nodes hold together; None when one does not tell."""
    statuses = asking.statuses(record)
    if not all(status["running"] for status in statuses):
        return None
    return sum(status.get("cached_bytes") or 0 for status in statuses)


def _purge(root: Path) -> None:
    """Delete a Dataset's cache directory and the parents that are empty then."""
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheopError(f"cannot delete the cache {root}: {error.strerror}") from error
    with contextlib.suppress(OSError):  # another Dataset of the namespace is still there
        root.parent.rmdir()
        root.parent.parent.rmdir()

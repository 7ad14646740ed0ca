"""`cacheop down`: stop what `up` started; the cache stays unless it is purged."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import CacheopError, UserError, WorkerUnavailable
from cacheop.cli import launch, output, select, verbs, view
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from pathlib import Path

    from cacheop.local import RunRecord


def stop(record: RunRecord) -> None:
    """Stop `record` when no other `up` or `down` is at work on it."""
    with local.locked(
        record.run_dir, record.namespace, record.name, wait_seconds=launch.STOP_SECONDS
    ):
        launch.stop(record)


def down(
    name: str, namespace: str, fmt: Format, *, everything: bool, purge: bool, yes: bool
) -> int:
    """Stop Datasets; the cache stays unless `purge`."""
    if everything and name:
        raise UserError("a NAME and --all cannot both be said")
    records = local.all_records()
    chosen = records if everything else [select.pick(records, name, namespace)]
    if everything and not chosen:
        raise WorkerUnavailable("no Dataset runs on this machine")
    done = []
    for record in chosen:
        output.note(view.subject(record), fmt)
        if not os.access(record.run_dir, os.W_OK):
            raise UserError(
                f"Dataset {record.namespace}/{record.name} was brought up by another user",
                hint="Run `cacheop down` as that user or as root",
            )
        roots = [node.root for node in record.nodes]
        if purge:
            output.confirm(f"delete the cache in {', '.join(map(str, roots))}", yes=yes)
        cached_bytes = _cached_bytes(record)
        stop(record)
        if purge:
            for root in roots:
                _purge(root)
        done.append(_down_result(record, roots, cached_bytes, purged=purge))
        if fmt is Format.TEXT:
            kept = "deleted" if purge else "kept"
            size = "" if cached_bytes is None else f", {view.size(cached_bytes)}"
            print(f"stopped {record.namespace}/{record.name}")
            for root in roots:
                print(f"cache {kept}: {root}{size if len(roots) == 1 else ''}")
    if fmt is Format.JSON:
        output.print_json({"datasets": done} if everything else done[0])
    return 0


def _down_result(
    record: RunRecord, roots: list[Path], cached_bytes: int | None, *, purged: bool
) -> dict[str, Any]:
    return {
        "dataset": record.name,
        "namespace": record.namespace,
        "cache": [str(root) for root in roots],
        "cached_bytes": cached_bytes,
        "purged": purged,
    }


def _cached_bytes(record: RunRecord) -> int | None:
    """What the nodes hold together; None when one does not tell."""
    statuses = [verbs.node_status(node) for node in record.nodes]
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

"""`cacheop load`: every node fills its own share; what a node that dies leaves, the others load."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from cacheop.api.errors import CacheopError, UserError, WorkerUnavailable
from cacheop.cli import configs, output, progress, view
from cacheop.cli.asking import ask_each, choose, node_status, result
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cacheop.cli.asking import Answer
    from cacheop.local import NodeRecord, RunRecord

    Replicas = int | Literal["all"]

SILENCE_SECONDS = 60.0  # progress comes four times a second
SETTLE_SECONDS = 15.0
"""Within this a node that died is back, or the others have noticed (4 s of silence)."""
SETTLE_LOOK_SECONDS = 0.25
STATUS_SECONDS = 1.0
FAILURES_SHOWN = 10


def parse_replicas(text: str) -> Replicas:
    """A number of nodes, or `all`. UserError."""
    if text == "all":
        return "all"
    if text.isascii() and text.isdecimal() and 0 < int(text) <= 10_000:
        return int(text)
    raise UserError(f"--replicas {text!r} is neither a number of nodes nor all", hint="Like 2")


def load(
    name: str,
    namespace: str,
    paths: Sequence[str],
    version: str,
    replicas: Replicas,
    fmt: Format,
) -> int:
    """Fill the cache; exit code 1 when files failed."""
    record = choose(name, namespace, fmt, without=True)
    if isinstance(replicas, int) and replicas > len(record.nodes):
        raise UserError(
            f"--replicas {replicas} is more than the {view.count(len(record.nodes), 'node')} "
            f"of {record.namespace}/{record.name}",
            hint="Say --replicas all for every node",
        )
    asked = [bare for path in paths if (bare := path.strip("/"))]
    wanted: dict[str, Any] = {"paths": asked, "version": version}
    if len(record.nodes) > 1:
        wanted |= {"share": True, "replicas": replicas}
    answers = _load_and_mend(record, wanted, fmt)
    merged = progress.merge_loads(answers)
    if fmt is Format.JSON:
        output.print_json(result(record, answers) | merged)
    else:
        _tell(merged, answers, copies=_copies(record, replicas))
    return 0 if merged["phase"] == progress.COMPLETE else CacheopError.exit_code


def _copies(record: RunRecord, replicas: Replicas) -> int:
    """How often each part is loaded: `replicas` times in every failure domain."""
    if replicas == "all" or len(record.nodes) == 1:
        return len(record.nodes)
    told = configs.read(record)
    alike = told[0]["dataset"]["spec"].get("placement") == "Cluster"
    return replicas * (1 if alike else len({config.get("zone") for config in told}))


def _load_and_mend(record: RunRecord, wanted: Mapping[str, Any], fmt: Format) -> list[Answer]:
    """The reports of all nodes; once more from those that are left when a node was lost.

    What a node was to load belongs to others as soon as they know that it is gone. Asking them
    again costs nothing for what is there, and their reports then are about everything.
    """
    nodes: Sequence[NodeRecord] = record.nodes
    outcomes = _load_once(record, nodes, wanted, fmt)
    lost = _lost(nodes, outcomes)
    if lost:
        if len(lost) == len(nodes):
            raise next(o for o in outcomes if isinstance(o, WorkerUnavailable))
        output.note(f"lost {', '.join(n.node for n in lost)}: its share goes to the others", fmt)
        nodes = _settled(nodes, lost)
        outcomes = _load_once(record, nodes, wanted, fmt)
    return [
        {"node": node.node, "phase": progress.FAILED, "error": outcome.message}
        if isinstance(outcome, WorkerUnavailable)
        else outcome
        for node, outcome in zip(nodes, outcomes, strict=True)
    ]


def _load_once(
    record: RunRecord, nodes: Sequence[NodeRecord], wanted: Mapping[str, Any], fmt: Format
) -> list[Answer | WorkerUnavailable]:
    meter = output.Meter(f"Loading {record.name}", fmt)
    latest: list[dict[str, Any]] = [{} for _ in nodes]

    drawing = threading.Lock()  # a thread a node tells

    def tell(number: int, event: dict[str, Any]) -> None:
        with drawing:
            latest[number] = event
            merged = progress.merge_loads(latest)
            meter.show(merged, progress.load_words(merged))

    try:
        outcomes = ask_each(nodes, "load", on_event=tell, silence_seconds=SILENCE_SECONDS, **wanted)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, dict):
                tell(number, outcome)
    finally:
        meter.close()
    return outcomes


def _lost(
    nodes: Sequence[NodeRecord], outcomes: Sequence[Answer | WorkerUnavailable]
) -> list[NodeRecord]:
    return [
        node
        for node, outcome in zip(nodes, outcomes, strict=True)
        if isinstance(outcome, WorkerUnavailable)
    ]


def _settled(nodes: Sequence[NodeRecord], lost: Sequence[NodeRecord]) -> list[NodeRecord]:
    """Who is there once it is clear of each lost node whether it is back or the others miss it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    names = {node.node for node in lost}
    while True:
        statuses = [node_status(node, STATUS_SECONDS) for node in nodes]
        there = {s["node"]: s for s in statuses if s.get("phase") == "Ready"}
        believed = set().union(*map(view.live_members, there.values()))
        unclear = (names - set(there)) & believed
        if (there and not unclear) or time.monotonic() >= deadline:
            return [node for node in nodes if node.node in there] or list(nodes)
        time.sleep(SETTLE_LOOK_SECONDS)


def _tell(merged: Mapping[str, Any], answers: Sequence[Answer], copies: int) -> None:
    files, size = view.count(merged["files"], "file"), view.size(merged["bytes"])
    each = f" (each of {copies} copies counted)" if copies > 1 else ""
    print(f"loaded {files}, {size}{each}; {view.count(merged['failed_files'])} failed")
    for failure in merged["failed"][:FAILURES_SHOWN]:
        print(f"  {view.printable(str(failure['path']))}: {failure['error']}")
    if merged["failed_files"] > FAILURES_SHOWN:
        print(f"  … and {merged['failed_files'] - FAILURES_SHOWN:,} more")
    for answer in answers:
        if answer.get("error"):
            print(f"{answer['node']} was lost again, its share is not loaded: {answer['error']}")

"""`cacheop drain`: a node gives what only it has to the others, before it is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, UserError
from cacheop.cli import output, progress, view
from cacheop.cli.asking import ask_all, choose, node_named, only
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from cacheop.local import RunRecord

DRAINED = "Drained"
SILENCE_SECONDS = 60.0  # progress comes four times a second


def drain(name: str, namespace: str, node_name: str, seconds: float, fmt: Format) -> int:
    """Exit code 0 when everything was handed over, 1 when it was late."""
    record = choose(name, namespace, fmt, without=True)
    node = node_named(record, node_name)
    if len(record.nodes) == 1:
        raise UserError(
            f"{node.node} is the only node of {record.namespace}/{record.name} that runs: "
            "there is nobody to hand over to",
            hint="`cacheop down` stops it; the cache stays for the next `cacheop up`",
        )
    meter = output.Meter(f"Draining {node.node}", fmt)

    def tell(_: int, event: dict[str, Any]) -> None:
        latest.update(event)
        meter.show(latest, progress.drain_words(latest))

    latest: dict[str, Any] = {}
    try:
        answer = ask_all(
            only(record, node),
            "drain",
            on_event=tell,
            silence_seconds=SILENCE_SECONDS,
            seconds=seconds,
        )[0]
    finally:
        meter.close()
    whole = {"dataset": record.name, "namespace": record.namespace} | latest | answer
    if fmt is Format.JSON:
        output.print_json(whole)
    else:
        _tell(record, whole, seconds)
    return 0 if answer.get("phase") == DRAINED else CacheopError.exit_code


def _tell(record: RunRecord, whole: dict[str, Any], seconds: float) -> None:
    node, named = whole["node"], f"{record.namespace}/{record.name}"
    given = f"{view.count(whole.get('chunks') or 0, 'chunk')}, {view.size(whole.get('bytes') or 0)}"
    stop = f"`cacheop down {named} --node {node}` stops it"
    if whole.get("phase") == DRAINED:
        print(f"drained {node}: handed over {given}; the others have all that it had. {stop}")
    else:
        left = view.count(whole.get("left"), "chunk")
        print(
            f"late: {node} handed over {given} within {view.duration(seconds)}, {left} not. "
            f"Drain again; {stop} too, and what only it had comes from the origin again"
        )

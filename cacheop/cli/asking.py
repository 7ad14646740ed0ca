"""Asking the workers of one Dataset: which nodes, all at the same time, one answer each."""

from __future__ import annotations

import contextlib
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import NotFoundError, WorkerUnavailable
from cacheop.cli import launch, output, select, view
from cacheop.cli.control import ANSWER_SECONDS, Control

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cacheop.cli.output import Format
    from cacheop.local import NodeRecord, RunRecord

    Answer = dict[str, Any]
    OnEvent = Callable[[int, dict[str, Any]], None]

STATUS_SECONDS = 5.0


def choose(name: str, namespace: str, fmt: Format, *, without: bool = False) -> RunRecord:
    """The Dataset that NAME means, with the nodes that are not stopped; said aloud.

    WorkerUnavailable when a node that should run does not; `without`: when none does.
    """
    record = select.pick(local.all_records(), name, namespace)
    wanted = [node for node in record.nodes if not node.is_stopped]
    running = [node for node in wanted if local.is_alive(node)]
    dead = ", ".join(node.node for node in wanted if node not in running)
    if dead and not (without and running):
        raise WorkerUnavailable(
            f"Dataset {record.namespace}/{record.name}: {dead} not running",
            hint="`cacheop status` shows the log; `cacheop up` starts it again",
        )
    output.note(view.subject(record), fmt)
    stopped = ", ".join(node.node for node in record.nodes if node.is_stopped)
    if stopped:
        output.note(f"stopped, and not asked: {stopped}", fmt)
    if dead:
        output.note(f"not running, and not asked: {dead}", fmt)
    return replace(record, nodes=tuple(running))


def only(record: RunRecord, node: NodeRecord) -> RunRecord:
    """`record` as if it had this node alone."""
    return replace(record, nodes=(node,))


def node_named(record: RunRecord, name: str) -> NodeRecord:
    """A node of `record`. NotFoundError if it has none of that name."""
    for node in record.nodes:
        if node.node == name:
            return node
    known = ", ".join(node.node for node in record.nodes)
    raise NotFoundError(
        f"Dataset {record.namespace}/{record.name} has no node {name}", hint=f"It has {known}"
    )


def ask_each(
    nodes: Sequence[NodeRecord],
    op: str,
    *,
    on_event: OnEvent | None = None,
    silence_seconds: float = ANSWER_SECONDS,
    **meta: Any,
) -> list[Answer | WorkerUnavailable]:
    """Ask every node the same at the same time: its answer, or why there is none, in their order.

    One connection and one thread a node. Any other error is raised at once. On an error or when
    the user interrupts all connections are closed, which cancels the others at their workers and
    ends the threads.
    """
    with contextlib.ExitStack() as stack:
        controls: list[Control | WorkerUnavailable] = []
        for node in nodes:
            try:
                controls.append(stack.enter_context(Control(node.root)))
            except WorkerUnavailable as error:
                controls.append(error)

        def ask(number: int) -> Answer | WorkerUnavailable:
            def tell(event: dict[str, Any]) -> None:
                if on_event is not None:
                    on_event(number, event)

            control = controls[number]
            if isinstance(control, WorkerUnavailable):
                return control
            try:
                answer = control.ask(op, on_event=tell, silence_seconds=silence_seconds, **meta)
            except WorkerUnavailable as error:
                return error
            return {"node": nodes[number].node} | answer

        if len(nodes) < 2:
            return [ask(number) for number in range(len(nodes))]
        pool = ThreadPoolExecutor(len(nodes))
        # Called in this order: connections closed first, then the threads are waited for.
        stack.callback(pool.shutdown)
        for control in controls:
            if isinstance(control, Control):
                stack.callback(control.close)
        futures = [pool.submit(ask, number) for number in range(len(nodes))]
        for failed in wait(futures, return_when=FIRST_EXCEPTION).done:
            failed.result()
        return [future.result() for future in futures]


def ask_all(
    record: RunRecord,
    op: str,
    *,
    on_event: OnEvent | None = None,
    silence_seconds: float = ANSWER_SECONDS,
    **meta: Any,
) -> list[Answer]:
    """The answers of all nodes. WorkerUnavailable tells who did not answer, and who did it."""
    outcomes = ask_each(
        record.nodes, op, on_event=on_event, silence_seconds=silence_seconds, **meta
    )
    errors = {
        node.node: outcome
        for node, outcome in zip(record.nodes, outcomes, strict=True)
        if isinstance(outcome, WorkerUnavailable)
    }
    if not errors:
        return [outcome for outcome in outcomes if isinstance(outcome, dict)]
    first = next(iter(errors.values()))
    done = [node.node for node in record.nodes if node.node not in errors]
    if not done:
        raise first
    raise WorkerUnavailable(
        f"{op} was done on {', '.join(done)} but not on {', '.join(errors)}: {first.message}",
        hint="Say it again when all nodes run; `cacheop status` shows them",
    )


def result(record: RunRecord, nodes: Sequence[Answer]) -> Answer:
    """The JSON of a verb."""
    return {"dataset": record.name, "namespace": record.namespace, "nodes": list(nodes)}


def node_status(node: NodeRecord, silence_seconds: float = STATUS_SECONDS) -> Answer:
    """The protocol's status plus `running`; for a node that does not answer also why."""
    dead = {"node": node.node, "running": False, "phase": "NotRunning", "root": str(node.root)}
    if node.is_stopped:
        return dead | {"phase": "Stopped"}
    if not local.is_alive(node):
        return dead | {"log": launch.log_tail(node.config)}
    try:
        with Control(node.root) as control:
            return control.ask("status", silence_seconds=silence_seconds) | {"running": True}
    except WorkerUnavailable as error:
        return dead | {"log": [error.message, *launch.log_tail(node.config)]}


def statuses(record: RunRecord, silence_seconds: float = STATUS_SECONDS) -> list[Answer]:
    """Of all nodes, asked at the same time: a hanging one costs the others nothing."""
    if len(record.nodes) == 1:
        return [node_status(record.nodes[0], silence_seconds)]
    with ThreadPoolExecutor(len(record.nodes)) as pool:
        return list(pool.map(lambda node: node_status(node, silence_seconds), record.nodes))

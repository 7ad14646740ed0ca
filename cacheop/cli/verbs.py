"""The verbs that ask running workers: status, load, refresh, versions, evict, suspend, resume."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import CacheopError, NotFoundError, UserError, WorkerUnavailable
from cacheop.cli import launch, output, select, view
from cacheop.cli.control import Control
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacheop.local import NodeRecord, RunRecord

STATUS_SECONDS = 5.0
INDEX_SILENCE_SECONDS = 600.0  # an origin may think long about one page
LOAD_SILENCE_SECONDS = 600.0
FAILURES_SHOWN = 10


def choose(name: str, namespace: str, fmt: Format) -> RunRecord:
    """The Dataset that NAME means, said aloud; WorkerUnavailable if it does not run any more."""
    record = select.pick(local.all_records(), name, namespace)
    dead = [node.node for node in record.nodes if not local.is_alive(node)]
    if dead:
        raise WorkerUnavailable(
            f"Dataset {record.namespace}/{record.name}: {', '.join(dead)} not running",
            hint="`cacheop status` shows the log; `cacheop down`, then `up` starts it again",
        )
    output.note(view.subject(record), fmt)
    return record


def ask_all(
    record: RunRecord,
    op: str,
    *,
    on_event: Callable[[int, dict[str, Any]], None] | None = None,
    silence_seconds: float = 30.0,
    **meta: Any,
) -> list[dict[str, Any]]:
    """Ask every node the same at the same time; the answers in the order of the nodes.

    One connection and one thread a node. When one fails or the user interrupts, all connections are
    closed, which cancels the others at their workers and ends the threads.
    """
    with contextlib.ExitStack() as stack:
        controls = [stack.enter_context(Control(node.root)) for node in record.nodes]

        def ask(number: int) -> dict[str, Any]:
            def tell(event: dict[str, Any]) -> None:
                if on_event is not None:
                    on_event(number, event)

            answer = controls[number].ask(
                op, on_event=tell, silence_seconds=silence_seconds, **meta
            )
            return {"node": record.nodes[number].node} | answer

        if len(controls) == 1:
            return [ask(0)]
        pool = ThreadPoolExecutor(len(controls))
        # Called in this order: connections closed first, then the threads are waited for.
        stack.callback(pool.shutdown)
        for control in controls:
            stack.callback(control.close)
        futures = [pool.submit(ask, number) for number in range(len(controls))]
        return [future.result() for future in futures]


def result(record: RunRecord, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON of a verb."""
    return {"dataset": record.name, "namespace": record.namespace, "nodes": nodes}


def node_status(node: NodeRecord) -> dict[str, Any]:
    """The protocol's status plus `running`; for a node that does not answer also why."""
    dead = {"node": node.node, "running": False, "phase": "NotRunning", "root": str(node.root)}
    if not local.is_alive(node):
        return dead | {"log": launch.log_tail(node.config)}
    try:
        with Control(node.root) as control:
            return control.ask("status", silence_seconds=STATUS_SECONDS) | {"running": True}
    except WorkerUnavailable as error:
        return dead | {"log": [error.message, *launch.log_tail(node.config)]}


def status(name: str, namespace: str, fmt: Format, *, everything: bool) -> int:
    """Exit code 0, or 3 when a node does not run."""
    records = local.all_records()
    several = not name and len(records) > 1
    if several and fmt is Format.JSON and not everything:
        select.pick(records, name, namespace)  # raises: which one?
    if everything or several:
        summaries = [view.summary(r, [node_status(n) for n in r.nodes]) for r in records]
        if fmt is Format.JSON:
            output.print_json({"datasets": summaries})
        else:
            output.note(f"{view.count(len(records), 'Dataset')} on this machine")
            output.print_table(view.OVERVIEW_HEAD, [view.overview_row(s) for s in summaries])
    else:
        record = select.pick(records, name, namespace)
        summaries = [view.summary(record, [node_status(n) for n in record.nodes])]
        if fmt is Format.JSON:
            output.print_json(summaries[0])
        else:
            output.note(view.subject(record))
            show(summaries[0])
    alive = all(node["running"] for found in summaries for node in found["nodes"])
    return 0 if alive else WorkerUnavailable.exit_code


def show(dataset: dict[str, Any]) -> None:
    """The whole status of one Dataset for people."""
    nodes = dataset["nodes"]
    for line in (view.headline(dataset), *view.detail_lines(dataset)):
        print(view.printable(line))
    print()
    output.print_table(view.NODE_HEAD, [view.node_row(node) for node in nodes])
    for line in view.condition_lines(nodes):
        print(view.printable(line))
    for node in nodes:
        if node.get("log"):
            print(f"\n{node['node']} is not running. The end of its log:")
            print("\n".join(f"  {view.printable(line)}" for line in node["log"]))


def load(name: str, namespace: str, paths: list[str], version: str, fmt: Format) -> int:
    """Fill the cache; exit code 1 when files failed."""
    record = choose(name, namespace, fmt)
    meter = output.LoadMeter(f"Loading {record.name}", fmt)
    latest: list[dict[str, Any]] = [{} for _ in record.nodes]

    def tell(number: int, event: dict[str, Any]) -> None:
        latest[number] = event  # one writer an entry; a torn picture of progress does no harm
        meter.show(view.merge_loads(latest))

    try:
        answers = ask_all(
            record,
            "load",
            on_event=tell,
            silence_seconds=LOAD_SILENCE_SECONDS,
            paths=[path.strip("/") for path in paths if path.strip("/")],
            version=version,
        )
        meter.show(view.merge_loads(answers))
    finally:
        meter.close()
    failed = [failure for answer in answers for failure in answer.get("failed") or ()]
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
    else:
        merged = view.merge_loads(answers)
        files = view.count(merged["files"], "file")
        print(f"loaded {files}, {view.size(merged['bytes'])}; {len(failed)} failed")
        for failure in failed[:FAILURES_SHOWN]:
            print(f"  {view.printable(str(failure['path']))}: {failure['error']}")
        if len(failed) > FAILURES_SHOWN:
            print(f"  … and {len(failed) - FAILURES_SHOWN} more")
    incomplete = failed or any(a.get("phase") in {"Failed", "Cancelled"} for a in answers)
    return CacheopError.exit_code if incomplete else 0


def refresh(name: str, namespace: str, fmt: Format) -> int:
    """List the origin again."""
    record = choose(name, namespace, fmt)
    line = output.Line(fmt)
    try:
        answers = ask_all(
            record,
            "refresh",
            on_event=lambda _, event: line.show(view.indexing_line(record.name, event)),
            silence_seconds=INDEX_SILENCE_SECONDS,
        )
    finally:
        line.close()
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
        return 0
    for answer in answers:
        news = "a new version" if answer.get("changed") else "unchanged"
        files, size = view.count(answer.get("files"), "file"), view.size(answer.get("bytes"))
        print(f"{answer['node']}: version {answer.get('version')}, {news}: {files}, {size}")
    for left_out in view.skipped_lines(answers[0].get("skipped")):
        print(left_out)
    return 0


def versions(name: str, namespace: str, fmt: Format) -> int:
    """List the kept versions."""
    record = choose(name, namespace, fmt)
    answers = ask_all(record, "versions")
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
        return 0
    many = len(answers) > 1
    head = ("NODE", *view.VERSION_HEAD) if many else view.VERSION_HEAD
    rows = [
        ((answer["node"],) if many else ()) + view.version_row(version)
        for answer in answers
        for version in answer["versions"]
    ]
    output.print_table(head, rows)
    return 0


def evict(
    name: str, namespace: str, paths: list[str], version: str, fmt: Format, *, yes: bool
) -> int:
    """Throw cached bytes away; the origin keeps them."""
    if paths and version:
        raise UserError(
            "--path and --version cannot both be said", hint="Evict one, then the other"
        )
    record = choose(name, namespace, fmt)
    what = f"version {version}" if version else ", ".join(paths) or "everything"
    output.confirm(
        f"throw away what is cached of {what} in {record.namespace}/{record.name}", yes=yes
    )
    meta: dict[str, Any] = {"version": version} if version else {}
    answers = ask_all(
        record,
        "evict",
        silence_seconds=LOAD_SILENCE_SECONDS,
        paths=[path.strip("/") for path in paths if path.strip("/")],
        **meta,
    )
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
        return 0
    files = view.count(sum(a.get("files") or 0 for a in answers), "file")
    print(f"evicted {files}, {view.size(sum(a.get('bytes') or 0 for a in answers))}")
    for answer in answers:
        if answer.get("pinned_files"):
            pinned = view.count(answer["pinned_files"], "file")
            print(f"kept {pinned}: {view.printable(str(answer.get('why') or 'pinned'))}")
    return 0


def set_suspended(name: str, namespace: str, fmt: Format, *, suspended: bool) -> int:
    """Stop or allow reading from the origin."""
    record = choose(name, namespace, fmt)
    answers = ask_all(record, "suspend" if suspended else "resume")
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
    elif suspended:
        print("suspended: cached reads go on, others fail with EBUSY until `cacheop resume`")
    else:
        print("resumed")
    return 0


def nothing_found(path: str, record: RunRecord) -> NotFoundError:
    """The error for a path that a Dataset does not have."""
    return NotFoundError(
        f"no {path!r} in Dataset {record.namespace}/{record.name}",
        hint="`cacheop ls` shows what is there",
    )

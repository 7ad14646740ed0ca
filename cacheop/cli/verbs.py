"""The verbs that ask running workers: status, refresh, versions, evict, suspend, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import NotFoundError, UserError, WorkerUnavailable
from cacheop.cli import output, select, view
from cacheop.cli.asking import ask_all, choose, only, result, statuses
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cacheop.local import RunRecord

INDEX_SILENCE_SECONDS = 600.0  # an origin may think long about one page
EVICT_SILENCE_SECONDS = 600.0


def status(name: str, namespace: str, fmt: Format, *, everything: bool) -> int:
    """Exit code 0, or 3 when a node does not run."""
    records = local.all_records()
    several = not name and len(records) > 1
    if several and fmt is Format.JSON and not everything:
        select.pick(records, name, namespace)  # raises: which one?
    if everything or several:
        summaries = [view.summary(r, statuses(r)) for r in records]
        if fmt is Format.JSON:
            output.print_json({"datasets": summaries})
        else:
            output.note(f"{view.count(len(records), 'Dataset')} on this machine")
            output.print_table(view.OVERVIEW_HEAD, [view.overview_row(s) for s in summaries])
    else:
        record = select.pick(records, name, namespace)
        summaries = [view.summary(record, statuses(record))]
        if fmt is Format.JSON:
            output.print_json(summaries[0])
        else:
            output.note(view.subject(record))
            show(summaries[0])
    alive = all(view.is_as_wanted(node) for found in summaries for node in found["nodes"])
    return 0 if alive else WorkerUnavailable.exit_code


def show(dataset: dict[str, Any]) -> None:
    """The whole status of one Dataset for people."""
    nodes = dataset["nodes"]
    for line in (view.headline(dataset), *view.detail_lines(dataset)):
        print(view.printable(line))
    print()
    output.print_table(view.NODE_HEAD, [view.node_row(node) for node in nodes])
    if any(node.get("members") for node in nodes):
        print()
        output.print_table(view.MEMBER_HEAD, [view.member_row(node, nodes) for node in nodes])
    for line in (*view.unseen_lines(nodes), *view.condition_lines(nodes)):
        print(view.printable(line))
    for node in nodes:
        if node.get("log"):
            print(f"\n{node['node']} is not running. The end of its log:")
            print("\n".join(f"  {view.printable(line)}" for line in node["log"]))


def refresh(name: str, namespace: str, fmt: Format) -> int:
    """List the origin again: one node is asked, which lets the one that lists for all do it."""
    record = choose(name, namespace, fmt, without=True)
    line = output.Line(fmt)
    try:
        answer = ask_all(
            only(record, record.nodes[0]),
            "refresh",
            on_event=lambda _, event: line.show(view.indexing_line(record.name, event)),
            silence_seconds=INDEX_SILENCE_SECONDS,
        )[0]
    finally:
        line.close()
    if fmt is Format.JSON:
        output.print_json(result(record, [answer]))
        return 0
    news = "a new version" if answer.get("changed") else "unchanged"
    files, size = view.count(answer.get("files"), "file"), view.size(answer.get("bytes"))
    print(f"version {answer.get('version')}, {news}: {files}, {size}")
    for left_out in view.skipped_lines(answer.get("skipped")):
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
    meta = evict_meta(paths, version)
    record = choose(name, namespace, fmt)
    output.confirm(
        f"throw away what is cached of {evicted_of(paths, version)} in "
        f"{record.namespace}/{record.name}",
        yes=yes,
    )
    answers = ask_all(record, "evict", silence_seconds=EVICT_SILENCE_SECONDS, **meta)
    if fmt is Format.JSON:
        output.print_json(result(record, answers))
    else:
        tell_evicted(answers)
    return 0


def evict_meta(paths: Sequence[str], version: str) -> dict[str, Any]:
    """What workers are asked for. UserError."""
    if paths and version:
        raise UserError(
            "--path and --version cannot both be said", hint="Evict one, then the other"
        )
    bare = [path.strip("/") for path in paths if path.strip("/")]
    return {"paths": bare} | ({"version": version} if version else {})


def evicted_of(paths: Sequence[str], version: str) -> str:
    """What is thrown away, in words."""
    return f"version {version}" if version else ", ".join(paths) or "everything"


def tell_evicted(answers: Sequence[Mapping[str, Any]]) -> None:
    """What the workers did."""
    files = view.count(sum(a.get("files") or 0 for a in answers), "file")
    print(f"evicted {files}, {view.size(sum(a.get('bytes') or 0 for a in answers))}")
    for answer in answers:
        if answer.get("pinned_files"):
            pinned = view.count(answer["pinned_files"], "file")
            print(f"kept {pinned}: {view.printable(str(answer.get('why') or 'pinned'))}")


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

"""status, load and refresh against a cluster: its Datasets and DataLoads are read and written."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from cacheop.api.errors import CacheopError, NotFoundError, UserError, WorkerUnavailable
from cacheop.api.names import API_VERSION
from cacheop.cli import output, progress
from cacheop.cli import view as words
from cacheop.cli.kube import view
from cacheop.cli.kube.access import DATALOADS, DATASETS, Cluster, path_of
from cacheop.cli.output import Format
from cacheop.cli.select import parse_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cacheop.cli.kube.place import Choice
    from cacheop.cli.loading import Replicas

LOOK_SECONDS = 1.0
SILENCE_SECONDS = 600.0
"""An origin may think long about one page; a load may wait for its turn."""
LOAD_KEPT_SECONDS = 3600
FAILURES_SHOWN = 10


def status(choice: Choice, name: str, fmt: Format, *, everything: bool) -> int:
    """Exit code 0, or 3 when one is not Ready."""
    cluster = Cluster(choice)
    if name:
        found = [pick(cluster, name)]
    else:
        namespace = "" if everything and not choice.namespace else cluster.namespace
        found = [_summary(cluster, item) for item in _list(cluster, namespace)]
        if not found and not everything:
            raise NotFoundError(
                f"no Dataset in namespace {namespace} of {cluster}",
                hint="-n names another namespace, --all shows those of all",
            )
    if everything or len(found) != 1:
        if fmt is Format.JSON:
            output.print_json({"cluster": cluster.name, "datasets": found})
        else:
            output.note(f"{words.count(len(found), 'Dataset')} in {cluster}")
            output.print_table(view.OVERVIEW_HEAD, [view.overview_row(one) for one in found])
    elif fmt is Format.JSON:
        output.print_json(found[0])
    else:
        output.note(view.subject(found[0]))
        show(found[0])
    ready = all(one["phase"] == view.READY for one in found)
    return 0 if ready else WorkerUnavailable.exit_code


def show(found: dict[str, Any]) -> None:
    """The whole status of one Dataset for people."""
    for line in (view.headline(found), *view.detail_lines(found)):
        print(words.printable(line))
    for head, rows in (
        (view.CONDITION_HEAD, view.condition_rows(found)),
        (view.NODE_HEAD, view.node_rows(found)),
    ):
        if rows:
            print()
            output.print_table(head, rows)
    print("\nTo run a pod near its data, in the pod's spec:")
    print(yaml.safe_dump({"affinity": found["affinity"]}, sort_keys=False), end="")


def pick(cluster: Cluster, name: str) -> dict[str, Any]:
    """The summary of the Dataset that NAME means; empty = the only one of the namespace."""
    return _summary(cluster, document(cluster, name))


def document(cluster: Cluster, name: str) -> dict[str, Any]:
    """The Dataset that NAME means. NotFoundError, UserError."""
    if name:
        inside, bare = parse_name(name, cluster.asked_namespace)
        return cluster.get(path_of(DATASETS, inside or cluster.namespace, bare))
    found = _list(cluster, cluster.namespace)
    if len(found) == 1:
        return found[0]
    where = f"in namespace {cluster.namespace} of {cluster}"
    if not found:
        raise NotFoundError(f"no Dataset {where}", hint="-n names another namespace")
    named = ", ".join(item["metadata"]["name"] for item in found)
    raise UserError(f"several Datasets {where}: {named}", hint="Name one of them")


def _list(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get(path_of(DATASETS, namespace))["items"]
    return found


def _summary(cluster: Cluster, item: dict[str, Any]) -> dict[str, Any]:
    return view.summary(item, cluster.name, cluster.server)


def refresh(choice: Choice, name: str, fmt: Format) -> int:
    """Ask for a new listing and wait until the operator says that it was made."""
    cluster = Cluster(choice)
    before = pick(cluster, name)
    output.note(view.subject(before), fmt)
    wanted = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    path = path_of(DATASETS, before["namespace"], before["dataset"])
    cluster.merge(path, {"spec": {"refresh": {"requestedAt": wanted}}})
    line = output.Line(fmt)
    try:
        answer = _refreshed(cluster, path, wanted, before, line) if before["workers"] else None
    finally:
        line.close()
    facts = {key: before[key] for key in ("cluster", "dataset", "namespace")}
    if answer is None:
        output.note("no worker runs now: it is done when one does", fmt)
        answer = before
    changed = answer["version"] != before["version"]
    done = answer is not before
    if fmt is Format.JSON:
        version = {"version": answer["version"], "changed": changed, "done": done}
        output.print_json(facts | {"requested_at": wanted} | version)
    elif done:
        news = "a new version" if changed else "unchanged"
        files, size = words.count(answer["file_count"], "file"), words.size(answer["bytes_total"])
        print(f"version {answer['version']}, {news}: {files}, {size}")
    return 0


def _refreshed(
    cluster: Cluster, path: str, wanted: str, before: dict[str, Any], line: output.Line
) -> dict[str, Any]:
    began = time.monotonic()
    while time.monotonic() - began < SILENCE_SECONDS:
        item = cluster.get(path)
        if (item.get("status") or {}).get("refreshedAt") == wanted:
            return _summary(cluster, item)
        waited = words.duration(time.monotonic() - began)
        line.show(f"{before['dataset']}: listing the origin since {waited}")
        time.sleep(LOOK_SECONDS)
    raise WorkerUnavailable(
        f"Dataset {before['namespace']}/{before['dataset']} was not listed again in "
        f"{words.duration(SILENCE_SECONDS)}",
        hint="It is still asked for; `cacheop status` shows the conditions",
    )


def load(
    choice: Choice,
    name: str,
    paths: Sequence[str],
    version: str,
    replicas: Replicas,
    fmt: Format,
) -> int:
    """Make a DataLoad and follow it; ^C cancels it. Exit code 1 when it did not end Complete."""
    cluster = Cluster(choice)
    of = pick(cluster, name)
    output.note(view.subject(of), fmt)
    made = cluster.create(
        path_of(DATALOADS, of["namespace"]),
        data_load(of["dataset"], of["namespace"], paths, version, replicas),
    )
    output.note(f"DataLoad {made['metadata']['name']}", fmt)
    path = path_of(DATALOADS, of["namespace"], made["metadata"]["name"])
    try:
        event = _follow(cluster, path, f"Loading {of['dataset']}", fmt)
    except KeyboardInterrupt:
        cluster.merge(path, {"spec": {"cancel": True}})
        raise
    if fmt is Format.JSON:
        facts = {key: of[key] for key in ("cluster", "dataset", "namespace")}
        output.print_json(facts | {"dataload": made["metadata"]["name"]} | event)
    else:
        _tell(event)
    return 0 if event["phase"] == progress.COMPLETE else CacheopError.exit_code


def data_load(
    dataset: str, namespace: str, paths: Sequence[str], version: str, replicas: Replicas
) -> dict[str, Any]:
    """The document of a load that is named by the API server and goes by itself. Pure."""
    spec: dict[str, Any] = {"dataset": dataset, "ttlSecondsAfterFinished": LOAD_KEPT_SECONDS}
    if paths:
        spec["target"] = [{"path": "/" + path.strip("/")} for path in paths]
    if version:
        spec["version"] = version
    if replicas != 1:
        spec["replicas"] = replicas
    # The name is a DNS label, and five characters come to it.
    metadata = {"generateName": f"{dataset[:50]}-load-", "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "DataLoad", "metadata": metadata, "spec": spec}


def _follow(cluster: Cluster, path: str, title: str, fmt: Format) -> dict[str, Any]:
    """Until it has ended. WorkerUnavailable when nothing changes for long."""
    meter = output.Meter(title, fmt)
    last, changed_at = view.load_event({}), time.monotonic()
    try:
        while time.monotonic() - changed_at < SILENCE_SECONDS:
            event = view.load_event(cluster.get(path).get("status") or {})
            if event != last:
                last, changed_at = event, time.monotonic()
            meter.show(event, view.load_words(event))
            if event["phase"] in view.ENDED:
                return event
            time.sleep(LOOK_SECONDS)
    finally:
        meter.close()
    raise WorkerUnavailable(
        f"the load says nothing new since {words.duration(SILENCE_SECONDS)}",
        hint="It goes on; `kubectl describe dataload` shows why it waits",
    )


def _tell(event: dict[str, Any]) -> None:
    files, size = words.count(event["files"], "file"), words.size(event["bytes"])
    print(f"{event['phase'].lower()}: loaded {files}, {size}; {len(event['failed'])} failed")
    for failure in event["failed"][:FAILURES_SHOWN]:
        print(f"  {words.printable(str(failure['path']))}: {failure.get('error', '')}")
    for condition in event["conditions"]:
        if condition.get("status") == "False" and condition.get("message"):
            print(words.printable(f"{condition['type']}: {condition['message']}"))

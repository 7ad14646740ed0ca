"""`cacheop up`: a Dataset file becomes processes on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import CacheopError, UserError, WorkerUnavailable
from cacheop.cli import asking, checks, configs, launch, output, redis_probe, traces, view
from cacheop.cli import cluster as clusters
from cacheop.cli.down import stop
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from cacheop.api.dataset import Dataset
    from cacheop.cli.cluster import Cluster
    from cacheop.cli.files import Documents
    from cacheop.cli.redis_url import RedisUrl
    from cacheop.local import RunRecord

ENV_CACHE_DIR = "CACHEOP_CACHE_DIR"
FOREGROUND_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What was said on the command line of `up`."""

    files: tuple[Path, ...]
    nodes: int = 1
    zones: int = 1
    redis: RedisUrl | None = None
    cache: Path | None = None
    mount: Path | None = None
    mount_mode: str = ""
    """Empty = the Dataset's own."""
    listen: str = ""
    http: str = "127.0.0.1:0"
    foreground: bool = False
    timeout_seconds: float = 60.0


def cache_dir(options: Options) -> Path:
    """Where caches go when the Dataset does not say."""
    if options.cache is not None:
        return options.cache.absolute()
    named = os.environ.get(ENV_CACHE_DIR)
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/cacheop")
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "cacheop"


def mount_point(options: Options) -> Path | None:
    """Where to mount, as the kernel names it. At the directory itself may be a dead mount, which
    must not be looked into, so only its parents are resolved.
    """
    if options.mount is None:
        return None
    path = Path(os.path.abspath(options.mount))
    return path.parent.resolve() / path.name


def cluster_of(options: Options) -> Cluster | None:
    """What the nodes are to each other; None: there is one, alone."""
    return clusters.of(options.nodes, options.zones, options.redis)


def up(options: Options, fmt: Format) -> int:
    """Bring up every Dataset of the files; stays when `foreground`."""
    from cacheop.cli import files

    documents = files.load(options.files)
    for said in documents.notes:
        output.note(f"note: {said}", fmt)
    _check_options(documents, options)
    checks.worker_libraries()
    # SIGTERM as ^C: whatever `up` is at, it takes back what it began.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    umask = os.umask(launch.SHARED_UMASK)
    records: list[RunRecord] = []
    try:
        shown = []
        for dataset in documents.datasets:
            record, statuses = _up_one(dataset, documents, options, fmt)
            records.append(record)
            shown.append(view.summary(record, statuses))
            if fmt is Format.TEXT:
                print("\n".join(map(view.printable, view.detail_lines(shown[-1]))), flush=True)
        if fmt is Format.JSON:
            output.print_json(shown[0] if len(shown) == 1 else {"datasets": shown})
        if options.foreground:
            _stay(records, fmt)
    except KeyboardInterrupt:
        if not options.foreground or not records:
            raise
    finally:
        os.umask(umask)
        if options.foreground:
            _stop_all(records, fmt)
        else:
            signal.signal(signal.SIGTERM, before)
    return 0


def _check_options(documents: Documents, options: Options) -> None:
    if options.mount:
        checks.may_mount()
    elif options.mount_mode:
        raise UserError("--mount-mode without --mount", hint="Say where with --mount DIR")
    if options.zones > options.nodes:
        raise UserError(
            f"--zones {options.zones} is more than --nodes {options.nodes}",
            hint="A zone without a node has no sense; start more nodes, or leave --zones out",
        )
    datasets = documents.datasets
    named = ", ".join(str(path) for path in options.files)
    if not datasets and documents.dataloads:
        load = documents.dataloads[0].spec
        paths = "".join(f" --path {target.path}" for target in load.target if target.path != "/")
        raise UserError(
            f"no Dataset in {named}, only a DataLoad",
            hint="`up` takes the file of the Dataset; when that is up, load with "
            f"`cacheop load {load.dataset}{paths}`",
        )
    if not datasets:
        raise UserError(f"no Dataset in {named}", hint="A document needs `kind: Dataset`")
    keys = [(d.namespace, d.name) for d in datasets]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"Dataset {key[0]}/{key[1]} is twice in {named}", hint="Keep one")
    ports = [
        checks.address(option, text)[1]
        for option, text in (("--http", options.http), ("--listen", options.listen))
        if text
    ]
    if len(datasets) > 1 and (options.mount or any(ports)):
        raise UserError(
            "--mount and fixed ports are for one Dataset, the files have several",
            hint="Bring them up one by one",
        )


def _up_one(
    dataset: Dataset, documents: Documents, options: Options, fmt: Format
) -> tuple[RunRecord, list[dict[str, Any]]]:
    run_dir = local.make_run_dir()
    with local.locked(run_dir, dataset.namespace, dataset.name):
        record = local.find(dataset.namespace, dataset.name)
        if record is not None and any(local.is_alive(node) for node in record.nodes):
            _check_same(record, dataset, options)
            output.note(f"{view.subject(record)}: already up", fmt)
            record = _revive(record, options, fmt)
            return record, asking.statuses(record)
        if record is not None:
            launch.stop(record)  # what a crash left behind
        return _start(dataset, documents, options, fmt, run_dir)


def _revive(record: RunRecord, options: Options, fmt: Format) -> RunRecord:
    """Start the nodes again whose launcher was killed; the others go on."""
    started = {
        node.node: launch.start(node.node, node.root, node.config)
        for node in record.nodes
        if not local.is_alive(node)
    }
    if not started:
        return record
    output.note(f"starting again: {', '.join(started)}", fmt)
    record = record.with_nodes({name: one.record for name, one in started.items()})
    local.write(record)
    _wait_all(record, list(started.values()), options, fmt)
    return record


def _check_same(record: RunRecord, dataset: Dataset, options: Options) -> None:
    """What runs is what was asked for, else UserError."""
    from cacheop.api.dataset import parse_dataset

    running = configs.read(record)
    mount = str(mount_point(options) or "")
    mode = next((m.get("mode", "") for m in running[0]["mounts"]), "")
    roots = tuple(node.root for node in record.nodes)
    wanted = configs.node_roots(cache_dir(options), dataset.namespace, dataset.name, options.nodes)
    other_zones, other_redis = clusters.differences(cluster_of(options), running)
    different = [
        what
        for what, same in (
            ("spec", parse_dataset(running[0]["dataset"]) == dataset),
            ("--mount", mount == record.mount),
            ("--mount-mode", mode == options.mount_mode),
            ("--nodes or --cache", wanted == roots),
            ("--zones", wanted != roots or not other_zones),
            ("--redis", not other_redis),
        )
        if not same
    ]
    if different:
        raise UserError(
            f"Dataset {dataset.namespace}/{dataset.name} is already up with another "
            f"{', '.join(different)}",
            hint=f"`cacheop down {dataset.namespace}/{dataset.name}` first; the cache stays",
        )


def _start(
    dataset: Dataset, documents: Documents, options: Options, fmt: Format, run_dir: Path
) -> tuple[RunRecord, list[dict[str, Any]]]:
    from cacheop import secrets as secret_files

    namespace, name = dataset.namespace, dataset.name
    roots = configs.node_roots(cache_dir(options), namespace, name, options.nodes)
    mount = mount_point(options)
    secret_files.resolve(dataset, documents.secrets, os.environ)
    checks.tiers(dataset)
    if options.redis is not None:
        redis_probe.check(options.redis, clusters.acl_user(namespace, name))
    with traces.removed_on_failure(roots, mount):
        checks.cache_directories(roots, dataset)
        for k, root in enumerate(roots):
            checks.free(root)
            checks.port("--http", configs.node_address("--http", options.http, k))
            checks.port("--listen", configs.node_address("--listen", options.listen, k))
        if mount is not None:
            checks.mount(mount, roots)
        return _launch(dataset, documents, options, fmt, run_dir)


def _launch(
    dataset: Dataset, documents: Documents, options: Options, fmt: Format, run_dir: Path
) -> tuple[RunRecord, list[dict[str, Any]]]:
    """Everything was looked at: start the nodes and wait for them."""
    namespace, name = dataset.namespace, dataset.name
    roots = configs.node_roots(cache_dir(options), namespace, name, options.nodes)
    record = local.RunRecord(
        namespace=namespace,
        name=name,
        file=_file_of(dataset, options.files),
        nodes=(),
        mount=str(mount_point(options) or ""),
        started=time.time(),
        run_dir=run_dir,
    )
    started: list[launch.Started] = []
    try:
        written = configs.write(record, dataset, documents, options, roots, cluster_of(options))
        for k, (root, config) in enumerate(zip(roots, written, strict=True)):
            started.append(launch.start(clusters.node_name(k), root, config))
            record = _with_nodes(record, started)
            local.write(record)
        output.note(view.subject(record), fmt)
        return record, _wait_all(record, started, options, fmt)
    except BaseException as error:
        # Nothing half-started stays, whatever went wrong, ^C too.
        if isinstance(error, WorkerUnavailable):
            _tell_logs(started, fmt)  # the worker could not say itself what is wrong
        launch.stop(record)
        raise


def _tell_logs(started: list[launch.Started], fmt: Format) -> None:
    for node in started:
        for line in launch.log_tail(node.record.config):
            output.note(f"  {node.record.node}: {view.printable(line)}", fmt)


def _file_of(dataset: Dataset, paths: tuple[Path, ...]) -> str:
    """Which of the files has the Dataset; empty when it came by standard input."""
    from cacheop.cli import files

    named = [path for path in paths if path != files.STDIN]
    if len(paths) > 1:
        named = [path for path in named if dataset in files.load([path]).datasets]
    return str(named[0].absolute()) if named else ""


def _with_nodes(record: RunRecord, started: list[launch.Started]) -> RunRecord:
    return replace(record, nodes=tuple(node.record for node in started))


def _wait_all(
    record: RunRecord, started: list[launch.Started], options: Options, fmt: Format
) -> list[dict[str, Any]]:
    line = output.Line(fmt)

    def show(indexing: dict[str, Any] | None) -> None:
        line.show(view.indexing_line(record.name, indexing))

    try:
        statuses = launch.wait_ready(started, options.timeout_seconds, show)
    finally:
        line.close()
    return [status | {"running": True} for status in statuses]


def _stay(records: list[RunRecord], fmt: Format) -> None:
    """Until KeyboardInterrupt; CacheopError when a launcher ends by itself."""
    output.note("Running until ^C or SIGTERM.", fmt)
    sys.stdout.flush()
    while True:
        time.sleep(FOREGROUND_LOOK_SECONDS)
        for record in records:
            dead = [n for n in record.nodes if not local.is_alive(n)]
            if dead:
                last = (launch.log_tail(dead[0].config) or ["it wrote nothing"])[-1]
                raise CacheopError(f"the launcher of {dead[0].node} ended: {last}")


def _stop_all(records: list[RunRecord], fmt: Format) -> None:
    """Take everything down; a second ^C does not leave half of it."""
    wanted = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        for record in records:
            output.note(f"Stopping {record.namespace}/{record.name}.", fmt)
            stop(record)
    finally:
        for number in wanted:  # those that came meanwhile have what they wanted
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)

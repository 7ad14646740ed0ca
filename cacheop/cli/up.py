"""`cacheop up`: a Dataset file becomes processes on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api.errors import CacheopError, UserError, WorkerUnavailable
from cacheop.api.tokens import client_token
from cacheop.cli import checks, launch, output, traces, verbs, view
from cacheop.cli.down import stop
from cacheop.cli.output import Format

if TYPE_CHECKING:
    from cacheop.api.dataset import Dataset
    from cacheop.cli.files import Documents
    from cacheop.local import RunRecord

ENV_CACHE_DIR = "CACHEOP_CACHE_DIR"
LOCAL_UID = "local"
FOREGROUND_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What was said on the command line of `up`."""

    files: tuple[Path, ...]
    nodes: int = 1
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


def node_roots(cache: Path, namespace: str, name: str, nodes: int) -> tuple[Path, ...]:
    """The cache directory of each node; pure."""
    below = Path(namespace, name, LOCAL_UID)
    if nodes == 1:
        return (cache / below,)
    return tuple(cache / f"node-{k}" / below for k in range(nodes))


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
            return record, [verbs.node_status(node) for node in record.nodes]
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
    nodes = tuple(started[n.node].record if n.node in started else n for n in record.nodes)
    record = replace(record, nodes=nodes)
    local.write(record)
    _wait_all(record, list(started.values()), options, fmt)
    return record


def _check_same(record: RunRecord, dataset: Dataset, options: Options) -> None:
    """What runs is what was asked for, else UserError."""
    from cacheop.api.dataset import parse_dataset

    config = json.loads(record.nodes[0].config.read_text())
    mount = str(mount_point(options) or "")
    mode = next((m.get("mode", "") for m in config["mounts"]), "")
    roots = tuple(node.root for node in record.nodes)
    wanted = node_roots(cache_dir(options), dataset.namespace, dataset.name, options.nodes)
    different = [
        what
        for what, same in (
            ("spec", parse_dataset(config["dataset"]) == dataset),
            ("--mount", mount == record.mount),
            ("--mount-mode", mode == options.mount_mode),
            ("--nodes or --cache", wanted == roots),
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
    roots = node_roots(cache_dir(options), namespace, name, options.nodes)
    mount = mount_point(options)
    secret_files.resolve(dataset, documents.secrets, os.environ)
    checks.tiers(dataset)
    with traces.removed_on_failure(roots, mount):
        checks.cache_directories(roots, dataset)
        for k, root in enumerate(roots):
            checks.free(root)
            checks.port("--http", _node_address("--http", options.http, k))
            checks.port("--listen", _node_address("--listen", options.listen, k))
        if mount is not None:
            checks.mount(mount, roots)
        return _launch(dataset, documents, options, fmt, run_dir)


def _launch(
    dataset: Dataset, documents: Documents, options: Options, fmt: Format, run_dir: Path
) -> tuple[RunRecord, list[dict[str, Any]]]:
    """Everything was looked at: start the nodes and wait for them."""
    namespace, name = dataset.namespace, dataset.name
    roots = node_roots(cache_dir(options), namespace, name, options.nodes)
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
        configs = _write_configs(record, dataset, documents, options, roots)
        for k, (root, config) in enumerate(zip(roots, configs, strict=True)):
            started.append(launch.start(f"node-{k}", root, config))
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


def _write_configs(
    record: RunRecord,
    dataset: Dataset,
    documents: Documents,
    options: Options,
    roots: tuple[Path, ...],
) -> list[Path]:
    """The private directory of the Dataset: secrets, token, one config a node."""
    from cacheop import secrets as secret_files
    from cacheop.api.dataset import to_document

    directory = record.directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    secret_files.write_secrets(dataset, documents.secrets, directory / "secrets")
    token_file = ""
    if options.listen:
        token, token_file = secrets.token_hex(32), str(directory / "token")
        local.replace_file(Path(token_file), token + "\n", mode=0o600)
        local.replace_file(record.client_token, client_token(token) + "\n", mode=0o600)
    mounts = [{"target": record.mount, "mode": options.mount_mode}] if record.mount else []
    configs = []
    for k, root in enumerate(roots):
        config = {
            "dataset": to_document(dataset),
            "namespace": record.namespace,
            "name": record.name,
            "uid": LOCAL_UID,
            "node": f"node-{k}",
            "root": str(root),
            "secrets": str(directory / "secrets"),
            "http": _node_address("--http", options.http, k),
            "tcp": _node_address("--listen", options.listen, k),
            "token_file": token_file,
            "mounts": mounts if k == 0 else [],
        }
        path = directory / f"node-{k}.json"
        local.replace_file(path, json.dumps(config, indent=1) + "\n", mode=0o600)
        configs.append(path)
    return configs


def _node_address(option: str, text: str, node: int) -> str:
    """A fixed port is node 0's, the others take the following ones."""
    if not text:
        return ""
    host, port = checks.address(option, text)
    return f"{host}:{port + node if port else 0}"


def _wait_all(
    record: RunRecord, started: list[launch.Started], options: Options, fmt: Format
) -> list[dict[str, Any]]:
    line = output.Line(fmt)
    try:
        return [
            launch.wait_ready(
                node,
                options.timeout_seconds,
                lambda status: line.show(view.indexing_line(record.name, status.get("indexing"))),
            )
            | {"running": True}
            for node in started
        ]
    finally:
        line.close()


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

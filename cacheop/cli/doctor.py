"""`cacheop doctor`: what this machine lacks, what that costs, what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from cacheop import local
from cacheop.api import names
from cacheop.api.errors import CacheopError, UserError
from cacheop.cli import asking, mount_modes, output, probes, up, view
from cacheop.cli.output import Format
from cacheop.cli.probes import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from cacheop.api.dataset import Dataset, Mount
    from cacheop.cli.files import Documents

ORIGIN_SECONDS = 20.0
WHOLE_PERCENT = 100.0


def doctor(files: tuple[Path, ...], cache: Path | None, fmt: Format) -> int:
    """Print the findings; exit code 1 when one is a FAIL."""
    output.note("This machine" + (f", {', '.join(map(str, files))}" if files else ""), fmt)
    directory = up.cache_dir(up.Options(files=files, cache=cache))
    return report(_look(files, directory), fmt)


def report(found: Iterable[Finding], fmt: Format) -> int:
    """Print findings as they come; exit code 1 when one is a FAIL."""
    findings: list[Finding] = []
    for finding in found:
        findings.append(finding)
        if fmt is Format.TEXT:
            _print(finding)
    failed = any(finding.level == FAIL for finding in findings)
    if fmt is Format.JSON:
        checks = [finding.as_dict() for finding in findings]
        output.print_json({"ok": not failed, "checks": checks})
    return CacheopError.exit_code if failed else 0


def _print(finding: Finding) -> None:
    level = f"{finding.level:<4}"
    if output.is_terminal(sys.stdout):
        import typer

        colour = output.style_of(finding.level)
        level = typer.style(level, fg=colour, bold=True) if output.has_colour() else level
    print(f"{level}  {finding.what}: {view.printable(finding.found)}", flush=True)
    if finding.costs:
        print(f"      {finding.costs}")
    if finding.todo:
        print(f"      -> {finding.todo}")


def _look(files: tuple[Path, ...], directory: Path) -> Iterator[Finding]:
    yield probes.versions()
    yield probes.libraries()
    yield probes.kernel()
    yield probes.fuse_device()
    yield probes.user()
    yield probes.jemalloc()
    yield run_directory()
    existing = probes.existing_parent(directory)
    yield probes.writable(directory, existing)
    yield probes.file_system(existing)
    yield probes.free_space(existing)
    yield probes.disk_speed(existing)
    yield probes.modes(probes.machine(existing))
    yield from _running()
    if files:
        yield from _datasets(files)


def run_directory() -> Finding:
    """Whether records can be kept, and what runs."""
    what = "run directory"
    path = local.own_run_dir()
    if not os.access(probes.existing_parent(path), os.W_OK):
        found = f"{path} cannot be made or written"
        todo = f"Set {names.ENV_RUN_DIR} to a directory you can write"
        return Finding(FAIL, what, found, "`cacheop up` cannot start", todo)
    try:
        records = local.all_records()
    except UserError as error:
        return Finding(FAIL, what, error.message, "`cacheop up` cannot start", error.hint)
    dead = [r for r in records if not all(local.is_alive(n) for n in r.nodes)]
    if dead:
        named = ", ".join(f"{r.namespace}/{r.name}" for r in dead)
        return Finding(
            WARN,
            what,
            f"{path}; not running any more: {named}",
            "reads of what is not cached fail",
            f"cacheop status {dead[0].name} shows the log, cacheop down {dead[0].name} cleans up",
        )
    return Finding(OK, what, f"{path}, {view.count(len(records), 'Dataset')} running")


def _running() -> Iterator[Finding]:
    """The mounts that are there, and what Auto would take for what is not mounted."""
    try:
        records = local.all_records()
    except UserError:
        return  # said by run_directory
    for record in records:
        for node in record.nodes[:1]:  # the one that is mounted
            status = asking.node_status(node)
            if status["running"]:
                yield from mount_findings(record.name, status, probes.machine(node.root))


def mount_findings(
    name: str, status: Mapping[str, Any], machine: mount_modes.Machine
) -> list[Finding]:
    """What a running Dataset's mounts are, or would be. Pure."""
    mounts = status.get("mounts") or ()
    if mounts:
        return [
            Finding(OK, f"{name}: mount", f"{mount['target']}, mode {view.mode_text(mount)}")
            for mount in mounts
        ]
    if mount_modes.lacking("Native", machine) or not status.get("version"):
        return []
    complete = status.get("cached_percentage") == WHOLE_PERCENT
    total_bytes, files = status.get("bytes_total") or 0, status.get("file_count") or 0
    mode, why = mount_modes.automatic(machine, total_bytes, files, complete=complete)
    return [Finding(OK, f"{name}: mount", f"none; Auto would take {mode}: {why}")]


def _datasets(files: tuple[Path, ...]) -> Iterator[Finding]:
    from cacheop.cli import files as yaml_files

    try:
        documents = yaml_files.load(files)
    except CacheopError as error:
        yield Finding(FAIL, "Dataset file", error.message, "`cacheop up` refuses it", error.hint)
        return
    for dataset in documents.datasets:
        yield from _dataset(dataset, documents)


def _dataset(dataset: Dataset, documents: Documents) -> Iterator[Finding]:
    from cacheop import secrets

    what = f"{dataset.name}: credentials"
    try:
        resolved = secrets.resolve(dataset, documents.secrets, os.environ)
    except CacheopError as error:
        yield Finding(FAIL, what, error.message, "the origin cannot be read", error.hint)
        return
    wanted = view.count(sum(len(m.encrypt_options) for m in dataset.spec.mounts), "option")
    found = f"{wanted} from Secrets, all there" if resolved else "no Secret is named"
    yield Finding(OK, what, found)
    for mount in dataset.spec.mounts:
        given = {
            o.name: resolved[o.secret_name, o.secret_key].decode() for o in mount.encrypt_options
        }
        yield _origin(dataset, mount, given)


def _origin(dataset: Dataset, mount: Mount, given: dict[str, str]) -> Finding:
    """List one key in a process of its own: a hanging library must not hang us.

    Secrets go by stdin: what is on a command line every user can see.
    """
    what = f"{dataset.name}: origin"
    costs = "`cacheop up` cannot list it; what is cached already can still be read"
    request: dict[str, Any] = {
        "url": mount.mount_point,
        "options": {k: v for k, v in mount.options.items() if k != "engine"} | given,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cacheop.cli.origin_probe"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=ORIGIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"{mount.mount_point} did not answer in {ORIGIN_SECONDS:.0f} s"
        return Finding(FAIL, what, found, costs, "Look at endpoint, network and proxies")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        found = f"{mount.mount_point}: the probe died: {' '.join(last)}"
        return Finding(FAIL, what, found, costs, "Is the fsspec library of this scheme installed?")
    if "error" in answer:
        found = f"{mount.mount_point}: {answer['error']}"
        return Finding(FAIL, what, found, costs, answer["todo"])
    if not answer["keys"]:
        found = f"{mount.mount_point} answers, but holds nothing"
        return Finding(FAIL, what, found, "`cacheop up` refuses an empty prefix", "Mend mountPoint")
    return Finding(OK, what, f"{mount.mount_point} answers in {answer['seconds']:.2f} s")

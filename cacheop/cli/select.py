"""Which Dataset a NAME on the command line means. The decision is pure over the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheop.api.errors import NotFoundError, UserError, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cacheop.local import RunRecord

SCHEME = "cacheop://"
START = "Start one with `cacheop up -f dataset.yaml`"


def parse_name(text: str, namespace: str = "") -> tuple[str, str]:
    """(namespace or "", name) of `name`, `namespace/name`, `name.namespace`, `cacheop://name`.

    Raises UserError when `namespace` (from -n) says something else.
    """
    bare = text.removeprefix(SCHEME).strip("/")
    if "/" in bare:
        inside, _, name = bare.partition("/")
    else:
        name, _, inside = bare.partition(".")
    if not name or "/" in name or "." in name + inside:
        raise UserError(
            f"{text!r} is not the name of a Dataset",
            hint="Write name, namespace/name or name.namespace",
        )
    if inside and namespace and inside != namespace:
        raise UserError(f"{text!r} is in namespace {inside}, but -n says {namespace}")
    return inside or namespace, name


def pick(records: Sequence[RunRecord], text: str, namespace: str = "") -> RunRecord:
    """The one record that `text` means; empty `text` = the only one.

    Raises WorkerUnavailable when nothing runs, NotFoundError when this one does not, UserError when
    it is not clear which.
    """
    if not text:
        found = [r for r in records if namespace in {"", r.namespace}]
    else:
        inside, name = parse_name(text, namespace)
        found = [r for r in records if r.name == name and inside in {"", r.namespace}]
    if len(found) == 1:
        return found[0]
    if not records:
        raise WorkerUnavailable("no Dataset runs on this machine", hint=START)
    running = ", ".join(f"{r.namespace}/{r.name}" for r in (found or records))
    if found:
        raise UserError(f"several Datasets run here: {running}", hint="Name one of them")
    what = f"Dataset {text}" if text else f"no Dataset in namespace {namespace}"
    raise NotFoundError(
        f"{what} does not run on this machine" if text else f"{what} runs on this machine",
        hint=f"Here runs {running}",
    )


def pick_path(
    records: Sequence[RunRecord], text: str, namespace: str = ""
) -> tuple[RunRecord, str, str]:
    """(record, version or "", path) of `[NAME[@VERSION]][/PATH]`, as `ls` takes it.

    `/PATH` alone means the only Dataset. `a/b` is path b of Dataset a when one of that name runs
    here, else Dataset b of namespace a.
    """
    bare = text.removeprefix(SCHEME)
    if not bare or bare.startswith("/"):
        return pick(records, "", namespace), "", bare.strip("/")
    head, _, path = bare.partition("/")
    name, _, version = head.partition("@")
    inside, plain = parse_name(name, namespace)
    if any(r.name == plain and inside in {"", r.namespace} for r in records):
        return pick(records, name, namespace), version, path.strip("/")
    second, _, rest = path.partition("/")
    other, _, version = second.partition("@")
    if any(r.name == other and r.namespace == plain for r in records):
        return pick(records, f"{plain}/{other}", namespace), version, rest.strip("/")
    return pick(records, name, namespace), version, path

"""Values of `encryptOptions` on one machine: from `kind: Secret` documents, else the environment.

The worker gets them as files <directory>/<secret>/<key>, as the kubelet would mount them.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cacheop.api.document import DEFAULT_NAMESPACE, LABEL
from cacheop.api.errors import CredentialError, UserError
from cacheop.api.model import JSON, Kind, Limits, Problem
from cacheop.api.names import ENV_SECRET_PREFIX
from cacheop.api.parse import BAD, called, nearest, read
from cacheop.api.scheduling import DNS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cacheop.api.dataset import Dataset

_ANY_TEXT = Kind("text", Limits(max_length=1 << 20))
_TEXTS = Kind("map", Limits(max_items=1024), item=_ANY_TEXT)


@dataclass(frozen=True, slots=True)
class Secret:
    """A `kind: Secret` document."""

    namespace: str
    name: str
    values: Mapping[str, bytes] = field(repr=False)
    """Never shown, never logged."""


def read_secret(document: Mapping[str, JSON]) -> tuple[Secret | None, tuple[Problem, ...]]:
    """The Secret and no problem, or None and all problems; none of them tells a value."""
    problems: list[Problem] = []
    head = document.get("metadata")
    if not isinstance(head, Mapping) or head.get("name") is None:
        return None, (Problem(("metadata", "name"), "is missing"),)
    name = read(Kind("text", DNS_NAME), head["name"], ("metadata", "name"), problems)
    given = head.get("namespace")
    namespace = DEFAULT_NAMESPACE if given is None else given
    namespace = read(Kind("text", LABEL), namespace, ("metadata", "namespace"), problems)
    values: dict[str, bytes] = {}
    for key, text in _texts(document, "data", problems):
        try:
            values[key] = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            help_ = "is not base64; a plain value belongs in stringData"
            problems.append(Problem(("data", key), help_))
    for key, text in _texts(document, "stringData", problems):
        values[key] = text.encode()
    if problems or BAD in (name, namespace):
        return None, tuple(problems)
    return Secret(namespace, name, values), ()


def variable(secret: str, key: str) -> str:
    """The environment variable that stands in for `key` of `secret`."""
    word = f"{secret}_{key}".upper().replace("-", "_").replace(".", "_")
    return ENV_SECRET_PREFIX + word


def resolve(
    dataset: Dataset, secrets: Iterable[Secret], environ: Mapping[str, str]
) -> dict[tuple[str, str], bytes]:
    """(secret, key) -> value for every encryptOption. Raises CredentialError naming all missing."""
    ours = {s.name: s for s in secrets if s.namespace == dataset.namespace}
    elsewhere = {s.name: s.namespace for s in secrets if s.namespace != dataset.namespace}
    found: dict[tuple[str, str], bytes] = {}
    missing: dict[tuple[str, str], str] = {}
    for mount in dataset.spec.mounts:
        for option in mount.encrypt_options:
            at = (option.secret_name, option.secret_key)
            values = ours[at[0]].values if at[0] in ours else {}
            if at[1] in values:
                found[at] = values[at[1]]
            elif environ.get(variable(*at)):
                found[at] = os.fsencode(environ[variable(*at)])
            else:
                missing[at] = _why(at, ours, elsewhere)
    if missing:
        raise _missing(dataset, missing)
    return found


def write_secrets(
    dataset: Dataset,
    secrets: Iterable[Secret],
    directory: Path,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Put what `dataset` needs below `directory` (0700, files 0600), each file whole or not at all.

    Raises CredentialError when a value is missing; then nothing was written. Raises UserError when
    the directory cannot be written.
    """
    values = resolve(dataset, list(secrets), environ)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for (secret, key), value in values.items():
            below = directory / secret
            below.mkdir(mode=0o700, exist_ok=True)
            _replace(below / key, value)
    except OSError as error:
        raise UserError(
            f"cannot write the secrets of Dataset {dataset.name} below {directory}:"
            f" {error.strerror}"
        ) from error


def _replace(path: Path, value: bytes) -> None:
    # A name of our own that no key has, as keys begin with no two dots.
    scratch = path.with_name(f"..{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _texts(
    document: Mapping[str, Any], name: str, problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    raw = document.get(name)
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        problems.append(Problem((name,), f"expected a map, found {called(raw)}"))
        return
    for key, text in raw.items():
        # Not parse.read: its messages show the value.
        if isinstance(key, str) and isinstance(text, str):
            yield key, text
        else:
            problems.append(Problem((name, str(key)), "expected text; put it in quotes"))


def _why(at: tuple[str, str], ours: Mapping[str, Secret], elsewhere: Mapping[str, str]) -> str:
    secret, key = at
    if secret in ours:
        return f'Secret "{secret}" has no key "{key}"{nearest(key, ours[secret].values)}'
    if secret in elsewhere:
        return f'Secret "{secret}" is in namespace {elsewhere[secret]}, not in the Dataset\'s'
    return f'no Secret "{secret}" with key "{key}"{nearest(secret, ours)}'


def _missing(dataset: Dataset, missing: Mapping[tuple[str, str], str]) -> CredentialError:
    variables = ", ".join(variable(*at) for at in missing)
    return CredentialError(
        f"Dataset {dataset.namespace}/{dataset.name}: {'; '.join(missing.values())}",
        hint=f"Give a file with the `kind: Secret` document (-f secret.yaml), or set {variables}",
    )

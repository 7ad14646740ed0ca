"""YAML files to Datasets, DataLoads and Secrets; every problem with its file and line."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cacheop.api.dataload import DataLoad, read_dataload
from cacheop.api.dataset import Dataset, read_dataset
from cacheop.api.errors import SpecError, UserError
from cacheop.api.names import API_GROUP
from cacheop.api.parse import called, nearest
from cacheop.secrets import Secret, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cacheop.api.model import Path as FieldPath
    from cacheop.api.model import Problem

    Reader = Callable[[Any], tuple[object | None, tuple[Problem, ...]]]

FILE_MAX_BYTES = 4 << 20
PROBLEMS_SHOWN = 20
STDIN = Path("-")
_READERS: Mapping[str, Reader] = {
    "Dataset": read_dataset,
    "DataLoad": read_dataload,
    "Secret": read_secret,
}


@dataclass(frozen=True, slots=True)
class Documents:
    """What the files say, in their order."""

    datasets: tuple[Dataset, ...]
    dataloads: tuple[DataLoad, ...]
    secrets: tuple[Secret, ...]
    notes: tuple[str, ...]
    """What was left out and why, for the user."""


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: a time stays text, a key that is there twice is a mistake."""

    def compose_document(self) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_document()
        if node is not None:
            _refuse_twice(node)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(paths: Iterable[Path]) -> Documents:
    """Everything in the files; a directory means its *.yaml and *.yml, `-` standard input.

    Raises SpecError with every problem of every file, UserError when a file cannot be read.
    """
    found: list[object] = []
    notes: list[str] = []
    problems: list[str] = []
    for path in _files(paths):
        for node, document in documents(path):
            item, said = _read(path, node, document, notes)
            problems += said
            found.append(item)
    if problems:
        raise _error(problems)
    return Documents(
        datasets=tuple(item for item in found if isinstance(item, Dataset)),
        dataloads=tuple(item for item in found if isinstance(item, DataLoad)),
        secrets=tuple(item for item in found if isinstance(item, Secret)),
        notes=tuple(notes),
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path == STDIN or not path.is_dir():
            yield path
            continue
        below = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
        if not below:
            raise UserError(f"no *.yaml file in directory {path}")
        yield from below


def documents(path: Path) -> Iterator[tuple[yaml.Node, Any]]:
    """(node tree, value) of each document of a file that is not empty. Raises SpecError."""
    text = _text(path)
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{_shown(path)}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"{_shown(path)}: not YAML: {reason}") from error
    except (RecursionError, ValueError) as error:
        raise SpecError(f"{_shown(path)}: not YAML that means anything: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _text(path: Path) -> str:
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(FILE_MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(FILE_MAX_BYTES + 1)
        if len(data) > FILE_MAX_BYTES:
            raise UserError(f"{_shown(path)} is larger than 4 MiB", hint="Is it the right file?")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(path)} is not text in UTF-8: {error.reason}") from error
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {_shown(path)}: {error.strerror}") from error


def _read(
    path: Path, node: yaml.Node, document: Any, notes: list[str]
) -> tuple[object | None, list[str]]:
    """(what the document is or None, its problems); what is not ours goes to `notes`."""
    start = f"{_shown(path)}:{node.start_mark.line + 1}"
    if document is None:
        return None, []
    if not isinstance(document, Mapping):
        return None, [f"{start}: expected a document with `kind`, found {called(document)}"]
    kind = document.get("kind")
    ours = str(document.get("apiVersion", "")).startswith(API_GROUP)
    if isinstance(kind, str) and kind in _READERS:
        item, problems = _READERS[kind](document)
        return item, [f"{_shown(path)}:{_line(node, p.path)}: {p}" for p in problems]
    if not isinstance(kind, str):
        return None, [f"{start}: kind: is missing; expected one of {', '.join(_READERS)}"]
    help_ = nearest(kind, _READERS)
    if ours or help_:
        return None, [f'{start}: kind: unknown kind "{kind}"{help_}']
    notes.append(f"{start}: {kind} is nothing that cacheop uses here; left out")
    return None, []


def _line(node: yaml.Node, path: FieldPath) -> int:
    """The line of the field at `path`, or of what is nearest around it when it is not there."""
    line: int = node.start_mark.line + 1
    for part in path:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, inner = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inner = node.value[part]
            line = inner.start_mark.line + 1
        if inner is None:
            break
        node = inner
    return line


def _refuse_twice(root: yaml.Node) -> None:
    """Raise for a key that a map has twice: YAML would silently take the last."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[Hashable] = set()
            for key, value in node.value:
                waiting.append(value)
                name = key.value if isinstance(key.value, str) else None
                if name is not None and name != "<<" and name in keys:
                    problem = f'"{name}" is there twice'
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                keys.add(name)


def _shown(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def _error(problems: list[str]) -> SpecError:
    if len(problems) == 1:
        return SpecError(problems[0])
    lines = problems[:PROBLEMS_SHOWN]
    if len(problems) > len(lines):
        lines.append(f"… and {len(problems) - len(lines)} more")
    return SpecError("\n  ".join([f"{len(problems)} problems", *lines]))

"""`cacheop convert`: Fluid's YAML to ours, with a note for all that has no equal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from cacheop.api.errors import CacheopError, UserError
from cacheop.cli import files, output, view
from cacheop.cli.output import Format
from cacheop.fluid.convert import GROUP, convert
from cacheop.fluid.notes import Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cacheop.fluid.convert import Conversion
    from cacheop.fluid.notes import Note

_TITLES = {Level.TODO: "TODO", Level.CHANGED: "changed", Level.DROPPED: "dropped"}


def run(paths: Sequence[Path], target: Path | None, fmt: Format) -> int:
    """Exit code 1 when something is left to do by hand."""
    documents = [document for path in paths for _, document in files.documents(path)]
    found = convert(documents)
    if not found.documents and not found.notes:
        raise UserError(
            f"nothing of {GROUP} in {', '.join(map(str, paths))}",
            hint="Give the file with Fluid's Dataset, its runtime and DataLoads",
        )
    if fmt is Format.JSON:
        output.print_json(as_json(found))
    else:
        for note in sorted(found.all_notes, key=lambda n: list(Level).index(n.level)):
            output.note(view.printable(f"{_TITLES[note.level]}: {note.document}: {note}"))
    text = as_yaml(found)
    if target is not None:
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror}") from error
        output.note(f"{view.count(len(found.documents), 'document')} in {target}", fmt)
    elif fmt is Format.TEXT:
        print(text, end="")
    left = [note for note in found.all_notes if note.level is Level.TODO]
    return CacheopError.exit_code if left else 0


def as_yaml(found: Conversion) -> str:
    """Documents for `kubectl apply -f -`, each below its notes as comments."""
    parts = [_comments((), found.notes)] if found.notes else []
    parts += [
        _comments(made.sources, made.notes)
        + yaml.safe_dump(made.document, sort_keys=False, width=100, allow_unicode=True)
        for made in found.documents
    ]
    return "---\n".join(parts)


def as_json(found: Conversion) -> dict[str, Any]:
    """The same for programs."""
    return {
        "documents": [made.document for made in found.documents],
        "notes": [
            {"level": n.level.value, "document": n.document, "field": n.where, "text": n.text}
            for n in found.all_notes
        ],
    }


def _comments(sources: Iterable[str], notes: Sequence[Note]) -> str:
    named = tuple(sources)
    lines = [f"From Fluid's {', '.join(named)}."] if named else ["Not converted:"]
    several = len({note.document for note in notes}) > 1 or not named
    for note in sorted(notes, key=lambda n: list(Level).index(n.level)):
        about = f"{note.document}: " if several else ""
        lines.append(f"{_TITLES[note.level]}: {about}{note}")
    return "".join(f"# {json.dumps(line)[1:-1] if _odd(line) else line}\n" for line in lines)


def _odd(line: str) -> bool:
    """Whether a line would end its comment."""
    return not line.isprintable()

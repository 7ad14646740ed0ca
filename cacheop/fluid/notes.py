"""What a person must know of a conversion: what to do, what changed, what is gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """How much a note matters."""

    TODO = "todo"
    """Nothing works before this is done by hand."""
    CHANGED = "changed"
    """The same end by other means, or with another effect."""
    DROPPED = "dropped"
    """No equal, and none is needed."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing about one document of the input."""

    level: Level
    document: str
    """`Dataset vision/imagenet`."""
    where: str
    """The field, as Fluid names it; "" is the whole document."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(slots=True)
class Notes:
    """Gathers what is said of one document."""

    document: str
    said: list[Note] = field(default_factory=list)

    def todo(self, where: str, text: str) -> None:
        """It does not work before somebody does this."""
        self._say(Level.TODO, where, text)

    def changed(self, where: str, text: str) -> None:
        """It works otherwise than before."""
        self._say(Level.CHANGED, where, text)

    def dropped(self, where: str, text: str) -> None:
        """It has no equal."""
        self._say(Level.DROPPED, where, text)

    def _say(self, level: Level, where: str, text: str) -> None:
        note = Note(level, self.document, where, text)
        if note not in self.said:
            self.said.append(note)

"""What both kinds of members have in common: our own facts, the view, and who is told of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from cache_worker.cluster.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache_worker.cluster.view import Member


class Membership(ABC):
    """view.Members. Used on one loop only."""

    def __init__(self, me: Member, others: Iterable[Member] = ()) -> None:
        self.me = me
        """What others are to know of us, with `joined`: the answer to their `hello`."""
        self._others = tuple(others)
        self._changed: Callable[[View], None] = _nobody
        self.view = next_view(View(me.node, ()), me, self._others)

    def announce(self, me: Member) -> None:
        """What others are to know of us from now on; `joined` is ours to set, not the caller's."""
        self._set_me(replace(me, joined=self.me.joined))

    @abstractmethod
    async def run(self, changed: Callable[[View], None]) -> None:
        """Keep `view` fresh until cancelled; call `changed` with each new one."""

    def _set_me(self, me: Member) -> None:
        self.me = me
        self._see(self._others)

    def _see(self, others: Iterable[Member]) -> None:
        self._others = tuple(others)
        view = next_view(self.view, self.me, self._others)
        if view is not self.view:
            self.view = view
            self._changed(view)


def next_view(last: View, me: Member, others: Iterable[Member]) -> View:
    """The view of these members; `last` itself if it is no other one."""
    found = {member.node: member for member in others} | {me.node: me}
    members = tuple(sorted(found.values()))
    if members == last.members:
        return last
    return View(last.me, members, last.epoch + 1)


def joined_after(others: Iterable[Member]) -> int:
    """A value of `joined` later than that of all these."""
    return 1 + max((member.joined for member in others), default=0)


def _nobody(view: View) -> None:
    del view

"""The mount process: `python -m cache_worker mount CONFIG --mount M --lane K --fuse F --ring R --ids I`.

Started by the supervisor, which holds dups of the fds. M is the mount as the holder describes it
(docs/protocol.md). When this process dies, the next one of the lane answers what it had in hand
(ring.py). It exits with 0 when the mount is gone.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from cache_worker.mounts import kernel
from cache_worker.mounts.channel import Channel
from cache_worker.mounts.fuse import FuseMount
from cache_worker.mounts.line import Line
from cache_worker.mounts.opens import PlainOpens, ZeroOpens
from cache_worker.mounts.ring import LANES_MAX, Ring
from cache_worker.mounts.stored import StoredVersion
from cache_worker.mounts.tree import Tree
from cacheop.api import names
from cacheop.api.errors import CacheopError, StoreError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.mounts.kernel import Init
    from cache_worker.mounts.opens import Opens
    from cache_worker.mounts.ring import Request

POLL_SECONDS = 0.2
ENV_MASK_INIT = "CACHEOP_MASK_INIT"
"""Numbers of INIT bits to do without although the kernel offers them: what older kernels are like."""


class Server:
    """One lane of one mount."""

    def __init__(
        self, root: str, mount: dict[str, Any], lane: int, fds: dict[str, int], mask: int = 0
    ) -> None:
        self._root = root
        self._described = mount
        self._lane = lane
        self._fds = fds
        self._mask = mask
        self._ring = Ring(fds["ring"])
        self._channel = Channel(fds["fuse"], self._ring.lane(lane))
        self._grace_seconds = float(mount["grace_seconds"])
        self._taken_over = self._ring.agreed() is not None
        self._stored: StoredVersion | None = None
        self._opens: Opens | None = None
        self._counted: list[int] = []
        self._line = Line(
            f"{root}/{names.WORKER_SOCKET}",
            str(mount["version"]),
            grace_seconds=self._grace_seconds,
            ticked=self._tick,
            report=report,
        )

    def run(self) -> None:
        """Serve until the mount is gone."""
        self._line.start()
        self._channel.lane.lock()
        stored = self._open_version()
        agreed = self._agree() if stored is not None else None
        if stored is None or agreed is None:
            return
        opens = self._choose(agreed, stored)
        others = [self._ring.lane(k) for k in range(LANES_MAX) if k != self._lane]
        mount = FuseMount(self._channel, Tree(stored.index), stored, self._line, opens, others)
        if self._taken_over:
            self._take_over(agreed, mount, opens)
        self._stored, self._opens = stored, opens  # from here on there are ticks
        mount.serve()

    def _open_version(self) -> StoredVersion | None:
        """The files of the version, once they are here; None: unmounted.

        Until then requests stay with the kernel, where a killed reader can leave; after the grace
        time they get EIO, and still the version is waited for.
        """
        from pathlib import Path

        deadline = time.monotonic() + self._grace_seconds
        said = ""
        while True:
            try:
                return StoredVersion(Path(self._root), str(self._described["version"]), report)
            except StoreError as error:
                if str(error) != said:
                    said = str(error)
                    report(said)
            if time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            elif self._channel.waits(POLL_SECONDS) and not self._refuse():
                return None

    def _refuse(self) -> bool:
        """Answer the request that waits with EIO (INIT properly); False: unmounted."""
        request = self._channel.receive()
        if request is None:
            return False
        if request.op == kernel.INIT:
            self._answer_init(request)
        elif request.op not in kernel.NO_ANSWER and request.op != kernel.INTERRUPT:
            self._channel.fail(request, errno.EIO)
        return True

    def _agree(self) -> Init | None:
        """What was agreed with the kernel, by us, a predecessor or another lane; None: unmounted."""
        while (agreed := self._ring.agreed()) is None:
            if not self._channel.waits(POLL_SECONDS):
                continue
            request = self._channel.receive()
            if request is None:
                return None
            if request.op == kernel.INIT:
                self._answer_init(request)
        return agreed

    def _answer_init(self, request: Request) -> None:
        """Settle the protocol with the kernel; what was agreed is noted before the kernel knows."""
        major, offer = kernel.parse_init(request.body)
        if major != kernel.MAJOR or offer.minor < kernel.MINOR_LEAST:
            self._channel.fail(request, errno.EPROTO)
            return
        agreed = self._ring.agreed()
        if agreed is None:
            wanted = kernel.WANTED | _WANTED.get(str(self._described["mode"]), 0)
            agreed = kernel.agree(offer, wanted & ~self._mask)
            self._ring.agree(agreed)
        self._channel.answer(request, kernel.init_answer(agreed))

    def _choose(self, agreed: Init, stored: StoredVersion) -> Opens:
        mode = self._described["mode"]
        if mode == "ZeroOpen" and agreed.flags & ZeroOpens.wanted == ZeroOpens.wanted:
            return ZeroOpens(self._channel, self._line)
        if mode == "Passthrough":
            from cache_worker.mounts.backing import Backing
            from cache_worker.mounts.passthrough import PassthroughOpens

            backing = Backing(
                self._root, str(self._described["id"]), self._lane, self._grace_seconds, report
            )
            backing.start()
            if agreed.flags & kernel.PASSTHROUGH:
                return PassthroughOpens(
                    self._channel, self._line, stored, backing, self._ring.slots, self._fds["ids"]
                )
            backing.tell_mode("Fuse", "the kernel offers no passthrough (Linux 6.9 and later do)")
        return PlainOpens(self._channel, self._line)

    def _take_over(self, agreed: Init, mount: FuseMount, opens: Opens) -> None:
        opens.take_over()
        for request in self._left():
            if request.op == kernel.INIT:
                self._answer_init(request)
            else:
                mount.dispatch(request)
        # What is still out there is with the other lanes; they answer it twice at worst.
        if agreed.flags & kernel.HAS_RESEND:
            self._channel.notify(kernel.resend_notice())

    def _left(self) -> Iterator[Request]:
        yield from list(self._channel.lane.left())

    def _tick(self) -> dict[str, object] | None:
        """Once a second, on the line's thread; what the worker is to be told."""
        if self._stored is None or self._opens is None:
            return None
        self._stored.let_go()
        self._opens.tick()
        if self._lane != 0:
            return None
        counts = self._ring.counts()
        if counts == self._counted:
            return None
        self._counted = counts
        requests = {kernel.NAMES.get(op, str(op)): n for op, n in enumerate(counts) if n}
        return {"op": "served", "id": self._described["id"], "requests": requests}


_WANTED = {"ZeroOpen": ZeroOpens.wanted, "Passthrough": kernel.PASSTHROUGH}


def report(line: str) -> None:
    """One line for the log, on stderr."""
    sys.stderr.write(f"cacheop mount: {line}\n")
    sys.stderr.flush()


def masked(text: str) -> int:
    """The INIT bits that CACHEOP_MASK_INIT names. Raises UserError."""
    try:
        return sum(1 << bit for bit in {int(part) for part in text.split(",") if part.strip()})
    except ValueError as error:
        raise UserError(
            f"{ENV_MASK_INIT}={text!r} is no list of bit numbers", hint="For example 37,39"
        ) from error


def main(arguments: list[str]) -> int:
    """Exit code 0: the mount is gone; 2: called wrongly."""
    try:
        config, options = arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=True))
        mount, lane = json.loads(options["--mount"]), int(options["--lane"])
        fds = {name: int(options[f"--{name}"]) for name in ("fuse", "ring", "ids")}
        with open(config, encoding="utf-8") as file:
            root = str(json.load(file)["root"])
    except (OSError, IndexError, KeyError, ValueError) as error:
        report(
            f"{error!r}; usage: python -m cache_worker mount CONFIG --mount JSON --lane K "
            "--fuse FD --ring FD --ids FD"
        )
        return 2
    try:
        Server(root, mount, lane, fds, masked(os.environ.get(ENV_MASK_INIT, ""))).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
    # Our threads may hold the interpreter's locks; there is nothing to flush but this.
    sys.stderr.flush()
    os._exit(0)

"""The mount process: `python -m cache_worker mount CONFIG --mount M --lane K`, with three fds.

Started by the supervisor, which holds dups of the fds. M is the mount as the holder describes it
(docs/protocol.md). When this process dies, the next one of the lane answers what it had in hand
(ring.py). It exits with 0 when the mount is gone.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from cache_worker.mounts import kernel
from cache_worker.mounts.channel import Channel
from cache_worker.mounts.fuse import FuseMount
from cache_worker.mounts.line import Line
from cache_worker.mounts.opens import PlainOpens, ZeroOpens
from cache_worker.mounts.ring import Lane, Ring
from cache_worker.mounts.stored import StoredVersion
from cache_worker.mounts.tree import Tree
from cacheop.api import names
from cacheop.api.errors import CacheopError, StoreError, UserError

if TYPE_CHECKING:
    from cache_worker.mounts.channel import Request
    from cache_worker.mounts.kernel import Init
    from cache_worker.mounts.opens import Opens

POLL_SECONDS = 0.2
ENV_MASK_INIT = "CACHEOP_MASK_INIT"
"""Numbers of INIT bits to do without, although this kernel offers them: like an older one."""
_WANTED = {"ZeroOpen": ZeroOpens.wanted, "Passthrough": kernel.PASSTHROUGH}


class Server:
    """One lane of one mount."""

    def __init__(
        self, root: str, mount: dict[str, Any], lane: int, fds: dict[str, int], mask: int = 0
    ) -> None:
        self._root = root
        self._described = mount
        self._fds = fds
        self._ring = Ring(fds["ring"])
        self._lane = Lane(self._ring, lane)
        self._channel = Channel(fds["fuse"], self._lane)
        self._wanted = (kernel.WANTED | _WANTED.get(mount["mode"], 0)) & ~mask
        self._grace_seconds = float(mount["grace_seconds"])
        self._stored: StoredVersion | None = None
        self._opens: Opens | None = None
        self._served: tuple[int, dict[str, int]] = (0, {})
        self._line = Line(
            f"{root}/{names.WORKER_SOCKET}",
            mount["version"],
            grace_seconds=self._grace_seconds,
            ticked=self._ticked,
            report=report,
        )

    def run(self) -> None:
        """Serve until the mount is gone."""
        stored = self._open_version()
        if stored is None:
            return
        request = next(self._channel.leftovers(), None)  # INIT itself may be among them
        while (agreed := self._ring.agreed) is None:
            request = request or self._channel.receive()
            if request is None:
                return
            # Whatever else comes first was asked after another process had answered INIT, and is
            # a leftover then.
            if request.op == kernel.INIT:
                self._answer_init(request)
            request = None
        opens = self._choose(agreed, stored)
        tree = Tree(stored.index)
        mount = FuseMount(self._channel, tree, stored, self._line, opens, self._answer_init)
        self._stored, self._opens = stored, opens  # from here on there are ticks
        for request in self._channel.leftovers():
            mount.dispatch(request)
        if self._lane.had_predecessor and agreed.flags & kernel.HAS_RESEND:
            self._channel.resend()
        mount.serve()

    def _open_version(self) -> StoredVersion | None:
        """The files of the version, once they are here; None: unmounted.

        Until then requests stay with the kernel, where a killed reader can leave; after the grace
        time they get EIO, and still the version is waited for.
        """
        from pathlib import Path

        root, version = Path(self._root), self._described["version"]
        deadline = time.monotonic() + self._grace_seconds
        said = ""
        while True:
            try:
                return StoredVersion(root, version, report)
            except StoreError as error:
                if str(error) != said:
                    said = str(error)
                    report(said)
            finally:
                self._line.start()
            if time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            for request in self._channel.leftovers():
                self._refuse(request)
            if self._channel.waits(POLL_SECONDS):
                received = self._channel.receive()
                if received is None:
                    return None
                self._refuse(received)

    def _refuse(self, request: Request) -> None:
        """Answer with EIO (INIT properly)."""
        if request.op == kernel.INIT:
            self._answer_init(request)
        elif request.op not in kernel.NO_ANSWER and request.op != kernel.INTERRUPT:
            self._channel.fail(request, errno.EIO)

    def _answer_init(self, request: Request, _row: int = 0) -> None:
        """Settle the protocol with the kernel; what was agreed is noted before the kernel knows."""
        major, offer = kernel.parse_init(request.body)
        if major != kernel.MAJOR or offer.minor < kernel.MINOR_LEAST:
            self._channel.fail(request, errno.EPROTO)
            return
        agreed = self._ring.agreed or kernel.agree(offer, self._wanted)
        self._ring.agree(agreed)
        self._channel.answer(request, kernel.init_answer(agreed))

    def _choose(self, agreed: Init, stored: StoredVersion) -> Opens:
        """The mode that was published, if the kernel can."""
        mode = self._described["mode"]
        if mode == "Passthrough":
            from cache_worker.mounts import passthrough

            offered = bool(agreed.flags & kernel.PASSTHROUGH)
            found: Opens | None = passthrough.start(
                self._root, self._described, self._lane, self._channel, self._line, stored,
                self._fds["ids"], report, offered=offered,
            )  # fmt: skip
            if found is not None:
                return found
        if mode == "ZeroOpen" and agreed.flags & ZeroOpens.wanted == ZeroOpens.wanted:
            return ZeroOpens(self._channel)
        return PlainOpens(self._channel)

    def _ticked(self) -> None:
        """Once a second, on the line's thread."""
        if self._stored is None or self._opens is None:
            return
        self._stored.let_go()
        self._opens.tick()
        if self._lane.number == 0:
            served = self._line.connections, self._ring.requests()
            if served != self._served:
                self._served = served
                meta = {"op": "served", "id": self._described["id"], "requests": served[1]}
                self._line.tell(meta)


def report(line: str) -> None:
    """One line for the log, on stderr. A log on a failing disk must end nobody who serves."""
    try:
        sys.stderr.write(f"cacheop mount: {line}\n")
        sys.stderr.flush()
    except OSError:
        return


def thread_failed(failed: threading.ExceptHookArgs) -> None:
    """End the process: without that thread requests would wait for ever, a successor has it."""
    report(f"thread {failed.thread and failed.thread.name}: {failed.exc_value!r}")
    os._exit(1)


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
    threading.excepthook = thread_failed
    try:
        Server(root, mount, lane, fds, masked(os.environ.get(ENV_MASK_INIT, ""))).run()
    except CacheopError as error:
        report(str(error))
        return error.exit_code
    # Our threads may hold the interpreter's locks; there is nothing to flush but this.
    sys.stderr.flush()
    os._exit(0)

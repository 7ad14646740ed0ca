"""One connection of a peer, served by one thread: who it is, then a request at a time."""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from cache_worker.peers.inbox import Inbox
from cache_worker.peers.messages import (
    AUTH_META_BYTES,
    PROTOCOL,
    Get,
    is_name,
)
from cache_worker.peers.service import Asker, OpenChunk, Provided
from cacheop.api import wire
from cacheop.api.errors import (
    CacheopError,
    CredentialError,
    ProtocolError,
    StoreError,
    to_wire,
)
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from cache_worker.peers.room import Room
    from cache_worker.peers.server import Caps, Identity
    from cache_worker.peers.service import Incoming, Service
    from cache_worker.peers.stream import Head, Stream
    from cache_worker.peers.traffic import Traffic

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a chunk that is dropped again before we opened it is asked for again."""


class Serving:
    """Owned by the connection's thread; only `stream.shutdown` is for others."""

    def __init__(
        self,
        stream: Stream,
        service: Service,
        me: Identity,
        caps: Caps,
        loop: AbstractEventLoop,
        sent: Traffic,
    ) -> None:
        self._stream, self._service = stream, service
        self._me, self._caps, self._sent = me, caps, sent
        self._inbox = Inbox(loop, me.node)
        self._request_id = 0
        self._pending = bytearray()
        """Heads that go with what follows them."""
        self.asker = Asker("", "")

    def close(self) -> None:
        """Give back what it owns but the stream; cancels what was under way."""
        self._inbox.close()

    # -- who it is --------------------------------------------------------------------------------

    def authenticate(self, where: str, admit: Callable[[str], None]) -> None:
        """Challenge, and see that it knows the token; show that we do.

        ProtocolError, CredentialError, or what `admit` has against its node; the peer is told.
        """
        nonce = secrets.token_hex(16)
        self._stream.send_frame(wire.Frame(wire.EVENT, 0, {"op": "challenge", "nonce": nonce}))
        try:
            auth = self._stream.head(self._caps.auth_seconds, AUTH_META_BYTES)
            asker = self._asker(auth, nonce, where)
            admit(asker.node)
        except CacheopError as error:
            with contextlib.suppress(OSError):
                self._stream.send_frame(wire.Frame(wire.ERROR, 0, to_wire(error)))
            raise
        mac = proof(self._me.token, "peer-server", str(auth.meta.get("nonce", "")))
        answer = {"node": self._me.node, "zone": self._me.zone, "protocol": PROTOCOL, "mac": mac}
        self._stream.send_frame(wire.Frame(wire.RESPONSE, auth.request_id, answer))
        self.asker = asker

    def _asker(self, auth: Head, nonce: str, where: str) -> Asker:
        meta = auth.meta
        node, zone = meta.get("node"), meta.get("zone", "")
        both = f"this is node {self._me.node}, asked by node {str(node)[:256]} at {where}"
        if auth.kind != wire.REQUEST or auth.payload_bytes or meta.get("op") != "auth":
            raise ProtocolError(f"authenticate first: {both}")
        if meta.get("purpose") != "peer" or not is_name(node) or not is_name(zone):
            raise ProtocolError(f"this port is for peers: {both}")
        if meta.get("protocol") != PROTOCOL:
            raise ProtocolError(
                f"peer protocol {str(meta.get('protocol'))[:20]}, we speak {PROTOCOL}: {both}",
                hint="Run the same cacheop version on all nodes",
            )
        given = str(meta.get("mac"))
        if not hmac.compare_digest(proof(self._me.token, "peer", nonce).encode(), given.encode()):
            raise CredentialError(
                f"wrong token: {both}", hint="All nodes of a Dataset need the same token file"
            )
        return Asker(str(node), str(zone))

    # -- what it asks -----------------------------------------------------------------------------

    def serve(self, rooms: dict[bool, Room]) -> None:
        """Answer requests until the other side ends; by an exception, always."""
        while True:
            head = self._stream.head(self._caps.idle_seconds)
            if head.kind != wire.REQUEST or head.payload_bytes or self._stream.is_ahead:
                raise ProtocolError("a frame that is not a request, or more than one")
            self._request_id = head.request_id
            op = head.meta.get("op")
            if op == "get":
                self._get(head, rooms)
            elif is_name(op):
                self._other(str(op), head)
            else:
                raise ProtocolError("a request without an operation")
            self._flush()

    def _other(self, op: str, head: Head) -> None:
        meta = {key: value for key, value in head.meta.items() if key != "op"}
        call = partial(self._service.answer, op, meta, self.asker)
        self._inbox.start([(0, call)], self._caps.answer_seconds)
        ((_, outcome),) = self._inbox.take(self._stream.fileno(), self._caps.answer_seconds + 5)
        if isinstance(outcome, CacheopError):
            self._sent.ended("error")
            self._add(wire.ERROR, {**to_wire(outcome)})
            return
        answer, payload = cast("tuple[dict[str, Any], bytes | memoryview]", outcome)
        self._sent.ended("ok")
        self._add(wire.RESPONSE, answer, len(payload))
        if payload:
            self._flush(more=True)
            self._stream.send(payload)

    def _get(self, head: Head, rooms: dict[bool, Room]) -> None:
        try:
            request = Get.from_meta(head.meta)
        except ProtocolError as error:  # it keeps to the frames, so the connection may stay
            self._sent.ended("error")
            self._add(wire.ERROR, {**to_wire(error)})
            return
        opened: list[tuple[int, OpenChunk]] = []
        absent: list[int] = []
        try:
            for number in range(len(request.wanted)):
                self._open(request, number, opened, absent)
            room = rooms[request.only_if_present or request.hops > 1]
            self._fill_and_send(request, opened, absent, room)
        finally:
            for _, chunk in opened:
                chunk.close()

    def _open(
        self, request: Get, number: int, opened: list[tuple[int, OpenChunk]], absent: list[int]
    ) -> None:
        wanted = request.wanted[number]
        try:
            chunk = self._service.open_present(request.version, wanted.row, wanted.chunk)
        except CacheopError as error:
            self._fail(number, error)
        except OSError as error:
            self._fail(number, StoreError(f"node {self._me.node} cannot open its copy: {error}"))
        else:
            if chunk is None:
                absent.append(number)
            else:
                opened.append((number, chunk))

    def _fill_and_send(
        self,
        request: Get,
        opened: list[tuple[int, OpenChunk]],
        absent: list[int],
        room: Room,
    ) -> None:
        """Start what is absent, send what is here, then the others as they come."""
        waits = self._caps.provide_seconds
        count = sum(request.wanted[number].length for number in absent)
        has_room = room.take_now(count)
        try:
            if has_room:
                self._start(request, absent)
            self._send_all(request, opened)
            if not has_room:
                self._flush()
                room.take(count, waits, self._stream.is_quiet)
                has_room = True
                self._start(request, absent)
            left, tries = set(absent), dict.fromkeys(absent, 1)
            while left:
                self._flush()
                for number, outcome in self._inbox.take(self._stream.fileno(), waits + 5):
                    if isinstance(outcome, Provided):
                        self._send_bytes(request, number, outcome)
                    elif isinstance(outcome, CacheopError):
                        self._fail(number, outcome)
                    elif outcome is not None:
                        self._pass_on(request, number, outcome)  # type: ignore[arg-type]
                    else:
                        again: list[int] = []
                        self._open(request, number, opened, again)
                        self._send_all(request, opened)
                        if again and tries[number] < ATTEMPTS:
                            tries[number] += 1
                            self._start(request, again)
                            continue
                        if again:
                            self._fail(number, StoreError("it is evicted as soon as it is here"))
                    left.discard(number)
        finally:
            if has_room:
                room.give(count)

    def _start(self, request: Get, numbers: list[int]) -> None:
        if not numbers:
            return
        calls = []
        for number in numbers:
            wanted = request.wanted[number]
            provide = partial(
                self._service.provide,
                request.version,
                wanted.row,
                wanted.chunk,
                wanted.length,
                only_if_present=request.only_if_present,
                hops=request.hops,
                without=request.without,
                asker=self.asker,
            )
            calls.append((number, provide))
        self._inbox.start(calls, self._caps.provide_seconds)

    # -- sending ----------------------------------------------------------------------------------

    def _send_all(self, request: Get, opened: list[tuple[int, OpenChunk]]) -> None:
        """Send and close what is open."""
        while opened:
            number, chunk = opened[0]
            self._send_chunk(request, number, chunk)
            opened.pop(0)[1].close()

    def _send_chunk(self, request: Get, number: int, chunk: OpenChunk) -> None:
        if not self._fits(request, number, chunk.length):
            return
        if chunk.length:
            self._add(wire.EVENT, {"n": number}, chunk.length)
            self._flush(more=True)
            self._stream.send_file(chunk.fd, chunk.offset, chunk.length)
            self._count(chunk.length)
        if chunk.still_good():
            self._whole(number, chunk.checksum)
        else:
            self._fail(number, StoreError("the chunk was dropped while it was sent"), "dropped")

    def _send_bytes(self, request: Get, number: int, provided: Provided) -> None:
        if not self._fits(request, number, len(provided.data)):
            return
        if provided.data:
            self._add(wire.EVENT, {"n": number}, len(provided.data))
            self._flush(more=True)
            self._stream.send(provided.data, more=True)
            self._count(len(provided.data))
        self._whole(number, provided.checksum)

    def _pass_on(self, request: Get, number: int, incoming: Incoming) -> None:
        """Send a chunk while it comes in."""
        if not self._fits(request, number, incoming.length):
            return
        sent = 0
        try:
            while piece := incoming.piece(sent, self._caps.provide_seconds):
                self._add(wire.EVENT, {"n": number}, len(piece))
                self._flush(more=True)
                self._stream.send(piece)
                self._count(len(piece))
                sent += len(piece)
        except CacheopError as error:
            self._fail(number, error)
        else:
            self._whole(number, incoming.whole())

    def _count(self, count: int) -> None:
        same_zone = self.asker.zone == self._me.zone
        self._sent.moved(count, same_zone=same_zone)

    def _fits(self, request: Get, number: int, length: int) -> bool:
        wanted = request.wanted[number].length
        if length != wanted:
            self._fail(number, ProtocolError(f"the chunk has {length} bytes, not {wanted}"))
        return length == wanted

    def _whole(self, number: int, checksum: int) -> None:
        self._sent.ended("ok")
        self._add(wire.RESPONSE, {"n": number, "checksum": f"{checksum:016x}"})

    def _fail(self, number: int, error: CacheopError, result: str = "error") -> None:
        self._sent.ended("absent" if isinstance(error, FileNotFoundError) else result)
        self._add(wire.ERROR, {"n": number, **to_wire(error)})

    def _add(self, kind: int, meta: dict[str, Any], payload_bytes: int = 0) -> None:
        self._pending += wire.encode_head(kind, self._request_id, meta, payload_bytes)

    def _flush(self, *, more: bool = False) -> None:
        if self._pending:
            self._stream.send(self._pending, more=more)
            self._pending.clear()

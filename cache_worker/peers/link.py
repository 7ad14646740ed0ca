"""One connection to a peer, as the asker sees it: open, show the token, ask.

A Link belongs to one thread. Others may only `abandon` it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import xxhash

from cache_worker.peers.errors import PeerBadBytes, PeerError, PeerUnavailable
from cache_worker.peers.messages import AUTH_META_BYTES, PROTOCOL, Answers, Get
from cache_worker.peers.stream import Stream, split_address
from cacheop.api import wire
from cacheop.api.errors import CacheopError, ProtocolError, from_wire
from cacheop.api.tokens import proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.peers.buffers import Buffers
    from cache_worker.peers.stream import Head

CONNECT_SECONDS = 3.0
AUTH_SECONDS = 3.0
PIECE_BYTES = 128 << 10
"""Received and hashed in such pieces, while they are in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who we are, for all peers."""

    token: str
    node: str
    zone: str
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class Callee:
    """Whom we ask."""

    node: str
    address: str

    def __str__(self) -> str:
        return f"node {self.node} at {self.address}"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A chunk whose bytes match the checksum that its origin's reader recorded."""

    data: memoryview
    checksum: int


Outcome = Fetched | CacheopError


class Link:
    """Owns the connection, from before it is open."""

    def __init__(self, caller: Caller, callee: Callee, buffers: Buffers) -> None:
        self._caller, self._callee, self._buffers = caller, callee, buffers
        self._lock = threading.Lock()
        self._connecting: socket.socket | None = None
        self._stream: Stream | None = None
        self._abandoned = False
        self._requests = 0

    def abandon(self) -> None:
        """Make the thread that uses it give up at once; from any thread."""
        with self._lock:
            self._abandoned = True
            if self._stream is not None:
                self._stream.shutdown()
            elif self._connecting is not None:
                with contextlib.suppress(OSError):
                    self._connecting.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the fd back."""
        with self._lock:
            for owned in (self._stream, self._connecting):
                if owned is not None:
                    owned.close()
            self._stream = self._connecting = None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._abandoned

    def is_usable(self) -> bool:
        """Whether it is open and the peer has not ended it."""
        return self._stream is not None and not self._abandoned and self._stream.is_quiet()

    # -- opening ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and authenticate. PeerUnavailable or PeerBadBytes."""
        try:
            self._stream = self._connect()
            self._authenticate(self._stream)
        except ProtocolError as error:
            raise PeerBadBytes(
                f"{self._callee} does not speak our protocol: {error.message} "
                f"(this is node {self._caller.node})",
                hint=error.hint,
            ) from error
        except PeerError:
            raise
        except OSError as error:
            raise PeerUnavailable(f"{self._callee} cannot be reached: {error}") from error

    def _connect(self) -> Stream:
        host, port = split_address(self._callee.address)
        family, kind, number, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, number)
        with self._lock:
            self._connecting = sock
            if self._abandoned:
                raise ConnectionAbortedError("nobody waits for it any more")
        sock.settimeout(CONNECT_SECONDS)
        sock.connect(target)
        stream = Stream(sock, self._caller.stall_seconds)
        with self._lock:
            self._connecting = None
            self._stream = stream
            if self._abandoned:
                raise ConnectionAbortedError("nobody waits for it any more")
        return stream

    def _authenticate(self, stream: Stream) -> None:
        """Show that we know the token, and see that the peer does: addresses are used again."""
        caller = self._caller
        challenge = self._told(stream)
        nonce = challenge.meta.get("nonce")
        if (
            challenge.kind != wire.EVENT
            or challenge.meta.get("op") != "challenge"
            or not isinstance(nonce, str)
        ):
            raise ProtocolError("it did not begin with a challenge")
        ours = secrets.token_hex(16)
        auth = {
            "op": "auth",
            "purpose": "peer",
            "mac": proof(caller.token, "peer", nonce),
            "nonce": ours,
            "node": caller.node,
            "zone": caller.zone,
            "protocol": PROTOCOL,
        }
        stream.send_frame(wire.Frame(wire.REQUEST, 0, auth))
        answer = self._told(stream)
        mac = str(answer.meta.get("mac"))
        if answer.kind != wire.RESPONSE or not compare_digest(
            mac.encode(), proof(caller.token, "peer-server", ours).encode()
        ):
            raise PeerUnavailable(f"{self._callee} does not know our token")
        if self._callee.node and answer.meta.get("node") != self._callee.node:
            raise PeerUnavailable(f"{self._callee} is now node {answer.meta.get('node')}")

    def _told(self, stream: Stream) -> Head:
        head = stream.head(AUTH_SECONDS, AUTH_META_BYTES)
        if head.payload_bytes:
            raise ProtocolError("a payload before anything was asked for")
        if head.kind == wire.ERROR:
            refused = from_wire(head.meta)
            kind = PeerBadBytes if isinstance(refused, ProtocolError) else PeerUnavailable
            raise kind(f"{self._callee} refuses us: {refused.message}", hint=refused.hint)
        return head

    # -- asking -----------------------------------------------------------------------------------

    def get(
        self,
        request: Get,
        wait_seconds: float,
        *,
        arrived: Callable[[int], None],
        ended: Callable[[int, Outcome], bool],
    ) -> None:
        """Ask for a batch. `ended(i, outcome)` for each, as it comes; False = give up the rest.

        OSError or ProtocolError when the connection is no good any more.
        """
        stream = self._ask(request.to_meta())
        answers = Answers([w.length for w in request.wanted])
        arriving: dict[int, tuple[memoryview, Any]] = {}
        while answers.open:
            head = self._answer(stream, wait_seconds)
            if head.kind == wire.EVENT:
                number, offset = answers.piece(head.meta, head.payload_bytes)
                if number not in arriving:
                    length = request.wanted[number].length
                    arriving[number] = self._buffers.take(length), xxhash.xxh3_64()
                data, digest = arriving[number]
                end = offset + head.payload_bytes
                while offset < end:
                    part = data[offset : min(offset + PIECE_BYTES, end)]
                    stream.receive(part)
                    digest.update(part)
                    offset += len(part)
                    arrived(len(part))
                continue
            if head.kind == wire.RESPONSE:
                number, checksum = answers.end(head.meta, head.payload_bytes)
                data, digest = arriving.pop(number, None) or (memoryview(b""), xxhash.xxh3_64())
                ends = [(number, self._checked(data, checksum, digest.intdigest()))]
            else:
                error = from_wire(head.meta)
                ends = [(n, error) for n in answers.failed(head.meta, head.payload_bytes)]
                for number, _ in ends:
                    arriving.pop(number, None)
            is_wanted = [ended(number, outcome) for number, outcome in ends]
            if answers.open and not all(is_wanted):
                raise ConnectionAbortedError("nobody waits for the rest")

    def _checked(self, data: memoryview, checksum: int, found: int) -> Outcome:
        if found == checksum:
            return Fetched(data, checksum)
        return PeerBadBytes(
            f"{self._callee} sent bytes with checksum {found:016x} instead of {checksum:016x}",
            hint="Its copy is damaged, or something on the way",
        )

    def ask(
        self,
        op: str,
        meta: dict[str, Any],
        payload_max_bytes: int,
        wait_seconds: float,
    ) -> tuple[dict[str, Any], memoryview]:
        """Any other operation: one request, one answer. Raises the CacheopError that it sends."""
        stream = self._ask({**meta, "op": op})
        head = self._answer(stream, wait_seconds)
        if head.kind == wire.EVENT or head.payload_bytes > payload_max_bytes:
            raise ProtocolError(f"{op} was answered with what was not asked for")
        payload = memoryview(bytearray(head.payload_bytes))
        stream.receive(payload)
        if head.kind == wire.ERROR:
            raise AnsweredError(from_wire(head.meta))
        return head.meta, payload

    def _ask(self, meta: dict[str, Any]) -> Stream:
        stream = self._stream
        if stream is None:
            raise ConnectionAbortedError("the connection is closed")
        self._requests = (self._requests + 1) & 0xFFFFFFFF
        stream.send_frame(wire.Frame(wire.REQUEST, self._requests, meta))
        return stream

    def _answer(self, stream: Stream, wait_seconds: float) -> Head:
        head = stream.head(wait_seconds)
        if head.kind == wire.REQUEST or head.request_id != self._requests:
            raise ProtocolError("a frame that is no answer to the last request")
        return head


class AnsweredError(Exception):
    """The peer answered with an error; the connection is good."""

    def __init__(self, error: CacheopError) -> None:
        super().__init__(str(error))
        self.error = error

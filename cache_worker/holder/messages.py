"""Messages on holder.sock: one JSON object a SEQPACKET packet, fds beside it by SCM_RIGHTS.

Also used by who speaks to the holder: supervisor, mount processes, commands.
"""

from __future__ import annotations

import json
import os
import socket
import struct

from cacheop.api import names
from cacheop.api.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PACKET_MAX_BYTES = 65536
FDS_MAX = 8  # more of them in a packet make it bad
_FD = struct.Struct("=i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(FDS_MAX * _FD.size)


def connect(root: str) -> socket.socket:
    """A blocking connection to the holder of the Dataset at `root`. OSError: it is not there."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A path by the fd is short, whatever the root's: an address has room for 107 bytes.
        connection.connect(f"/proc/self/fd/{directory}/{names.HOLDER_SOCKET}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def encode(message: dict[str, object]) -> bytes:
    """The packet of `message`."""
    return json.dumps(message, separators=(",", ":")).encode()


def send(connection: socket.socket, message: dict[str, object], fds: Sequence[int] = ()) -> None:
    """Send one packet; `fds` stay the caller's. Raises OSError."""
    send_packet(connection, encode(message), fds)


def send_packet(connection: socket.socket, packet: bytes, fds: Sequence[int] = ()) -> None:
    """Send what `encode` gave. Raises OSError."""
    rights = b"".join(_FD.pack(fd) for fd in fds)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    connection.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """The next message and its fds (close-on-exec, the caller's now); None: the other side left.

    Raises OSError, and ProtocolError for what is no message of ours; its fds are closed then.
    """
    packet, ancillary, flags, _ = connection.recvmsg(
        PACKET_MAX_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
    )
    fds = [
        fd
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (fd,) in _FD.iter_unpack(data[: len(data) // _FD.size * _FD.size])
    ]
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError(f"a packet of more than {PACKET_MAX_BYTES} bytes or {FDS_MAX} fds")
        if not packet and not fds:
            return None
        return _decode(packet), fds
    except ProtocolError:
        close_all(fds)
        raise


def close_all(fds: Sequence[int]) -> None:
    """Close what nobody wants."""
    for fd in fds:
        os.close(fd)


def _decode(packet: bytes) -> dict[str, object]:
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a packet that is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError("a packet that is not a JSON object")
    return message

"""One connection to the holder. It never makes the loop wait: what cannot be sent yet is queued."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

from cache_worker.holder import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BEHIND_PACKETS = 1 << 17
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


class Connection:
    """Somebody at the other end of a SEQPACKET socket, which becomes ours."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.uid: int = _CREDENTIALS.unpack(found)[1]
        """Who connected, as the kernel says."""
        self.mount_id = ""
        """The mount that it serves; "" = it is no mount process (yet)."""
        self.lane = -1
        self.is_open = True
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()

    @property
    def has_more(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outgoing)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be sent that nothing is to be read from it meanwhile.

        Well above what a mount process can have asked, so that it may ask first and read later.
        """
        return len(self._outgoing) >= BEHIND_PACKETS

    def send(self, message: dict[str, object], fds: Sequence[int] = ()) -> None:
        """Send now or later. Who left is noticed by reading, not here."""
        if not self.is_open:
            return
        packet = messages.encode(message)
        if self._outgoing or not self._try(packet, fds):
            self._outgoing.append((packet, [os.dup(fd) for fd in fds]))

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self._outgoing and self._try(*self._outgoing[0]):
            messages.close_all(self._outgoing.popleft()[1])

    def close(self) -> None:
        """What the other side has sent is not read any more."""
        self.is_open = False
        for _, fds in self._outgoing:
            messages.close_all(fds)
        self._outgoing.clear()
        self.sock.close()

    def _try(self, packet: bytes, fds: Sequence[int]) -> bool:
        try:
            messages.send_packet(self.sock, packet, fds)
        except BlockingIOError:
            return False
        except OSError:
            return True  # it left
        return True

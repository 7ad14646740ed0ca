"""What can go wrong with a peer, as the three things that call for different steps."""

from __future__ import annotations

import errno

from cacheop.api.errors import CacheopError


class PeerError(CacheopError):
    """A peer did not give what it was asked for. Never reaches a reader: others are asked."""


class PeerAbsent(PeerError):  # noqa: N818 - a state, like NotFound
    """It was asked for what it has, and has it not."""

    errno_code = errno.ENOENT


class PeerUnavailable(PeerError):  # noqa: N818 - likewise
    """It refused, went away or took too long."""

    errno_code = errno.EHOSTDOWN


class PeerBadBytes(PeerError):  # noqa: N818 - likewise
    """It sent bytes that do not match their checksum, or that are not our protocol."""

    errno_code = errno.EBADMSG

"""Who may do what over TCP: the tokens of a worker and the proof of knowing one. Pure.

The control token may do everything. The client token may read, the peer token is what workers of
one Dataset show each other; both are derived, so that the worker needs one secret only, and who has
one of them cannot find another.
"""

from __future__ import annotations

import hmac


def client_token(control_token: str) -> str:
    """The token for readers: HMAC-SHA256(control token, "client") as hex."""
    return hmac.new(control_token.encode(), b"client", "sha256").hexdigest()


def peer_token(control_token: str) -> str:
    """The token between workers: HMAC-SHA256(control token, "peer") as hex."""
    return hmac.new(control_token.encode(), b"peer", "sha256").hexdigest()


def proof(token: str, purpose: str, nonce: str) -> str:
    """What shows that we know the token of `purpose` without telling it (docs/protocol.md)."""
    return hmac.new(token.encode(), f"{purpose}:{nonce}".encode(), "sha256").hexdigest()

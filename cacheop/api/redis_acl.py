"""What the user of a Dataset may do in Redis: its own keys, with few commands. Pure."""

from __future__ import annotations

import hashlib

COMMANDS = ("auth", "hello", "ping", "time", "hset", "hgetall", "hdel", "incr")


def rules(prefix: str, password: bytes, database: int) -> tuple[str, ...]:
    """What ACL SETUSER is told; all at once, so the user is never less for a moment."""
    commands = COMMANDS if not database else (*COMMANDS, "select")
    return (
        "reset",
        "on",
        f"#{hashlib.sha256(password).hexdigest()}",
        "resetkeys",
        f"~{prefix}*",
        "resetchannels",
        "-@all",
        *(f"+{command}" for command in commands),
    )

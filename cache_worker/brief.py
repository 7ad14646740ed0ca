"""Of CONFIG, the few keys that launcher and supervisor need. Parsing a Dataset is not tiny."""

from __future__ import annotations

import json

from cacheop.api.errors import UserError


class Brief:
    """What CONFIG says about processes."""

    def __init__(
        self,
        root: str,
        targets: list[str],
        mount_processes: int,
        *,
        redis_admin: bool = False,
        has_holder: bool = False,
    ) -> None:
        self.root = root
        """The Dataset's cache directory."""
        self.targets = targets
        """Where it is to be mounted."""
        self.mount_processes = mount_processes
        """For each mount; 0 = as many as the mode and this machine ask for."""
        self.has_holder = has_holder or bool(targets)
        """Whether somebody holds mounts: the launcher's holder, or the node plugin."""
        self.redis_admin = redis_admin
        """Whether it is for us to keep the Dataset's user in its Redis."""


def read(config: str) -> Brief:
    """Raises UserError."""
    try:
        with open(config, encoding="utf-8") as file:
            raw = json.load(file)
        targets = [str(mount["target"]) for mount in raw.get("mounts", [])]
        return Brief(
            str(raw["root"]),
            targets,
            int(raw.get("mount_processes") or 0),
            redis_admin=bool(raw.get("redis_admin")),
            has_holder=bool(raw.get("holder")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read the worker's configuration {config}: {error!r}",
            hint="It is written by `cacheop up`",
        ) from error

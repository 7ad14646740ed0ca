"""Memory of the resident processes over very many keys. The server only lists: nothing is read."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

from benchmarks.list_stub import key_of
from benchmarks.memory import processes, pss_mib
from benchmarks.report import Row, at_most

if TYPE_CHECKING:
    from benchmarks.setting import Setting

STATS = 20_000
SETTLE_SECONDS = 2


def resident(setting: Setting, options: dict[str, Any], keys: int) -> list[Row]:
    """The worker once it is ready, and, where this can mount, the mount process after many stats.

    `options` lead to a stand-in with `keys` keys.
    """
    can_mount = os.geteuid() == 0 and os.path.exists("/dev/fuse")
    mount = setting.directory / "mnt-keys"
    file = setting.dataset("keys", "stub", options=options)
    with setting.up("keys", file, *(("--mount", str(mount)) if can_mount else ())):
        running = processes(setting.directory / "run" / "default.keys" / "node-0.json")
        worker, mounts = running["work"][0], running.get("mount", [])
        if mounts:
            for number in random.Random(4).choices(range(keys), k=STATS):
                os.stat(mount / key_of(number, keys, siblings=False))
        # Index pages that were just touched count as theirs until they give them back, each second.
        time.sleep(SETTLE_SECONDS)
        rows = [at_most(f"PSS worker, {keys:,} keys", "MiB", [pss_mib(worker)], 200)]
        if mounts:
            what = f"PSS mount process, {keys:,} keys, {SETTLE_SECONDS} s after {STATS:,} stats"
            rows.append(at_most(what, "MiB", [pss_mib(mounts[0])], 48))
        return rows

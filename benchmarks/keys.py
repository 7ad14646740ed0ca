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
SAMPLE_STATS = 500
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
            peak = 0.0
            for count, number in enumerate(random.Random(4).choices(range(keys), k=STATS), 1):
                os.stat(mount / key_of(number, keys, siblings=False))
                if count % SAMPLE_STATS == 0:
                    peak = max(peak, pss_mib(mounts[0]))
        rows = [at_most(f"PSS worker, {keys:,} keys", "MiB", [pss_mib(worker)], 200)]
        if mounts:
            # It gives the index pages that it just touched back each second.
            what = f"PSS mount process, {keys:,} keys"
            time.sleep(SETTLE_SECONDS)
            rows.append(
                at_most(f"{what}, {SETTLE_SECONDS} s after", "MiB", [pss_mib(mounts[0])], 48)
            )
            during = f"{what}, most during {STATS:,} stats"
            rows.append(Row(during, peak, "MiB", None, None, "", None))
        return rows

"""Memory of the resident processes: proportional set size, from the kernel's own account."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Row, at_most

if TYPE_CHECKING:
    from benchmarks.setting import Setting

MIB = 1 << 20


def pss_mib(pid: int) -> float:
    """See proc(5), smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss of process {pid}")


def processes(config: Path) -> dict[str, list[int]]:
    """The processes that run with a CONFIG, by verb."""
    found: dict[str, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if b"cache_worker" in words and str(config).encode() in words:
            verb = words[words.index(b"cache_worker") + 1].decode()
            found.setdefault(verb, []).append(int(process.name))
    return found


def measure(setting: Setting) -> list[Row]:
    """Idle, some seconds after a fill, and after reading (`keys.py` has it with many keys)."""
    source = random.Random(3)
    folder = setting.directory / "memory"
    folder.mkdir()
    for number in range(setting.sizes.memory_bytes >> 26):
        (folder / f"{number:03d}.bin").write_bytes(source.randbytes(1 << 20) * 64)
    setting.s3.upload("memory", folder)
    mount = setting.directory / "mnt-memory"
    rows = []
    with setting.up("memory", setting.dataset("memory", "memory"), "--mount", str(mount)):
        running = processes(setting.directory / "run" / "default.memory" / "node-0.json")
        worker, mounts = running["work"][0], running["mount"]
        time.sleep(1)
        rows += [
            at_most("PSS worker, idle", "MiB", [pss_mib(worker)], 80),
            at_most("PSS supervisor", "MiB", [pss_mib(running["supervise"][0])], 12),
        ]
        setting.cacheop("load", "memory")
        gigabytes = setting.sizes.memory_bytes / 1e9
        time.sleep(setting.sizes.settle_seconds)
        what = f"PSS worker, {setting.sizes.settle_seconds} s after filling {gigabytes:.1f} GB"
        rows.append(at_most(what, "MiB", [pss_mib(worker)], 96))
        for path in sorted(mount.rglob("*.bin")):
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
        rows.append(
            at_most("PSS mount process, after reading all", "MiB", [pss_mib(mounts[0])], 48)
        )
    return rows

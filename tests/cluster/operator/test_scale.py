"""500 Datasets at once, and what the operator then does at rest. Prints its figures."""

from __future__ import annotations

import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import ControlPlane, missing, wait_for
from tests.cluster.operator.lab import GROUP, Lab, dataset_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.operator.lab import OperatorProcess

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = int(os.environ.get("CACHEOP_TEST_DATASETS", "0"))
NAMESPACES = 10
READY_SECONDS = 240.0
REST_SECONDS = 60.0


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    if missing():
        pytest.skip(f"not built here: {', '.join(missing())}")
    if not COUNT:
        pytest.skip("takes ten minutes: CACHEOP_TEST_DATASETS=500 runs it")
    with ControlPlane() as plane:
        lab = Lab(plane)
        lab.prepare()
        yield lab


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def calls(operator: OperatorProcess) -> dict[str, int]:
    url = f"http://127.0.0.1:{operator.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if "api_calls_total{" in line]
    return {line.split("{")[1].split("}")[0]: int(line.split()[-1]) for line in lines}


def test_500_datasets(own_lab: Lab) -> None:
    lab = own_lab
    for name in ("a", "b", "c"):
        lab.node(name)
    homes = [lab.namespace() for _ in range(NAMESPACES)]
    with lab.operator("one", CACHEOP_SECRET_SECONDS=60, CACHEOP_LEASE_SECONDS=10) as operator:
        operator.wait_active()
        pid = operator.process.pid
        idle = rss_mib(pid)

        def make(number: int) -> None:
            path = f"{GROUP}/namespaces/{homes[number % NAMESPACES]}/datasets"
            lab.api.create(path, dataset_document(f"data-{number}"))

        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make, range(COUNT)))
        made = time.monotonic() - began

        def told() -> bool:
            found = lab.api.items(f"{GROUP}/datasets")
            return sum(bool((d.get("status") or {}).get("conditions")) for d in found) == COUNT

        wait_for(told, READY_SECONDS, "every Dataset has a status")
        done = time.monotonic() - began
        time.sleep(15)
        busy, before, began_rest = cpu_seconds(pid), calls(operator), time.monotonic()
        time.sleep(REST_SECONDS)
        after, rest = calls(operator), time.monotonic() - began_rest
        grown = {key: after[key] - before.get(key, 0) for key in after}
        grown = {key: count for key, count in grown.items() if count}
        cpu = (cpu_seconds(pid) - busy) / rest
        print(f"\n{COUNT} Datasets made in {made:.1f} s, all have a status after {done:.1f} s")
        print(f"CPU until then {busy:.1f} s; RSS before {idle:.0f}, after {rss_mib(pid):.0f} MiB")
        print(f"calls until then: {sum(before.values())}; {before}")
        print(f"at rest: {cpu:.1%} of a CPU, {sum(grown.values()) * 60 / rest:.0f} calls a minute")
        print(grown)
        quiet = sum(n for key, n in grown.items() if "leases" not in key and "watch" not in key)
        assert quiet <= 2 * NAMESPACES + 60
        assert len(lab.api.items("/apis/apps/v1/daemonsets")) == COUNT

"""`cacheop` as somebody uses it who has a kubeconfig: all verbs that act on a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import datasets

if TYPE_CHECKING:
    from tests.cluster.kubectl import Kubectl
    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster
COMMAND_SECONDS = 60


def cacheop(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it off a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "cacheop.cli.main", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )


def told(*words: str) -> Any:
    """The JSON that it prints, of the last line."""
    done = cacheop(*words, "-o", "json")
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return json.loads(done.stdout)


def test_the_verbs(namespace: Kubectl, origin: Origin):
    """By the API server alone, port-forward to the workers included."""
    doctor = cacheop("doctor", "--cluster")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    datasets.apply(namespace, "mine", origin)
    here = ("mine", "-n", namespace.namespace)
    assert told("load", *here)["phase"] == "Complete"
    namespace.until("status says so", lambda: told("status", *here)["cached_percentage"] == 100.0,
                    seconds=30)  # fmt: skip
    top = told("top", *here, "--count", "1")
    assert top["nodes"][0]["cached_bytes"] == origin.total_bytes
    assert told("evict", *here, "--yes")["nodes"]
    assert told("top", *here, "--count", "1")["nodes"][0]["cached_bytes"] == 0
    assert told("refresh", *here)["done"]

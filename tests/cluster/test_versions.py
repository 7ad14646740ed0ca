"""The origin changes: running pods keep what they have, new ones get the new version."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets, storm
from tests.cluster.datasets import claim_volume, inline_volume, read_by, reader
from tests.cluster.origin import content, digest, fill
from tests.cluster.storm import storm_pod

if TYPE_CHECKING:
    from tests.cluster.kubectl import Kubectl
    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster
SIZES = {"a.bin": 50_000, "b.bin": 300_000, "down/c.bin": 0, "down/d.bin": 70_000}
LIST = "import json, os; print(json.dumps(sorted(os.listdir('/cache/data'))))"


@pytest.fixture
def changing(origin: Origin, namespace: Kubectl) -> Origin:
    """A bucket of the test's own."""
    fill(origin.s3, namespace.namespace, SIZES)
    return replace(origin, bucket=namespace.namespace, sizes=SIZES)


def test_versions(namespace: Kubectl, image: str, changing: Origin):
    old = changing.digests()
    datasets.apply(namespace, "mine", changing, keepVersions=1)
    first = version_of(namespace)
    # Of this node's worker status.version is true at once; other nodes follow some seconds later.
    (home,) = datasets.workers(namespace)
    running = storm.begin(
        namespace,
        storm_pod("by-claim", image, changing, claim_volume("mine"), node=home),
        storm_pod("pinned", image, changing, inline_volume("mine", version=first), node=home),
    )
    body = content("a.bin", 60_000, "new")
    changing.put("a.bin", body)
    changing.put("new.bin", b"new")
    refresh(namespace)
    second = namespace.until(
        "there is a new version",
        lambda: (found := version_of(namespace)) != first and found,
    )
    new = {**old, "a.bin": digest(body), "new.bin": digest(b"new")}
    assert read_by(namespace, reader("new", image, claim_volume("mine"), node=home)) == new
    old_one = reader("old", image, inline_volume("mine", version=first), node=home)
    assert read_by(namespace, old_one) == old
    running.end()
    # Nobody uses it any more, and one version is to be kept.
    for item in namespace.list("pods", "cacheop.io/dataset=mine"):
        name = item["metadata"]["name"]
        namespace.until(
            f"the old version is dropped by {name}",
            lambda name=name: json.loads(namespace.execute(name, "python", "-c", LIST)) == [second],
            seconds=90,
        )


def version_of(namespace: Kubectl) -> str:
    """What new pods get."""
    return str(namespace.get("dataset", "mine")["status"]["version"])


def refresh(namespace: Kubectl) -> None:
    """As `cacheop refresh` asks for it."""
    now = dt.datetime.now(dt.UTC).isoformat()
    patch = json.dumps({"spec": {"refresh": {"requestedAt": now}}})
    namespace.run("patch", "dataset", "mine", "--type=merge", f"--patch={patch}")

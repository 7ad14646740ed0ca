"""What users do first: apply a Dataset, then read it in every way there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import datasets
from tests.cluster.datasets import claim_volume, inline_volume, read_by, reader

if TYPE_CHECKING:
    from tests.cluster.kubectl import Kubectl
    from tests.cluster.origin import Origin

pytestmark = pytest.mark.cluster
READY_SECONDS, MOUNT_SECONDS = 10.0, 2.0


def test_apply_then_read_through_the_claim(namespace: Kubectl, image: str, origin: Origin):
    began = time.monotonic()
    datasets.apply(namespace, "mine", origin)
    ready_seconds = time.monotonic() - began
    assert origin.proxy.objects_read() == 0  # applying downloads nothing but the listing
    found = read_by(namespace, reader("first", image, claim_volume("mine")))
    assert found == origin.digests()
    status = namespace.get("dataset", "mine")["status"]
    assert status["fileNum"] == len(origin.sizes)
    assert status["ufsTotalBytes"] == origin.total_bytes
    assert ready_seconds < READY_SECONDS
    # Epoch 2, by a user that nobody knows, through an inline volume: nothing from the origin.
    before = list(origin.proxy.requests)
    again = read_by(namespace, reader("second", image, inline_volume("mine"), user=424242))
    assert again == origin.digests()
    assert origin.proxy.requests == before

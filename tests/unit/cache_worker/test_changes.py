"""What of a spec may change while its worker runs."""

from __future__ import annotations

import pytest

from cache_worker.changes import compare, policy_name, quota_bytes
from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import UserError

S3 = {"mountPoint": "s3://bucket/a/"}


def dataset(name="data", **spec):
    return parse_dataset(
        {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": name},
            "spec": {"mounts": [S3], **spec},
        }
    )


def test_nothing_changed():
    assert compare(dataset(), dataset()).fields == ()


def test_what_a_change_asks_for():
    quota = {"tiers": [{"medium": "Disk", "quota": "10Gi"}]}
    change = compare(dataset(), dataset(cache=quota, suspend=True, replicas=3))
    assert set(change.fields) == {"cache", "suspend", "replicas"}
    assert (change.reopens, change.relists, change.preloads) == (False, False, False)
    change = compare(dataset(), dataset(refresh={"requestedAt": "now"}))
    assert (change.reopens, change.relists) == (False, True)
    change = compare(dataset(), dataset(mounts=[{**S3, "options": {"anon": True}}]))
    assert (change.reopens, change.relists) == (True, False)
    change = compare(dataset(), dataset(mounts=[{"mountPoint": "s3://bucket/b/"}]))
    assert (change.reopens, change.relists) == (True, True)
    assert compare(dataset(), dataset(preload=[{"path": "/x"}])).preloads


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (dataset("other"), "default/other"),
        (dataset(placement="Cluster"), "spec.placement"),
        (dataset(cache={"tiers": [{"medium": "Memory", "quota": "1Gi"}]}), "spec.cache.tiers"),
    ],
)
def test_what_cannot_change_is_refused_with_the_reason(other, words):
    with pytest.raises(UserError, match=words):
        compare(dataset(), other)


def test_whose_quota_holds():
    plain, own = (
        dataset().spec,
        dataset(cache={"tiers": [{"medium": "Disk", "quota": "10Gi"}]}).spec,
    )
    assert quota_bytes(plain, 1000, None) == 800
    assert quota_bytes(plain, 1000, 300) == 300
    assert quota_bytes(plain, 1000, 5000) == 800
    assert quota_bytes(own, 1000, 300) == 10 << 30


def test_what_is_pinned_is_not_evicted():
    assert policy_name(dataset(cache={"pin": True}).spec) == "NoEvict"
    assert policy_name(dataset().spec) == "Auto"

"""What a volume asks for, from attributes and pod info alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.csi.refusals import Refusal
from cache_worker.csi.wishes import EPHEMERAL, POD_NAMESPACE, CacheWish, DatasetWish, read

POD = {POD_NAMESPACE: "vision", "csi.storage.k8s.io/pod.name": "p", EPHEMERAL: "true"}
PERSISTENT = {**POD, EPHEMERAL: "false"}


def test_an_inline_volume_is_of_the_pods_namespace():
    wish = read({**POD, "dataset": "imagenet", "version": "abcdef12", "waitFor": "cached"})
    assert isinstance(wish, DatasetWish)
    assert (wish.namespace, wish.name, wish.uid) == ("vision", "imagenet", "")
    assert (wish.version, wish.wait_for, wish.is_client) == ("abcdef12", "cached", False)


def test_a_persistent_volume_names_its_namespace_itself():
    wish = read({**PERSISTENT, "dataset": "imagenet", "namespace": "nlp", "uid": "u-1"})
    assert isinstance(wish, DatasetWish)
    assert (wish.namespace, wish.name, wish.uid) == ("nlp", "imagenet", "u-1")


def test_a_worker_gets_its_directory():
    wish = read({**POD, "cache": "imagenet", "uid": "u-1"})
    assert isinstance(wish, CacheWish)
    assert (wish.namespace, wish.name, wish.uid) == ("vision", "imagenet", "u-1")


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"dataset": "imagenet"}, "FAILED_PRECONDITION"),
        ({**POD, "dataset": "imagenet", "namespace": "nlp"}, "PERMISSION_DENIED"),
        ({**POD, "dataset": "imagenet", "uid": "u-1"}, "INVALID_ARGUMENT"),
        ({**POD, "dataset": "imagenet", "mode": "Fast"}, "INVALID_ARGUMENT"),
        ({**PERSISTENT, "dataset": "imagenet", "namespace": "nlp"}, "INVALID_ARGUMENT"),
        ({**PERSISTENT, "dataset": "imagenet", "uid": "u"}, "INVALID_ARGUMENT"),
        ({**PERSISTENT, "cache": "imagenet", "uid": "u"}, "INVALID_ARGUMENT"),
        ({**POD, "cache": "imagenet", "uid": "u", "dataset": "imagenet"}, "INVALID_ARGUMENT"),
        ({**POD, POD_NAMESPACE: "../x", "dataset": "imagenet"}, "INVALID_ARGUMENT"),
    ],
)
def test_the_rest_is_refused(attributes, code):
    with pytest.raises(Refusal) as caught:
        read(attributes)
    assert caught.value.code == code


TEXTS = st.text(max_size=20) | st.sampled_from(["true", "false", "vision", "nlp", "..", "a/b"])
KEYS = st.sampled_from(
    [POD_NAMESPACE, EPHEMERAL, "dataset", "cache", "uid", "namespace", "version", "access"]
)


@given(st.dictionaries(KEYS, TEXTS))
def test_no_attribute_leads_out_of_a_namespace(attributes):
    try:
        wish = read(attributes)
    except Refusal:
        return
    for part in (wish.namespace, wish.name, wish.uid):
        assert "/" not in part
        assert "." not in part
        assert "\0" not in part
    if attributes[EPHEMERAL] == "true":
        assert wish.namespace == attributes[POD_NAMESPACE]
    else:
        assert isinstance(wish, DatasetWish)

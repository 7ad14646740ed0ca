from __future__ import annotations

import pytest

from cacheop.operator.eligibility import refusal
from cacheop.operator.facts import Node, Taint
from tests.fakes.cluster_facts import node, spec_of

LABELLED = Node("a", {"gpu": "8", "disk": "nvme"})


def affine(**requirement):
    terms = [{"matchExpressions": [requirement]}]
    return spec_of(nodeAffinity={"required": {"nodeSelectorTerms": terms}})


@pytest.mark.parametrize(
    ("key", "operator", "values", "fits"),
    [
        ("disk", "In", ["nvme", "ssd"], True),
        ("disk", "In", ["hdd"], False),
        ("disk", "NotIn", ["hdd"], True),
        ("absent", "NotIn", ["hdd"], True),
        ("gpu", "Exists", [], True),
        ("absent", "Exists", [], False),
        ("absent", "DoesNotExist", [], True),
        ("gpu", "Gt", ["4"], True),
        ("gpu", "Lt", ["4"], False),
        ("disk", "Gt", ["4"], False),
    ],
)
def test_affinity_is_as_the_scheduler_sees_it(key, operator, values, fits):
    spec = affine(key=key, operator=operator, values=values)
    assert (refusal(spec, LABELLED) == "") is fits


def test_fields_and_terms():
    fields = [{"key": "metadata.name", "operator": "In", "values": ["b"]}]
    terms = [{"matchFields": fields}, {}]
    spec = spec_of(nodeAffinity={"required": {"nodeSelectorTerms": terms}})
    assert refusal(spec, node("b")) == ""
    assert "nodeAffinity does not match node a" in refusal(spec, node("a"))


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration, fits):
    tainted = node("a", taints=(Taint("gpu", "yes"),))
    found = refusal(spec_of(tolerations=[toleration]), tainted)
    assert (found == "") is fits
    if not fits:
        assert "gpu=yes:NoSchedule of node a" in found


def test_what_passes_by_itself_is_no_reason():
    away = node(
        "a", taints=(Taint("node.kubernetes.io/unreachable"), Taint("x", "", "PreferNoSchedule"))
    )
    assert refusal(spec_of(tolerations=[]), away) == ""

"""The rights that the chart gives: what is needed, and never what is not."""

from __future__ import annotations

import re

import pytest

from cacheop.operator import rbac
from tests.node.chart.conftest import ROOT, VALUES, find

pytestmark = pytest.mark.node

READ = {"get", "list", "watch", "*"}


def rules(documents):
    """(role, rule) of the operator's roles."""
    return [
        (f"{document['kind']} {document['metadata'].get('namespace', '')}", rule)
        for document in documents
        if document["kind"] in {"Role", "ClusterRole"}
        and document["metadata"]["name"].startswith("cacheop-operator")
        for rule in document["rules"]
    ]


@pytest.mark.parametrize("values", VALUES)
def test_what_nobody_gets(render, values):
    for role, rule in rules(render(values)):
        verbs, resources = set(rule["verbs"]), set(rule["resources"])
        assert "*" not in verbs | resources | set(rule["apiGroups"]), (role, rule)
        assert not resources & {"pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"}
        assert not {"escalate", "bind", "impersonate"} & verbs
        if "secrets" in resources:
            assert rule["resourceNames"] == ["cacheop"]
            assert not verbs & READ
        if resources & {"nodes", "namespaces"}:
            assert verbs <= READ
        if "pods" in resources:
            assert verbs <= READ | {"delete"}
        if "rbac.authorization.k8s.io" in rule["apiGroups"]:
            raise AssertionError((role, rule))


def test_the_node_plugin_has_no_rights(render):
    for document in render("least-values"):
        if document["kind"] in {"RoleBinding", "ClusterRoleBinding"}:
            assert [subject["name"] for subject in document["subjects"]] == ["cacheop-operator"]


def test_restricted_to_namespaces_it_has_rights_in_these_only(render):
    documents = render("restricted-values")
    cluster = find(documents, "ClusterRole", "cacheop-operator")
    assert {resource for rule in cluster["rules"] for resource in rule["resources"]} == {
        "nodes", "persistentvolumes", "namespaces",
    }  # fmt: skip
    (namespaces,) = [rule for rule in cluster["rules"] if rule["resources"] == ["namespaces"]]
    assert namespaces["resourceNames"] == ["vision", "nlp"]
    roles = [d for d in documents if d["metadata"]["name"] == "cacheop-operator-datasets"]
    assert {role["metadata"]["namespace"] for role in roles} == {"vision", "nlp"}
    assert [role["rules"] for role in roles if role["kind"] == "Role"] == [
        rbac.rules(rbac.ANYWHERE)
    ] * 2


def test_edit_may_make_datasets_and_view_may_read_them(render):
    documents = render("least-values")
    edit, view = (find(documents, "ClusterRole", f"cacheop-{name}") for name in ("edit", "view"))
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    assert edit["metadata"]["labels"][f"{aggregate}edit"] == "true"
    assert view["metadata"]["labels"][f"{aggregate}view"] == "true"
    (rule,) = [rule for rule in edit["rules"] if "datasets" in rule["resources"]]
    assert {"create", "update", "patch", "delete"} <= set(rule["verbs"])
    assert all(set(rule["verbs"]) <= {"get", "list", "watch"} for rule in view["rules"])
    for role in (edit, view):
        writes = [r for r in role["rules"] if not set(r["verbs"]) <= {"get", "list", "watch"}]
        assert not [r for r in writes if any("status" in name for name in r["resources"])]


def test_the_roles_are_what_the_operator_says_it_needs(render):
    documents = render("least-values")
    everywhere = find(documents, "ClusterRole", "cacheop-operator")
    assert everywhere["rules"] == rbac.rules((*rbac.CLUSTER, *rbac.ANYWHERE))
    assert find(documents, "Role", "cacheop-operator")["rules"] == rbac.rules(rbac.SYSTEM)


def test_the_docs_have_the_same_rules(render):
    """docs/kubernetes.md has a row for each resource, with exactly its verbs."""
    docs = (ROOT / "docs/kubernetes.md").read_text()
    table = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+?) \|", docs, re.MULTILINE)
    told = {}
    for resources, verbs in table:
        for resource in resources.split(", "):
            told.setdefault(resource, set()).update(verbs.split(", "))
    given = {}
    for _, rule in rules(render("least-values")):
        for resource in rule["resources"]:
            given.setdefault(resource, set()).update(rule["verbs"])
    assert told == given

"""This machine or a cluster: what each way of asking means."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheop.cli.kube.place import Choice, cluster_is_known, means_cluster
from cacheop.local import RunRecord

HERE = [RunRecord("vision", "demo", "f.yaml", (), "", 0.0, Path("/run"))]


@pytest.mark.parametrize(
    ("name", "choice", "records", "is_known", "cluster"),
    [
        ("demo", Choice(), HERE, True, False),
        ("vision/demo", Choice(), HERE, True, False),
        ("demo", Choice(namespace="nlp"), HERE, True, True),
        ("demo", Choice(namespace="nlp"), HERE, False, False),
        ("other", Choice(), HERE, True, True),
        ("other", Choice(), HERE, False, False),
        ("", Choice(), HERE, True, False),
        ("", Choice(), [], True, True),
        ("", Choice(), [], False, False),
        ("", Choice(namespace="nlp"), HERE, True, True),
        ("demo", Choice(context="prod"), HERE, True, True),
        ("demo", Choice(kubeconfig="/k"), HERE, False, True),
    ],
)
def test_what_is_meant(name, choice, records, is_known, cluster):
    assert means_cluster(records, name, choice, is_known=is_known) is cluster


def test_a_kubeconfig_is_looked_for_where_kubectl_does(tmp_path):
    assert not cluster_is_known({})
    assert not cluster_is_known({"HOME": str(tmp_path)})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text("")
    assert cluster_is_known({"HOME": str(tmp_path)})
    # One that is named and not there is not replaced by another.
    assert not cluster_is_known({"HOME": str(tmp_path), "KUBECONFIG": "/nowhere"})
    both = f"/nowhere:{tmp_path}/.kube/config"
    assert cluster_is_known({"KUBECONFIG": both})

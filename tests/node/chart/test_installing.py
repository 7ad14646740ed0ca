"""The chart on a real API server: what it makes of it, what stays over upgrades, who may what."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from tests.cluster.operator.control_plane import ControlPlane, binary, missing, wait_for
from tests.node.chart.conftest import CHART, NAMESPACE, VALUES, run

pytestmark = pytest.mark.node
OPERATOR = f"--as=system:serviceaccount:{NAMESPACE}:cacheop-operator"


class Cluster:
    """kubectl as the administrator."""

    def __init__(self, program, plane):
        self.has_controllers = plane.has_controllers
        self.kubeconfig = plane.kubeconfig(plane.admin)
        self._command = [program, f"--kubeconfig={self.kubeconfig}"]

    def kubectl(self, *arguments, given="", check=True):
        return run([*self._command, *arguments], given=given, check=check)

    def json(self, *arguments):
        return json.loads(self.kubectl(*arguments, "--output=json"))


@pytest.fixture(scope="module")
def cluster():
    kubectl = binary("kubectl") or shutil.which("kubectl")
    lacking = missing() + ([] if kubectl else ["kubectl"])
    if lacking:
        pytest.skip(f"not built here: {', '.join(lacking)}")
    with ControlPlane() as plane:
        found = Cluster(kubectl, plane)
        for namespace in (NAMESPACE, "vision", "nlp", "elsewhere"):
            found.kubectl("create", "namespace", namespace)
        yield found


@pytest.fixture(scope="module")
def on(helm, cluster):
    """helm against that server, in the system namespace."""

    def call(verb, *arguments, check=True):
        where = (f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}")
        return helm(verb, *arguments, *where, check=check)

    return call


def values(name):
    return ("--values", f"{CHART}/ci/{name}.yaml")


@pytest.fixture(scope="module")
def installed(on, cluster):
    on("install", "cacheop", str(CHART), *values("least-values"))
    return cluster


def secrets(cluster):
    names = ("cacheop-master", "cacheop-redis")
    found = {
        name: cluster.json("get", "secret", name, f"--namespace={NAMESPACE}") for name in names
    }
    return {name: (secret["data"], secret["metadata"]["uid"]) for name, secret in found.items()}


def test_keys_stay_over_upgrades_and_work_for_redis_and_operator(installed, on):
    before = secrets(installed)
    on("upgrade", "cacheop", str(CHART), *values("least-values"), "--set=operator.replicas=2")
    assert secrets(installed) == before
    key, password, auth = (
        base64.b64decode(before[secret][0][name]).decode()
        for secret, name in (
            ("cacheop-master", "key"),
            ("cacheop-redis", "password"),
            ("cacheop-redis", "auth.conf"),
        )
    )
    assert len(key) >= 64
    assert auth == f"requirepass {password}\n"
    assert len(password) == 48


def test_who_renders_without_looking_cannot_replace_the_master_key(installed, helm, tmp_path):
    """As Argo CD does."""
    before = secrets(installed)
    words = (f"--namespace={NAMESPACE}", "--show-only=templates/secrets.yaml")
    text = helm("template", "cacheop", str(CHART), *values("least-values"), *words)
    said = installed.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f-", given=text, check=False
    )
    assert "immutable" in said
    assert secrets(installed) == before


@pytest.mark.parametrize("name", VALUES)
def test_the_api_server_takes_every_object(cluster, helm, name):
    """Every field is known and valid: --validate=strict, server-side dry run."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files/crds"))
    words = [*values(name), f"--namespace={NAMESPACE}"]
    if name == "everything-values":  # kinds of the Prometheus operator are not there
        words += ["--set=monitoring.podMonitor.enabled=false"]
        words += ["--set=monitoring.prometheusRule.enabled=false"]
        words += ["--set=redis.clusterIP="]  # that of a Service that is there cannot change
    # What is there already is not of interest here, and a key is never replaced.
    text = "\n---\n".join(
        part
        for part in helm("template", "cacheop", str(CHART), *words).split("\n---\n")
        if "immutable: true" not in part
    )
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    said = cluster.kubectl(*apply, "-f-", given=text)
    assert said.count("serverside-applied") >= 15
    assert "Warning" not in said


def test_the_operator_writes_its_one_secret_and_reads_none(installed):
    def apply(name):
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "vision"},
            "stringData": {"a": "b"},
        }
        words = ("apply", "--server-side", "--field-manager=cacheop", "-f-", OPERATOR)
        return installed.kubectl(*words, given=json.dumps(secret), check=False)

    assert "serverside-applied" in apply("cacheop")  # made
    assert "serverside-applied" in apply("cacheop")  # and again
    assert "cannot patch" in apply("another")
    for words in (("get", "secret", "cacheop"), ("get", "secrets")):
        said = installed.kubectl(*words, "--namespace=vision", OPERATOR, check=False)
        assert "forbidden" in said.lower()
    installed.kubectl("delete", "secret", "cacheop", "--namespace=vision", OPERATOR)


@pytest.mark.parametrize(
    ("words", "may"),
    [
        (("create", "pods", "--subresource=exec"), "no"),
        (("create", "pods"), "no"),
        (("patch", "nodes"), "no"),
        (("get", "secrets"), "no"),
        (("create", "clusterroles"), "no"),
        (("patch", "datasets.cacheop.io", "--subresource=status"), "yes"),
        (("create", "datasets.cacheop.io"), "no"),
        (("create", "daemonsets.apps"), "yes"),
        (("list", "nodes"), "yes"),
        (("update", "leases.coordination.k8s.io/cacheop-operator"), "no"),
    ],
)
def test_what_the_operator_may_in_a_users_namespace(installed, words, may):
    said = installed.kubectl("auth", "can-i", *words, "--namespace=vision", OPERATOR, check=False)
    assert said.split()[-1] == may


@pytest.mark.parametrize(
    ("role", "verb", "what", "may"),
    [
        ("edit", "create", "datasets.cacheop.io", "yes"),
        ("edit", "delete", "dataloads.cacheop.io", "yes"),
        ("edit", "get", "datasets.cacheop.io", "yes"),
        ("edit", "patch", "datasets.cacheop.io/status", "no"),
        ("view", "watch", "datasets.cacheop.io", "yes"),
        ("view", "create", "datasets.cacheop.io", "no"),
    ],
)
def test_people_may_what_kubernetes_own_roles_say(installed, role, verb, what, may):
    if not installed.has_controllers:
        pytest.skip("kube-controller-manager, which aggregates roles, is not built here")
    words = ("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er")
    installed.kubectl(*words, "--namespace=vision", check=False)  # or it is there
    resource, _, sub = what.partition("/")
    ask = ("auth", "can-i", verb, resource, *([f"--subresource={sub}"] if sub else []))

    def answer():
        said = installed.kubectl(*ask, "--namespace=vision", f"--as={role}er", check=False)
        return said.split()[-1]

    if may == "yes":
        wait_for(lambda: answer() == "yes", 10, f"{role} may {verb} {what}")
    assert answer() == may


def test_uninstalling_keeps_datasets_and_the_master_key(installed, on):
    dataset = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "mine", "namespace": "vision"},
        "spec": {"mounts": [{"mountPoint": "s3://bucket/"}]},
    }
    installed.kubectl("apply", "-f-", given=json.dumps(dataset))
    before = secrets(installed)["cacheop-master"]
    on("uninstall", "cacheop")
    assert installed.json("get", "dataset", "mine", "--namespace=vision")["spec"]["mounts"]
    assert not installed.json("get", "clusterroles", "-l", "app.kubernetes.io/name=cacheop")[
        "items"
    ]
    on("install", "cacheop", str(CHART), *values("least-values"))
    assert secrets(installed)["cacheop-master"] == before

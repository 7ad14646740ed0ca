"""What the chart renders, without a cluster."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time

import pytest
import yaml

from cacheop.api.scheduling import Toleration
from cacheop.operator import naming
from cacheop.operator.settings import from_environment
from release import images as release_images
from tests.fakes.redis_server import MISSING, SERVER, free_port
from tests.node.chart.conftest import CHART, NAMESPACE, ROOT, VALUES, find

pytestmark = pytest.mark.node


@pytest.mark.parametrize("values", VALUES)
def test_helm_lint_has_nothing_to_say(helm, values):
    said = helm("lint", "--strict", str(CHART), f"--values={CHART}/ci/{values}.yaml", check=False)
    assert "0 chart(s) failed" in said, said
    assert "[WARNING]" not in said, said
    assert "[ERROR]" not in said, said


def test_without_cache_dirs_it_says_what_to_do(helm):
    said = helm("template", "cacheop", str(CHART), check=False)
    assert "node.cacheDirs is not set" in said
    assert "--set 'node.cacheDirs={/mnt/nvme/cacheop}'" in said


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("node.cacheDirs", ["relative"]),
        ("node.cacheDirs", ["/ends/with/"]),
        ("node.cachedirs", ["/mnt"]),
        ("operator.replicas", "two"),
        ("worker.podLabels", {"app.kubernetes.io/name": "mine"}),
        ("redis.external.url", "redis://user:password@host:6379"),
        ("image.digest", "latest"),
    ],
)
def test_wrong_values_are_refused(helm, path, wrong):
    words = [f"--values={CHART}/ci/least-values.yaml", f"--set-json={path}={json.dumps(wrong)}"]
    said = helm("template", "cacheop", str(CHART), *words, check=False)
    assert "don't meet the specifications of the schema" in said
    assert path.rpartition(".")[2] in said


def pod_of(documents, kind, name):
    return find(documents, kind, name)["spec"]["template"]["spec"]


def pods(documents):
    """(name, pod spec) of all that makes pods."""
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] in {"Deployment", "DaemonSet"}:
            yield name, document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield name, document["spec"]


@pytest.mark.parametrize("values", VALUES)
def test_only_the_node_plugin_is_more_than_restricted(render, values):
    for name, pod in pods(render(values)):
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            if name == "DaemonSet cacheop-node":
                assert security["privileged"] is True
                continue
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        if name != "Deployment cacheop-operator":
            assert pod["automountServiceAccountToken"] is False, name


@pytest.mark.parametrize("values", VALUES)
def test_every_object_has_our_labels_and_a_namespace_where_it_needs_one(render, values):
    anywhere = {"CustomResourceDefinition", "CSIDriver", "PriorityClass"}
    anywhere |= {"ClusterRole", "ClusterRoleBinding"}
    for document in render(values):
        metadata = document["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "cacheop", metadata
        assert ("namespace" in metadata) != (document["kind"] in anywhere), document


# -- images ---------------------------------------------------------------------------------------


def images(documents):
    found = {container["image"] for _, pod in pods(documents) for container in pod["containers"]}
    operator = find(documents, "Deployment", "cacheop-operator")
    return found | {environment(operator)["CACHEOP_IMAGE"]}


def environment(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_one_value_sets_the_registry_of_all_images(render):
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert images(render("least-values")) == {
        f"ghcr.io/cacheop/cacheop:{version}",
        "docker.io/library/redis:7.2-alpine",
    }
    assert images(render("least-values")) == set(release_images.names())
    mirrored = images(render("least-values", registry='"r.example.com/m/"'))
    assert mirrored == {f"r.example.com/m/cacheop:{version}", "r.example.com/m/redis:7.2-alpine"}
    digests = [image for image in images(render("everything-values")) if "cacheop" in image]
    assert all(image.startswith("registry.example.com/cacheop@sha256:") for image in digests)


def test_the_docs_command_prints_the_images(helm, render):
    docs = (ROOT / "docs/kubernetes.md").read_text()
    (pattern,) = re.findall(r"^helm template .* \| grep -oE '(.*)' \| sort -u$", docs, re.MULTILINE)
    text = helm("template", "cacheop", str(CHART), "--set", "node.cacheDirs={/x}")
    printed = re.findall(pattern, text, re.MULTILINE)
    assert {line.split("image: ")[1] for line in printed} == images(render("least-values"))


def test_pull_secrets_reach_every_pod(render):
    documents = render("everything-values")
    assert [p["imagePullSecrets"] for _, p in pods(documents)] == [[{"name": "registry"}]] * 5


# -- the operator ---------------------------------------------------------------------------------


def settings_of(documents, tmp_path):
    """What the operator makes of its environment."""
    told = environment(find(documents, "Deployment", "cacheop-operator"))
    key = tmp_path / "key"
    key.write_bytes(b"k" * 64)
    told |= {"CACHEOP_MASTER_KEY_FILE": str(key), "CACHEOP_NAMESPACE": NAMESPACE}
    return from_environment({name: value for name, value in told.items() if value is not None})


def test_the_operator_reads_its_defaults(render, tmp_path):
    settings = settings_of(render("least-values"), tmp_path)
    assert settings.namespaces == ()
    assert settings.master.epoch == 1
    assert settings.http_port == 8080
    assert settings.drain_seconds == 300
    assert settings.redis_admin == ""
    assert str(settings.redis_password_file) == "/etc/cacheop/redis/password"
    worker = settings.worker
    assert worker.annotations == {"sidecar.istio.io/inject": "false"}
    assert (worker.cpu_request, worker.memory) == ("20m", "512Mi")
    assert worker.priority_class == "cacheop-worker"
    assert worker.tolerations == (Toleration(operator="Exists"),)


def test_the_operator_reads_what_was_set(render, tmp_path):
    settings = settings_of(render("restricted-values"), tmp_path)
    assert settings.namespaces == ("vision", "nlp")
    assert settings.master.epoch == 3
    assert settings.redis_url == "rediss://redis.example.com:6380/2"
    assert settings.redis_admin == "cacheop"
    worker = settings.worker
    assert worker.image == "registry.example.com/mirror/cacheop:1.2.3"
    assert worker.labels == {"team": "vision"}
    assert worker.annotations["linkerd.io/inject"] == "disabled"
    assert worker.pull_secrets == ("registry",)
    assert worker.priority_class == "batch"
    assert worker.memory == "1Gi"
    assert worker.tolerations == (Toleration(key="gpu", operator="Exists"),)


def test_every_variable_is_one_that_the_operator_reads(render):
    source = "".join(path.read_text() for path in (ROOT / "cacheop/operator").glob("*.py"))
    for values in VALUES:
        told = environment(find(render(values), "Deployment", "cacheop-operator"))
        assert [name for name in told if f'"{name}"' not in source] == []


# -- the node plugin ------------------------------------------------------------------------------


def test_the_node_plugin_sees_the_directories_that_it_is_told(render):
    plugin = find(render("restricted-values"), "DaemonSet", "cacheop-node")
    pod = plugin["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    kubelet = "/var/snap/microk8s/common/var/lib/kubelet"
    mounts = {
        mount["mountPath"]: mount["name"]
        for mount in container["volumeMounts"]
        if mount.get("mountPropagation") == "Bidirectional"
    }
    assert set(mounts) == {kubelet, "/mnt/nvme0/cacheop", "/mnt/nvme1/cacheop"}
    paths = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert {paths[name]: path for path, name in mounts.items()} == {path: path for path in mounts}
    assert plugin["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
    probe = container["readinessProbe"]["exec"]["command"]
    assert probe == ["python", "-m", "cache_worker", "node-ready", kubelet]


def test_the_node_plugin_understands_its_arguments(render):
    plugin = pytest.importorskip("cache_worker.csi.node")
    documents = render("restricted-values"), render("everything-values")
    first, second = (
        plugin.parse(
            find(d, "DaemonSet", "cacheop-node")["spec"]["template"]["spec"]["containers"][0][
                "args"
            ]
        )
        for d in documents
    )
    assert first.cache_dir == ["/mnt/nvme0/cacheop", "/mnt/nvme1/cacheop"]
    assert first.kubelet_dir == "/var/snap/microk8s/common/var/lib/kubelet"
    assert (first.node, first.datasets) == ("$(CACHEOP_NODE)", "/etc/cacheop/datasets")
    assert (first.allow_root_disk, second.allow_root_disk) == (False, True)


def test_shards_of_the_list_of_datasets_are_projected_and_writable_by_the_operator(render):
    documents = render("least-values")
    pod = find(documents, "DaemonSet", "cacheop-node")["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
    shards = [source["configMap"] for source in volume["projected"]["sources"]]
    names = ["cacheop-datasets", *(f"cacheop-datasets-{k}" for k in range(1, 16))]
    assert [shard["name"] for shard in shards] == names
    assert names == [naming.datasets_name(shard) for shard in range(naming.SHARDS_MAX)]
    assert all(shard["optional"] for shard in shards)
    rules = find(documents, "Role", "cacheop-operator")["rules"]
    (rule,) = [rule for rule in rules if rule["resources"] == ["configmaps"]]
    assert rule["resourceNames"] == names


# -- Redis ----------------------------------------------------------------------------------------


def test_redis_of_the_chart_and_elsewhere_and_none(render):
    own = render("least-values")
    told = environment(find(own, "Deployment", "cacheop-operator"))
    assert told["CACHEOP_REDIS_URL"] == f"redis://cacheop-redis.{NAMESPACE}.svc:6379/0"
    lines = find(own, "ConfigMap", "cacheop-redis")["data"]["redis.conf"].splitlines()
    assert {'save ""', "appendonly no", "include /etc/cacheop/redis/auth.conf"} <= set(lines)
    elsewhere = render("restricted-values")
    operator = find(elsewhere, "Deployment", "cacheop-operator")
    told = environment(operator)
    assert told["CACHEOP_REDIS_URL"] == "rediss://redis.example.com:6380/2"
    assert told["CACHEOP_REDIS_ADMIN"] == "cacheop"
    volumes = {v["name"]: v for v in operator["spec"]["template"]["spec"]["volumes"]}
    assert volumes["redis"]["secret"]["items"] == [{"key": "secret", "path": "password"}]
    assert volumes["master"]["secret"]["secretName"] == "mine"
    assert told["CACHEOP_MASTER_KEY_FILE"] == "/etc/cacheop/master/master"
    for documents in (elsewhere, render("nothing-extra-values")):
        assert not [d for d in documents if "redis" in d["metadata"]["name"]]
    told = environment(find(render("nothing-extra-values"), "Deployment", "cacheop-operator"))
    assert "CACHEOP_REDIS_URL" not in told
    assert "CACHEOP_REDIS_PASSWORD_FILE" not in told


@pytest.mark.skipif(SERVER is None or shutil.which("redis-cli") is None, reason=MISSING)
def test_a_real_redis_takes_the_configuration_and_asks_for_the_password(render, tmp_path):
    documents = render("least-values")
    port = free_port()
    configuration = find(documents, "ConfigMap", "cacheop-redis")["data"]["redis.conf"]
    configuration = configuration.replace("/etc/cacheop/redis", str(tmp_path))
    configuration = configuration.replace("dir /tmp", f"dir {tmp_path}")
    configuration = configuration.replace("port 6379", f"bind 127.0.0.1\nport {port}")
    (tmp_path / "redis.conf").write_text(configuration)
    secret = find(documents, "Secret", "cacheop-redis")["data"]
    (tmp_path / "auth.conf").write_bytes(base64.b64decode(secret["auth.conf"]))
    server = subprocess.Popen([SERVER, str(tmp_path / "redis.conf")], stdout=subprocess.PIPE)

    def ask(*words, password=""):
        environment = {"REDISCLI_AUTH": password} if password else {}
        command = ["redis-cli", "-p", str(port), *words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10, check=False
        )
        return done.stdout.split()

    try:
        deadline = time.monotonic() + 10
        while ask("PING")[:1] != ["NOAUTH"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        password = base64.b64decode(secret["password"]).decode()
        assert ask("PING", password=password) == ["PONG"]
        assert ask("CONFIG", "GET", "save", password=password) == ["save"]
        assert ask("CONFIG", "GET", "appendonly", password=password) == ["appendonly", "no"]
        assert ask("CONFIG", "GET", "maxmemory-policy", password=password)[1] == "noeviction"
    finally:
        server.kill()
        server.communicate(timeout=10)


# -- switches -------------------------------------------------------------------------------------


def names(documents, kind):
    return {d["metadata"]["name"] for d in documents if d["kind"] == kind}


def test_switches(render):
    least, everything, nothing = (
        render(f"{name}-values") for name in ("least", "everything", "nothing-extra")
    )
    assert names(least, "PodMonitor") == names(least, "PrometheusRule") == set()
    assert names(least, "PodDisruptionBudget") == set()
    assert names(everything, "PodDisruptionBudget") == {"cacheop-operator"}
    assert names(everything, "PodMonitor") == {"cacheop-workers", "cacheop-operator"}
    assert names(everything, "PrometheusRule") == {"cacheop"}
    assert names(least, "PriorityClass") == {"cacheop-system", "cacheop-worker"}
    worker = find(least, "PriorityClass", "cacheop-worker")
    assert worker["preemptionPolicy"] == "Never"
    assert names(least, "NetworkPolicy") == {"cacheop-operator", "cacheop-node", "cacheop-redis"}
    crds = {"datasets.cacheop.io", "dataloads.cacheop.io"}
    assert names(least, "CustomResourceDefinition") == crds
    for kind in ("PriorityClass", "NetworkPolicy", "CustomResourceDefinition"):
        assert names(nothing, kind) == set()
    assert not [name for name, pod in pods(nothing) if "priorityClassName" in pod]


def test_the_crds_are_the_repositorys_and_stay_when_the_chart_goes(render):
    for document in render("least-values"):
        if document["kind"] != "CustomResourceDefinition":
            continue
        plural = document["spec"]["names"]["plural"]
        (crd,) = yaml.safe_load_all((ROOT / f"crds/{plural}.yaml").read_text())
        assert document["spec"] == crd["spec"]
        assert document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_master_key_is_long_random_and_cannot_be_replaced_by_mistake(render):
    twice = (render("least-values"), render("least-values", registry='"another"'))
    secrets = [find(documents, "Secret", "cacheop-master") for documents in twice]
    assert secrets[0]["data"] != secrets[1]["data"]
    for secret in secrets:
        assert len(secret["data"]["key"]) >= 64
        assert secret["immutable"] is True
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_csi_driver(render):
    driver = find(render("least-values"), "CSIDriver", "cacheop.io")
    assert driver["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": True,
        "volumeLifecycleModes": ["Persistent", "Ephemeral"],
        "fsGroupPolicy": "None",
        "requiresRepublish": False,
        "storageCapacity": False,
        "seLinuxMount": False,
    }
    label = "security.openshift.io/csi-ephemeral-volume-profile"
    assert driver["metadata"]["labels"][label] == "restricted"


def test_fixed_addresses_stand_in_for_dns(render):
    documents = render("everything-values")
    for service, address in (("cacheop-redis", "10.96.7.7"), ("cacheop-test", "10.96.7.8")):
        assert find(documents, "Service", service)["spec"]["clusterIP"] == address
    told = environment(find(documents, "Deployment", "cacheop-operator"))
    assert told["CACHEOP_REDIS_URL"] == "redis://10.96.7.7:6379/0"
    mount = find(documents, "Dataset", "cacheop-test")["spec"]["mounts"][0]["mountPoint"]
    assert mount == "http://10.96.7.8:8000/"


def test_the_test_runs_where_datasets_are_looked_after(render):
    for values, namespace in (
        ("least-values", NAMESPACE),
        ("restricted-values", "vision"),
        ("nothing-extra-values", "elsewhere"),
    ):
        documents = render(values)
        hooks = [d for d in documents if "helm.sh/hook" in d["metadata"].get("annotations", {})]
        assert {d["metadata"]["namespace"] for d in hooks} == {namespace}
        (dataset,) = [d for d in hooks if d["kind"] == "Dataset"]
        mount = dataset["spec"]["mounts"][0]["mountPoint"]
        assert mount == f"http://cacheop-test.{namespace}.svc:8000/"

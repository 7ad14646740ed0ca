"""The cluster itself: what every other test here stands on."""

from __future__ import annotations

import hashlib
import json
import secrets
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kubectl import KubectlError
from tests.cluster.pods import pod

if TYPE_CHECKING:
    from examples.demo.server import S3Server
    from tests.cluster.kubectl import Kubectl, Object

pytestmark = pytest.mark.cluster

SERVE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = os.environ["HOSTNAME"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
FETCH = """
import sys, urllib.request
for address in sys.argv[2:]:
    for _ in range(int(sys.argv[1])):
        print(urllib.request.urlopen(f"http://{address}:8080", timeout=5).read().decode())
"""
LOOK = """
import json, os, pathlib
maps = pathlib.Path("/proc/self/maps").read_text()
caps = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
writable = os.access("/opt/cacheop", os.W_OK) or os.access("/", os.W_OK)
print(json.dumps({"uid": os.getuid(), "jemalloc": "jemalloc" in maps, "caps": caps,
                  "writable": writable}))
"""
ASK_API = """
import json, os, ssl, urllib.request
where = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=f"{where}/ca.crt")
host = os.environ["KUBERNETES_SERVICE_HOST"]
request = urllib.request.Request(f"https://{host}/version",
    headers={"Authorization": "Bearer " + open(f"{where}/token").read()})
print(json.load(urllib.request.urlopen(request, context=context, timeout=5))["major"])
"""
READ_S3 = """
import hashlib, json, os, sys, fsspec
options = json.loads(sys.argv[1])
with fsspec.open(sys.argv[2], **options) as file:
    print(hashlib.sha256(file.read()).hexdigest())
"""


def test_both_nodes_are_ready_and_have_a_zone(cluster: Kubectl, nodes: list[str]):
    assert len(nodes) >= 2
    for item in cluster.list("nodes"):
        assert item["metadata"]["labels"]["topology.kubernetes.io/zone"]
        ready = [one for one in item["status"]["conditions"] if one["type"] == "Ready"]
        assert [one["status"] for one in ready] == ["True"]


def test_the_image_runs_restricted_on_each_node(namespace: Kubectl, nodes: list[str], image: str):
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    for node in nodes:
        namespace.apply(
            pod(f"version-{node}", image, ["cacheop", "--version"], node=node),
            pod(f"look-{node}", image, ["python", "-c", LOOK], node=node, user=65532),
        )
    for node in nodes:
        assert namespace.output_of(f"version-{node}").strip() == version
        seen = json.loads(namespace.output_of(f"look-{node}"))
        assert seen == {"uid": 65532, "jemalloc": True, "caps": ["0" * 16], "writable": False}


def test_pod_security_is_enforced(namespace: Kubectl, image: str):
    """Else what passes here would prove nothing."""
    privileged = pod("root", image, ["true"])
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        namespace.apply(privileged)


def test_services_lead_to_pods(namespace: Kubectl, nodes: list[str], image: str):
    """By ClusterIP: everywhere, or on the client's own node; headless: by the addresses."""
    servers = {node: f"server-{number}" for number, node in enumerate(nodes)}
    for node, name in servers.items():
        namespace.apply(
            pod(name, image, ["python", "-c", SERVE], node=node, port=8080, labels={"app": "web"})
        )
    namespace.apply(
        _service("anywhere"),
        _service("here", internalTrafficPolicy="Local"),
        _service("addresses", clusterIP="None"),
    )
    namespace.ready(*servers.values())
    everyone = sorted(servers.values())
    addresses = namespace.until(
        "the headless service has all addresses", lambda: _addresses(namespace, len(servers))
    )
    anywhere = namespace.get("service", "anywhere")["spec"]["clusterIP"]
    here = namespace.get("service", "here")["spec"]["clusterIP"]
    for node, own in servers.items():
        fetch = ["python", "-c", FETCH]
        name = f"client-of-{own}"
        namespace.apply(
            pod(f"{name}-anywhere", image, [*fetch, "20", anywhere], node=node),
            pod(f"{name}-here", image, [*fetch, "20", here], node=node),
            pod(f"{name}-each", image, [*fetch, "1", *addresses], node=node),
        )
        assert set(namespace.output_of(f"{name}-anywhere").split()) == set(everyone)
        assert set(namespace.output_of(f"{name}-here").split()) == {own}
        assert sorted(namespace.output_of(f"{name}-each").split()) == everyone


def test_a_pod_reaches_the_api(namespace: Kubectl, nodes: list[str], image: str):
    for node in nodes:
        namespace.apply(pod(f"ask-{node}", image, ["python", "-c", ASK_API], node=node))
    for node in nodes:
        assert namespace.output_of(f"ask-{node}").strip() == "1"


def test_a_pod_reads_from_s3(namespace: Kubectl, nodes: list[str], image: str, s3: S3Server):
    content = secrets.token_bytes(3_000_000)
    s3.http.make_bucket("pods")
    s3.http.put("pods", "content", content)
    options = json.dumps(
        {"key": s3.access_key, "secret": s3.secret_key, "endpoint_url": s3.endpoint}
    )
    read = ["python", "-c", READ_S3, options, "s3://pods/content"]
    for node in nodes:
        namespace.apply(pod(f"read-{node}", image, read, node=node))
    for node in nodes:
        assert namespace.output_of(f"read-{node}").strip() == hashlib.sha256(content).hexdigest()


def _service(name: str, **spec: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080}], **spec},
    }


def _addresses(namespace: Kubectl, count: int) -> list[str]:
    found = [
        address
        for item in namespace.list("endpointslices", "kubernetes.io/service-name=addresses")
        for endpoint in item["endpoints"] or []
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    ]
    return found if len(found) == count else []

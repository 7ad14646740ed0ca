"""`cacheop doctor --cluster`: what a cluster lacks, before and after installing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CacheopError, WorkerUnavailable
from cacheop.api.names import API_GROUP
from cacheop.cli import doctor, output
from cacheop.cli.kube import preflight
from cacheop.cli.kube.access import Cluster
from cacheop.cli.kube.preflight import SYSTEM_NAMESPACE, Facts
from cacheop.cli.kube.rights import Right, rights

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacheop.cli.kube.place import Choice
    from cacheop.cli.output import Format

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_APPS = f"/apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}"
AT_ONCE = 8


def run(choice: Choice, fmt: Format) -> int:
    """Print the findings; exit code 1 when one is a FAIL."""
    cluster = Cluster(choice)
    output.note(f"{cluster}, namespace {cluster.namespace}", fmt)
    return doctor.report(preflight.findings(gather(cluster)), fmt)


def gather(cluster: Cluster) -> Facts:
    """Everything that preflight looks at. WorkerUnavailable when the API server is away."""
    refused: dict[str, str] = {}

    def read(field: str, call: Callable[[], Any], default: Any) -> Any:
        try:
            return call()
        except WorkerUnavailable:
            raise
        except CacheopError as error:
            refused[field] = error.message
            return default

    def labelled(component: str, plural: str) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/name=cacheop,app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = cluster.get(f"{_APPS}/{plural}", labelSelector=selector)[
            "items"
        ]
        return found

    version = str(cluster.get("/version").get("gitVersion") or "")
    return Facts(
        cluster=str(cluster),
        namespace=cluster.namespace,
        version=version,
        nodes=read("nodes", lambda: cluster.get("/api/v1/nodes")["items"], ()),
        crds=read("crds", lambda: {n: cluster.find(f"{_CRDS}/{n}") for n in preflight.CRDS}, {}),
        driver=read(
            "driver", lambda: cluster.find(f"/apis/storage.k8s.io/v1/csidrivers/{API_GROUP}"), None
        ),
        operators=read("operators", lambda: labelled("operator", "deployments"), ()),
        plugins=read("plugins", lambda: labelled("node", "daemonsets"), ()),
        system=read("system", lambda: cluster.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}"), None),
        rights=_rights(cluster),
        refused=refused,
    )


def _rights(cluster: Cluster) -> dict[Right, bool]:
    def ask(right: Right) -> bool:
        answer = cluster.create(_REVIEWS, right.review())
        return bool((answer.get("status") or {}).get("allowed"))

    asked = rights(cluster.namespace, SYSTEM_NAMESPACE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(asked, pool.map(ask, asked), strict=True))

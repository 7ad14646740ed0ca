"""The control plane: etcd, API server, controllers, scheduler, and who may log in."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from tests.cluster.lab import build
from tests.cluster.lab.machines import run
from tests.cluster.lab.network import (
    API_SERVICE_ADDRESS,
    CONTROL,
    NODES,
    POD_RANGE,
    SERVICE_RANGE,
)
from tests.cluster.lab.places import KUBECONFIG, STATE

if TYPE_CHECKING:
    from pathlib import Path

SERVER = f"https://{CONTROL.address}:6443"
PKI = STATE / "pki"
CERTIFICATE_DAYS = "30"
# Who logs in, with which groups. Each with the rights it has on a real cluster, the first with all.
ADMIN = "admin"
USERS = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    **{f"system:node:{node.name}": "system:nodes" for node in NODES},
}


def prepare() -> None:
    """Keys, certificates and log-ins, once for each life of the cluster."""
    if KUBECONFIG.exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    _certificates()
    tokens = {user: secrets.token_hex(16) for user in USERS}
    lines = [f'{tokens[user]},{user},{user},"{groups}"' for user, groups in USERS.items()]
    (PKI / "tokens.csv").write_text("\n".join(lines) + "\n")
    for user in USERS:
        _write_kubeconfig(kubeconfig(user), user, tokens[user])


def kubeconfig(user: str) -> Path:
    """The file with which this user logs in."""
    return KUBECONFIG if user == ADMIN else PKI / f"{user.replace(':', '-')}.kubeconfig"


def daemons() -> dict[str, list[str]]:
    """What the control machine runs."""
    store = f"http://127.0.0.1:{2379}"
    controllers, scheduler = "system:kube-controller-manager", "system:kube-scheduler"
    return {
        "etcd": [
            str(build.binary("etcd")),
            f"--data-dir={CONTROL.directory / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            "--unsafe-no-fsync",  # it need not outlive the power
        ],
        "kube-apiserver": _api_server(store),
        "kube-controller-manager": [
            str(build.binary("kube-controller-manager")),
            f"--kubeconfig={kubeconfig(controllers)}",
            f"--service-account-private-key-file={PKI / 'accounts.key'}",
            f"--root-ca-file={PKI / 'ca.crt'}",
            "--use-service-account-credentials",
            f"--cluster-cidr={POD_RANGE}",
            "--allocate-node-cidrs=false",
            "--leader-elect=false",
        ],
        "kube-scheduler": [
            str(build.binary("kube-scheduler")),
            f"--kubeconfig={kubeconfig(scheduler)}",
            "--leader-elect=false",
        ],
    }


def _api_server(store: str) -> list[str]:
    return [
        str(build.binary("kube-apiserver")),
        f"--etcd-servers={store}",
        f"--tls-cert-file={PKI / 'api.crt'}",
        f"--tls-private-key-file={PKI / 'api.key'}",
        f"--client-ca-file={PKI / 'ca.crt'}",
        f"--token-auth-file={PKI / 'tokens.csv'}",
        f"--service-account-key-file={PKI / 'accounts.key'}",
        f"--service-account-signing-key-file={PKI / 'accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--advertise-address={CONTROL.address}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def _certificates() -> None:
    def openssl(*arguments: str) -> None:
        run(["openssl", *arguments])

    key = ["-newkey", "rsa:2048", "-nodes"]
    openssl("genrsa", "-out", str(PKI / "accounts.key"), "2048")
    openssl("req", "-x509", *key, "-keyout", str(PKI / "ca.key"), "-out", str(PKI / "ca.crt"),
            "-subj", "/CN=cacheop-lab", "-days", CERTIFICATE_DAYS)  # fmt: skip
    openssl("req", *key, "-keyout", str(PKI / "api.key"), "-out", str(PKI / "api.csr"),
            "-subj", "/CN=kube-apiserver")  # fmt: skip
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    addresses = ["127.0.0.1", API_SERVICE_ADDRESS, CONTROL.address]
    alternatives = [f"DNS:{name}" for name in names] + [f"IP:{one}" for one in addresses]
    extensions = PKI / "api.ext"
    extensions.write_text(f"subjectAltName={','.join(alternatives)}")
    openssl("x509", "-req", "-in", str(PKI / "api.csr"), "-out", str(PKI / "api.crt"),
            "-CA", str(PKI / "ca.crt"), "-CAkey", str(PKI / "ca.key"), "-CAcreateserial",
            "-days", CERTIFICATE_DAYS, "-extfile", str(extensions))  # fmt: skip


def _write_kubeconfig(path: Path, user: str, token: str) -> None:
    """JSON is YAML too."""
    cluster = {"server": SERVER, "certificate-authority": str(PKI / "ca.crt")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))

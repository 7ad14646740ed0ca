"""Where the API server is and who we are there: a service account, else a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cacheop.api.errors import UserError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""Tokens are renewed in their file; read again so often."""


@dataclass(slots=True)
class Access:
    """The API server, and credentials that are read again as they change."""

    server: str
    ca_file: str = ""
    insecure: bool = False
    certificate_file: str = ""
    key_file: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    _read_at: float = field(default=0.0, repr=False)

    def headers(self) -> dict[str, str]:
        """Who we are, for one request."""
        old = not self.token or time.monotonic() - self._read_at > TOKEN_SECONDS
        if self.token_file is not None and old:
            self.token = self.token_file.read_text().strip()
            self._read_at = time.monotonic()
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def tls(self) -> ssl.SSLContext:
        """What both sides prove."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file or None)
        return context


def find_access() -> Access:
    """Of the pod we are in, else of KUBECONFIG. Raises UserError."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if host and not kubeconfig:
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        bracketed = f"[{host}]" if ":" in host else host
        return Access(
            f"https://{bracketed}:{port}",
            ca_file=str(SERVICE_ACCOUNT / "ca.crt"),
            token_file=SERVICE_ACCOUNT / "token",
        )
    path = Path(kubeconfig or Path.home() / ".kube/config")
    try:
        return _from_kubeconfig(yaml.safe_load(path.read_text()), path.parent)
    except (OSError, KeyError, TypeError, StopIteration, yaml.YAMLError) as error:
        raise UserError(
            f"cannot read the kubeconfig {path}: {error!r}",
            hint="Set KUBECONFIG, or run in a pod with a service account",
        ) from error


def _from_kubeconfig(raw: dict[str, Any], beside: Path) -> Access:
    def named(kind: str, name: str) -> dict[str, Any]:
        found = next(item for item in raw[kind + "s"] if item["name"] == name)
        return dict(found[kind] or {})

    context = named("context", raw["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    token_file = user.get("tokenFile")
    return Access(
        cluster["server"],
        ca_file=_file(cluster, "certificate-authority", beside),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        certificate_file=_file(user, "client-certificate", beside),
        key_file=_file(user, "client-key", beside),
        token=user.get("token") or "",
        token_file=beside / token_file if token_file else None,
    )


def _file(section: dict[str, Any], name: str, beside: Path) -> str:
    """The file of a kubeconfig's field, or a private one with the bytes that stand there."""
    if section.get(name):
        return str(beside / section[name])
    if not section.get(f"{name}-data"):
        return ""
    fd, path = tempfile.mkstemp(prefix="cacheop-", suffix=".pem")
    with os.fdopen(fd, "wb") as file:
        file.write(base64.b64decode(section[f"{name}-data"]))
    return path

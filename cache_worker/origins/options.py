"""A mount's `options` (the words of s3fs, gcsfs, ...: option_words.py) in obstore's terms. Pure.

What obstore cannot do at all, fsspec does: `options: {engine: fsspec}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from cache_worker.origins.option_words import AZURE, GCS, HTTP, S3, Table, read_words
from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache_worker.origins.address import Address

READ_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store is opened with."""

    config: Mapping[str, Any]
    """The store's own configuration, in obstore's words."""
    client: Mapping[str, Any]
    """obstore's client options."""
    key: tuple[str, str, str | None] | None = None
    """S3: access key, secret and session token, when given by the user."""
    profile: str = ""
    """S3: name of a section in ~/.aws, when given by the user."""
    region: str = ""
    """S3: as the Dataset or the environment says; empty = neither does."""
    anonymous: bool = False
    ca_file: str = ""
    """PEM file of certificates to trust besides the system's."""
    attempts: int | None = None
    """At most so many requests for one read; None = as many as the time budget allows."""
    version_aware: bool = False


def translate(
    address: Address, options: Mapping[str, Any], environment: Mapping[str, str]
) -> StoreOptions:
    """`options` of a mount as obstore's. UserError for every word or value that has no equal."""
    table, finish = _FINISH[_KIND[address.scheme]]
    words: dict[str, Any] = {}
    read_words(address.mount_point, table, options, "", words)
    return finish(address, words, environment)


def _client(words: Mapping[str, Any]) -> dict[str, Any]:
    # No timeout for the whole transfer to speak of: a slow one that moves is not killed, one
    # that stalls is found by the read timeout.
    client: dict[str, Any] = {
        "timeout": "600s",
        "read_timeout": _duration(words.get("read_timeout", READ_TIMEOUT_SECONDS)),
        "connect_timeout": _duration(words.get("connect_timeout", CONNECT_TIMEOUT_SECONDS)),
        "user_agent": words.get("user_agent", "cacheop"),
        "pool_idle_timeout": "30s",
    }
    if "pool" in words:
        client["pool_max_idle_per_host"] = str(words["pool"])
    if words.get("verify") is False:
        client["allow_invalid_certificates"] = True
    return client


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _ca_file(words: Mapping[str, Any], environment: Mapping[str, str], *names: str) -> str:
    verify = words.get("verify")
    if isinstance(verify, str):
        return verify
    return next((environment[n] for n in (*names, "SSL_CERT_FILE") if environment.get(n)), "")


def _s3(address: Address, words: Mapping[str, Any], env: Mapping[str, str]) -> StoreOptions:
    key, secret = words.get("key"), words.get("secret")
    if (key is None) != (secret is None) or ("token" in words and key is None):
        raise UserError(
            f"credentials of {address.mount_point} are not whole",
            hint="Give `key` and `secret` (and `token` if they are temporary), or none of them",
        )
    anonymous = words.get("anon", False)
    if anonymous and (key or "profile" in words):
        raise UserError(f"`anon` and credentials of {address.mount_point} exclude each other")
    endpoint = (
        words.get("endpoint") or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or ""
    )
    if endpoint and "://" not in endpoint:
        endpoint = f"{'https' if words.get('use_ssl', True) else 'http'}://{endpoint}"
    region = words.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    client = _client(words)
    config: dict[str, Any] = {"region": region or "us-east-1", "skip_signature": anonymous}
    style = words.get("addressing", "auto")
    if endpoint:
        endpoint = endpoint.rstrip("/")
        parts = urlsplit(endpoint)
        client["allow_http"] = parts.scheme == "http"
        if style == "virtual":
            parts = parts._replace(netloc=f"{address.store}.{parts.netloc}")
            endpoint = urlunsplit(parts)
        # The second name beats AWS_ENDPOINT_URL_S3, which obstore would read by itself.
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
        config["virtual_hosted_style_request"] = style == "virtual"
    else:
        if not words.get("use_ssl", True):
            raise UserError(f"`use_ssl: false` of {address.mount_point} needs an `endpoint_url`")
        # A bucket with a dot has no valid certificate as a host name.
        config["virtual_hosted_style_request"] = style != "path" and "." not in address.store
    if words.get("requester_pays") or "requester" in words:
        config["request_payer"] = True
    proxy = words.get("http_proxy" if client.get("allow_http") else "https_proxy")
    if proxy:
        client["proxy_url"] = proxy
    return StoreOptions(
        config,
        client,
        key=(key, secret, words.get("token")) if key and secret else None,
        profile=words.get("profile", ""),
        region=region or "",
        anonymous=anonymous,
        ca_file=_ca_file(words, env, "AWS_CA_BUNDLE"),
        attempts=words.get("attempts"),
        version_aware=words.get("version_aware", False),
    )


def _gcs(address: Address, words: Mapping[str, Any], env: Mapping[str, str]) -> StoreOptions:
    client = _client(words)
    config: dict[str, Any] = {}
    token = words.get("token")
    if token == "anon":  # noqa: S105 - gcsfs's word for "none"
        config["skip_signature"] = True
    elif isinstance(token, dict):
        config["service_account_key"] = json.dumps(token)
    elif token in {"browser", "cache"}:
        raise UserError(
            f"option token of {address.mount_point} is {token!r}, which needs a person",
            hint="Give a service account's key, a path to one, `anon`, `cloud` or google_default",
        )
    elif token and token not in {"cloud", "google_default"}:
        config["application_credentials"] = token
    if "endpoint" in words:
        config["base_url"] = words["endpoint"].rstrip("/")
        client["allow_http"] = words["endpoint"].startswith("http://")
    payer = words.get("requester_pays")
    if payer:
        project = payer if isinstance(payer, str) else words.get("project")
        if not project:
            raise UserError(f"`requester_pays` of {address.mount_point} needs a `project`")
        client["default_headers"] = {"x-goog-user-project": project}
    return StoreOptions(
        config,
        client,
        anonymous="skip_signature" in config,
        ca_file=_ca_file(words, env),
    )


def _azure(address: Address, words: Mapping[str, Any], env: Mapping[str, str]) -> StoreOptions:
    client = _client(words)
    config: dict[str, Any] = {}
    plain = ("account_name", "account_key", "sas_key", "client_id", "client_secret", "tenant_id")
    config |= {name: words[name] for name in plain if name in words}
    if "connection_string" in words:
        config |= _connection_string(address, words["connection_string"])
    if address.account:
        config.setdefault("account_name", address.account)
    if "account_host" in words:
        config["endpoint"] = f"https://{words['account_host']}"
    if words.get("anon"):
        config["skip_signature"] = True
    client["allow_http"] = str(config.get("endpoint", "")).startswith("http://")
    if "account_name" not in config and not env.get("AZURE_STORAGE_ACCOUNT_NAME"):
        raise UserError(
            f"{address.mount_point} names no storage account",
            hint="Give the option `account_name` or write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/",
        )
    return StoreOptions(
        config, client, anonymous=words.get("anon", False), ca_file=_ca_file(words, env)
    )


_CONNECTION_WORDS = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "SharedAccessSignature": "sas_key",
    "BlobEndpoint": "endpoint",
}
_CONNECTION_DEFAULTS = {"DefaultEndpointsProtocol": "https", "EndpointSuffix": "core.windows.net"}


def _connection_string(address: Address, text: str) -> dict[str, str]:
    config: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        name, _, value = part.partition("=")
        if name in _CONNECTION_WORDS:
            config[_CONNECTION_WORDS[name]] = value
        elif _CONNECTION_DEFAULTS.get(name) != value:
            raise UserError(
                f"connection_string of {address.mount_point} has {name}, which has no equal here",
                hint="Give `account_name`, `account_key` and `account_host` instead",
            )
    return config


def _http(_address: Address, words: Mapping[str, Any], env: Mapping[str, str]) -> StoreOptions:
    client = _client(words)
    client["allow_http"] = True
    headers = dict(words.get("headers", {}))
    if headers:
        client["default_headers"] = headers
    return StoreOptions({}, client, ca_file=_ca_file(words, env))


_KIND = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "http": "http",
    "https": "http",
}
_FINISH: dict[
    str, tuple[Table, Callable[[Address, Mapping[str, Any], Mapping[str, str]], StoreOptions]]
] = {"s3": (S3, _s3), "gcs": (GCS, _gcs), "azure": (AZURE, _azure), "http": (HTTP, _http)}

"""Option words of Fluid's engines and what they mean in ours (fsspec's own words). Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cacheop.fluid.notes import Notes

# Names are compared in lower case: Fluid hands them through, and each engine is lax in its own way.
_S3 = {
    "endpoint": (
        *("alluxio.underfs.s3.endpoint", "fs.s3.endpoint", "fs.s3a.endpoint", "fs.oss.endpoint"),
        *("alluxio.underfs.oss.endpoint", "fs.cos.endpoint", "fs.cosn.endpoint", "fs.obs.endpoint"),
        *("minio-url", "endpoint_url", "endpoint", "url"),
    ),
    "region": (
        *("alluxio.underfs.s3.region", "alluxio.underfs.s3.endpoint.region", "fs.s3.region"),
        *("fs.s3a.endpoint.region", "fs.oss.region", "fs.cos.region", "fs.cosn.bucket.region"),
        *("region_name", "region"),
    ),
    "path_style": (
        *("alluxio.underfs.s3.disable.dns.buckets", "fs.s3a.path.style.access", "path_style"),
    ),
    "key": (
        *("aws.accesskeyid", "s3a.accesskeyid", "fs.s3.accesskeyid", "fs.s3a.access.key"),
        *("fs.oss.accesskeyid", "fs.cos.access.key", "fs.cos.accesskeyid", "fs.obs.accesskey"),
        *("fs.cosn.userinfo.secretid", "minio-access-key", "access-key", "access_key", "access"),
        "key",
    ),
    "secret": (
        *("aws.secretkey", "aws.secretaccesskey", "s3a.secretkey", "fs.s3.accesskeysecret"),
        *("fs.s3a.secret.key", "fs.oss.accesskeysecret", "fs.cos.secret.key", "fs.obs.secretkey"),
        *("fs.cos.accesskeysecret", "fs.cosn.userinfo.secretkey", "minio-access-secret"),
        *("minio-secret-key", "secret-key", "secret_key", "secret"),
    ),
    "token": (
        *("aws.sessiontoken", "fs.s3a.session.token", "fs.oss.securitytoken", "session-token"),
    ),
}
_GCS = {"token": ("fs.gcs.credential.path", "alluxio.underfs.gcs.credential.path", "token")}
_AZURE = {
    "account_name": ("account_name",),
    "account_key": ("account_key",),
    "client_id": ("fs.azure.account.oauth2.client.id", "client_id"),
    "client_secret": ("fs.azure.account.oauth2.client.secret", "client_secret"),
    "tenant": ("fs.azure.account.oauth2.client.endpoint", "tenant_id"),
}
_AZURE_KEY = re.compile(r"fs\.azure\.account\.key\.([a-z0-9]+)\..*")
_TENANT = re.compile(r"https?://[^/]+/([^/]+)/.*")

WORDS: Mapping[str, Mapping[str, str]] = {
    family: {name: meaning for meaning, names in table.items() for name in names}
    for family, table in (("s3", _S3), ("gs", _GCS), ("abfs", _AZURE))
}
SECRET_MEANINGS = frozenset({"key", "secret", "token", "account_key", "client_secret"})
_SYNC = ("alluxio.user.file.metadata.sync.interval", "fs.metadata.sync.interval")


def meaning_of(family: str, name: str) -> tuple[str, str]:
    """(meaning or "", the account that the name itself tells or "")."""
    lower = name.strip().lower()
    if family == "abfs" and (match := _AZURE_KEY.fullmatch(lower)):
        return "account_key", match[1]
    return WORDS.get(family, {}).get(lower, ""), ""


def is_storage_word(name: str) -> bool:
    """Whether a runtime's property is about the storage behind it."""
    lower = name.strip().lower()
    if "." not in lower and "-" not in lower:
        return False  # too short a word to be sure of, between a cache's own settings
    return any(meaning_of(family, name)[0] for family in WORDS)


def is_sync_interval(name: str) -> bool:
    """Whether a property says how often the storage is looked at again."""
    return name.strip().lower() in _SYNC


def read(
    family: str, options: Mapping[str, str], where: str, notes: Notes
) -> tuple[dict[str, str], str]:
    """(what the options mean, account that an option's name tells); the rest goes to `notes`."""
    found: dict[str, str] = {}
    account = ""
    foreign = []
    for name, value in options.items():
        meaning, told = meaning_of(family, name)
        account = told or account
        if not meaning:
            foreign.append(name)
        else:
            found.setdefault(meaning, value)
            if meaning in SECRET_MEANINGS and not (family == "gs" and value.startswith("/")):
                notes.changed(
                    f"{where}.{name}",
                    "stands in plain text; better make a Secret and name it in encryptOptions",
                )
    if foreign:
        notes.dropped(where, f"no equal: {', '.join(foreign)}")
    return found, account


def s3_options(found: Mapping[str, str], style: str, region: str) -> dict[str, Any]:
    """Options of s3fs for what was meant; `style` and `region` where nothing was said."""
    options: dict[str, Any] = {}
    if "endpoint" in found:
        options["endpoint_url"] = with_scheme(found["endpoint"])
    if region := found.get("region") or region:
        options["client_kwargs"] = {"region_name": region}
    if found.get("path_style", "").lower() == "true":
        style = "path"
    if style:
        options["config_kwargs"] = {"s3": {"addressing_style": style}}
    options |= {name: found[name] for name in ("key", "secret", "token") if name in found}
    return options


def azure_options(found: Mapping[str, str], account: str) -> dict[str, Any]:
    """Options of adlfs for what was meant."""
    options: dict[str, Any] = {"account_name": account} if account else {}
    plain = ("account_name", "account_key", "client_id", "client_secret")
    options |= {name: found[name] for name in plain if name in found}
    if tenant := found.get("tenant"):
        match = _TENANT.fullmatch(tenant)
        options["tenant_id"] = match[1] if match else tenant
    return options


def with_scheme(endpoint: str) -> str:
    """`oss-cn-hangzhou.aliyuncs.com` -> `https://…`; a template's placeholder stays as it is."""
    bare = "://" not in endpoint and not endpoint.startswith(("<", "$", "{"))
    return f"https://{endpoint}" if bare else endpoint


def secret_options(
    family: str, entries: Sequence[Any], where: str, notes: Notes
) -> tuple[list[dict[str, Any]], str]:
    """(encryptOptions in our words, account that an option's name tells)."""
    found: dict[str, dict[str, Any]] = {}
    account = ""
    for entry in entries:
        reference = _reference(entry)
        if reference is None:
            notes.todo(where, f"{entry!r} names no Secret and key")
            continue
        meaning, told = meaning_of(family, entry["name"])
        account = told or account
        if not meaning or meaning == "path_style":
            notes.todo(f"{where}.{entry['name']}", "no equal; is the storage reached without it?")
            continue
        name = {"endpoint": "endpoint_url", "tenant": "tenant_id"}.get(meaning, meaning)
        # The last wins, as in Fluid: a mount's own after those of all mounts.
        found[name] = {"name": name, "valueFrom": {"secretKeyRef": reference}}
    return list(found.values()), account


def _reference(entry: Any) -> dict[str, str] | None:
    try:
        reference = entry["valueFrom"]["secretKeyRef"]
        named = {"name": reference["name"], "key": reference["key"]}
    except (KeyError, TypeError):
        return None
    return named if isinstance(entry.get("name"), str) else None

"""The option words of s3fs, gcsfs, adlfs and fsspec's http, and what each means. Pure.

A word that is in no table is refused with the nearest one that is: an option that is silently
ignored is found out about much later.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Word:
    """`meaning`: where the value goes; empty = accepted, cacheop's own chunks do that."""

    meaning: str
    convert: Convert


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _flag(value: Any) -> bool:
    # Values that come out of a Secret are always text.
    known = {True: True, False: False, "true": True, "false": False}
    if value not in known or (isinstance(value, int) and not isinstance(value, bool)):
        raise ValueError("true or false")
    return known[value]


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError("a number of seconds")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a number from 1")
    return value


def _verify(value: Any) -> bool | str:
    return value if isinstance(value, bool) else _text(value)


def _one_of(*allowed: str) -> Convert:
    def convert(value: Any) -> str:
        if value not in allowed:
            raise ValueError(" or ".join(allowed))
        return str(value)

    return convert


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("a map of header names to text")
    return {str(k): v for k, v in value.items()}


def _any(value: Any) -> Any:
    return value


def _google_token(value: Any) -> str | dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    text = _text(value)
    if text.lstrip().startswith("{"):
        parsed: dict[str, Any] = json.loads(text)
        return parsed
    return text


_OURS = Word("", _any)  # how fsspec buffers and caches: a cache's own business
_COMMON = {
    "default_block_size": _OURS,
    "default_cache_type": _OURS,
    "default_fill_cache": _OURS,
    "max_concurrency": _OURS,
    "skip_instance_cache": _OURS,
    "use_listings_cache": _OURS,
}
Table = dict[str, "Word | dict[str, Any]"]

S3: Table = {
    **_COMMON,
    "key": Word("key", _text),
    "username": Word("key", _text),
    "secret": Word("secret", _text),
    "password": Word("secret", _text),
    "token": Word("token", _text),
    "anon": Word("anon", _flag),
    "profile": Word("profile", _text),
    "endpoint_url": Word("endpoint", _text),
    "region": Word("region", _text),
    "requester_pays": Word("requester_pays", _flag),
    "use_ssl": Word("use_ssl", _flag),
    "version_aware": Word("version_aware", _flag),
    "client_kwargs": {
        "endpoint_url": Word("endpoint", _text),
        "region_name": Word("region", _text),
        "verify": Word("verify", _verify),
        "use_ssl": Word("use_ssl", _flag),
        "aws_access_key_id": Word("key", _text),
        "aws_secret_access_key": Word("secret", _text),
        "aws_session_token": Word("token", _text),
    },
    "config_kwargs": {
        "signature_version": Word("signature", _one_of("s3v4", "v4", "s3v4-query")),
        "region_name": Word("region", _text),
        "max_pool_connections": Word("pool", _count),
        "read_timeout": Word("read_timeout", _seconds),
        "connect_timeout": Word("connect_timeout", _seconds),
        "user_agent": Word("user_agent", _text),
        "retries": {
            "max_attempts": Word("attempts", _count),
            "total_max_attempts": Word("attempts", _count),
            "mode": Word("", _one_of("standard", "legacy", "adaptive")),
        },
        "s3": {"addressing_style": Word("addressing", _one_of("path", "virtual", "auto"))},
        "proxies": {
            "http": Word("http_proxy", _text),
            "https": Word("https_proxy", _text),
        },
    },
    "s3_additional_kwargs": {"RequestPayer": Word("requester", _one_of("requester"))},
}

GCS: Table = {
    **_COMMON,
    "token": Word("token", _google_token),
    "project": Word("project", _text),
    "endpoint_url": Word("endpoint", _text),
    "requester_pays": Word("requester_pays", _any),
    "access": Word("", _one_of("read_only", "read_write", "full_control")),
    "consistency": Word("", _any),
    "cache_timeout": _OURS,
    "version_aware": Word("version_aware", _flag),
}

AZURE: Table = {
    **_COMMON,
    "account_name": Word("account_name", _text),
    "account_key": Word("account_key", _text),
    "connection_string": Word("connection_string", _text),
    "sas_token": Word("sas_key", _text),
    "client_id": Word("client_id", _text),
    "client_secret": Word("client_secret", _text),
    "tenant_id": Word("tenant_id", _text),
    "account_host": Word("account_host", _text),
    "anon": Word("anon", _flag),
    "blocksize": _OURS,
    "version_aware": Word("version_aware", _flag),
}

HTTP: Table = {
    **_COMMON,
    "block_size": _OURS,
    "cache_type": _OURS,
    "headers": Word("headers", _headers),
    "simple_links": Word("", _flag),
    "same_scheme": Word("", _flag),
    "client_kwargs": {
        "headers": Word("headers", _headers),
        "trust_env": Word("", _one_of(True)),  # type: ignore[arg-type]
    },
}


def read_words(
    mount_point: str, table: Table, options: Mapping[str, Any], path: str, words: dict[str, Any]
) -> None:
    """Add the meanings of `options` to `words`. UserError for a word or value that has none."""
    for name, value in options.items():
        where = f"{path}{name}"
        entry = table.get(name)
        if entry is None:
            raise _unknown(mount_point, table, name, path)
        if value is None:
            continue
        if isinstance(entry, dict):
            if not isinstance(value, Mapping):
                raise UserError(f"option {where} of {mount_point} must be a map")
            read_words(mount_point, entry, value, f"{where}.", words)
            continue
        try:
            converted = entry.convert(value)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"option {where} of {mount_point} must be {error}",
                hint=f"It is a {type(value).__name__} now",
            ) from error
        if not entry.meaning:
            continue
        if words.setdefault(entry.meaning, converted) != converted:
            raise UserError(
                f"option {where} of {mount_point} contradicts another option that means the same",
                hint="Give it once",
            )


def _unknown(mount_point: str, table: Table, name: str, path: str) -> UserError:
    near = difflib.get_close_matches(str(name), list(table), n=1, cutoff=0.5)
    guess = f"Did you mean {path}{near[0]}? " if near else ""
    return UserError(
        f"unknown option {path}{name} of {mount_point}",
        hint=f"{guess}Known: {', '.join(path + known for known in sorted(table))}. "
        "With `engine: fsspec` every option of that library is taken",
    )

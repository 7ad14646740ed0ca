"""fsspec's words in obstore's: each word of each table, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cache_worker.origins.address import parse_address
from cache_worker.origins.option_words import AZURE, GCS, HTTP, S3, Word
from cache_worker.origins.options import StoreOptions, translate
from cacheop.api.errors import UserError


def s3(env: dict[str, str] | None = None, /, **options: Any) -> StoreOptions:
    return translate(parse_address("s3://bkt/pre/"), options, env or {})


def gs(**options: Any) -> StoreOptions:
    return translate(parse_address("gs://bkt/pre/"), options, {})


def az(url: str = "az://box/pre/", /, **options: Any) -> StoreOptions:
    return translate(parse_address(url), options, {})


def test_nothing_given() -> None:
    got = s3()
    assert got.config == {
        "region": "us-east-1",
        "skip_signature": False,
        "virtual_hosted_style_request": True,
    }
    assert got.client["read_timeout"] == "10000ms"
    assert not got.key


CREDENTIALS = {"key": "K", "secret": "S"}


@pytest.mark.parametrize(
    "options",
    [
        CREDENTIALS,
        {"username": "K", "password": "S"},
        {"client_kwargs": {"aws_access_key_id": "K", "aws_secret_access_key": "S"}},
        {**CREDENTIALS, "client_kwargs": {"aws_access_key_id": "K"}},
    ],
)
def test_keys(options: dict[str, Any]) -> None:
    assert s3(**options).key == ("K", "S", None)
    assert s3(**options, token="T").key == ("K", "S", "T")


@pytest.mark.parametrize(
    ("options", "where", "name", "value"),
    [
        ({"anon": True}, "config", "skip_signature", True),
        ({"anon": "true"}, "config", "skip_signature", True),
        ({"requester_pays": True}, "config", "request_payer", True),
        ({"s3_additional_kwargs": {"RequestPayer": "requester"}}, "config", "request_payer", True),
        ({"region": "eu-west-1"}, "config", "region", "eu-west-1"),
        ({"client_kwargs": {"region_name": "eu-west-1"}}, "config", "region", "eu-west-1"),
        ({"endpoint_url": "http://h:9000/"}, "config", "endpoint", "http://h:9000"),
        ({"client_kwargs": {"endpoint_url": "http://h"}}, "config", "endpoint", "http://h"),
        ({"endpoint_url": "h:9000", "use_ssl": False}, "config", "endpoint", "http://h:9000"),
        ({"endpoint_url": "h:9000"}, "config", "endpoint", "https://h:9000"),
        ({"endpoint_url": "http://h"}, "config", "aws_endpoint_url_s3", "http://h"),
        ({"endpoint_url": "http://h"}, "config", "virtual_hosted_style_request", False),
        ({"endpoint_url": "http://h"}, "client", "allow_http", True),
        ({"endpoint_url": "https://h"}, "client", "allow_http", False),
        ({"client_kwargs": {"verify": False}}, "client", "allow_invalid_certificates", True),
        ({"config_kwargs": {"read_timeout": 1.5}}, "client", "read_timeout", "1500ms"),
        ({"config_kwargs": {"connect_timeout": 3}}, "client", "connect_timeout", "3000ms"),
        (
            {"config_kwargs": {"max_pool_connections": 64}},
            "client",
            "pool_max_idle_per_host",
            "64",
        ),
        ({"config_kwargs": {"user_agent": "me"}}, "client", "user_agent", "me"),
        (
            {"config_kwargs": {"proxies": {"https": "http://p:3"}}},
            "client",
            "proxy_url",
            "http://p:3",
        ),
        (
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
            "config",
            "virtual_hosted_style_request",
            False,
        ),
        (
            {
                "endpoint_url": "https://h",
                "config_kwargs": {"s3": {"addressing_style": "virtual"}},
            },
            "config",
            "endpoint",
            "https://bkt.h",
        ),
    ],
)
def test_s3_words(options: dict[str, Any], where: str, name: str, value: Any) -> None:
    assert getattr(s3(**options), where)[name] == value


def test_the_rest_of_s3s_words() -> None:
    assert s3(client_kwargs={"verify": "/ca.pem"}).ca_file == "/ca.pem"
    assert s3({"AWS_CA_BUNDLE": "/a", "SSL_CERT_FILE": "/b"}).ca_file == "/a"
    assert s3({"SSL_CERT_FILE": "/b"}).ca_file == "/b"
    assert s3(profile="lab").profile == "lab"
    assert s3(version_aware=True).version_aware
    assert s3(config_kwargs={"retries": {"max_attempts": 4, "mode": "standard"}}).attempts == 4
    assert s3(default_block_size=1 << 20, default_fill_cache=False) == s3()
    proxied = s3(endpoint_url="http://h", config_kwargs={"proxies": {"https": "http://p"}})
    assert "proxy_url" not in proxied.client


def test_a_bucket_with_a_dot_is_not_a_host_name() -> None:
    got = translate(parse_address("s3://my.bucket/"), {}, {})
    assert got.config["virtual_hosted_style_request"] is False


def test_what_the_dataset_says_beats_the_environment() -> None:
    env = {"AWS_ENDPOINT_URL": "http://e", "AWS_REGION": "r"}
    assert s3(env).config["endpoint"] == "http://e"
    assert s3(env, endpoint_url="http://o", region="q").config["endpoint"] == "http://o"
    assert s3(env, region="q").region == "q"
    assert s3(env).region == "r"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"endpoint": "http://h"}, "unknown option endpoint of s3://bkt/pre/"),
        ({"endpoint": "http://h"}, "Did you mean endpoint_url"),
        ({"client_kwargs": {"region": "x"}}, "Did you mean client_kwargs.region_name"),
        (
            {"config_kwargs": {"s3": {"adressing_style": "path"}}},
            "config_kwargs.s3.addressing_style",
        ),
        ({"config_kwargs": {"signature_version": "s3"}}, "must be s3v4"),
        ({"anon": "perhaps"}, "anon of s3://bkt/pre/ must be true or false"),
        ({"anon": 1}, "must be true or false"),
        ({"key": 5}, "must be text"),
        ({"client_kwargs": "x"}, "must be a map"),
        ({"key": "K"}, "not whole"),
        ({"secret": "S"}, "not whole"),
        ({"token": "T"}, "not whole"),
        ({**CREDENTIALS, "anon": True}, "exclude each other"),
        ({"region": "a", "client_kwargs": {"region_name": "b"}}, "contradicts another option"),
        ({"use_ssl": False}, "needs an `endpoint_url`"),
        ({"config_kwargs": {"read_timeout": -1}}, "a number of seconds"),
        ({"config_kwargs": {"max_pool_connections": True}}, "a number from 1"),
    ],
)
def test_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as told:
        s3(**options)
    assert says in str(told.value)


def test_google() -> None:
    key = {"type": "service_account"}
    assert gs(token="anon").config == {"skip_signature": True}
    assert gs(token="anon").anonymous
    assert gs(token="/k.json").config == {"application_credentials": "/k.json"}
    assert json.loads(gs(token=key).config["service_account_key"]) == key
    assert json.loads(gs(token=json.dumps(key)).config["service_account_key"]) == key
    assert gs(token="google_default", project="p", access="read_only").config == {}
    assert gs(endpoint_url="http://h/").config == {"base_url": "http://h"}
    assert gs(endpoint_url="http://h/").client["allow_http"] is True
    payer = {"x-goog-user-project": "p"}
    assert gs(requester_pays=True, project="p").client["default_headers"] == payer
    assert gs(requester_pays="p").client["default_headers"] == payer
    for bad in ({"requester_pays": True}, {"token": "browser"}, {"projct": "p"}):
        with pytest.raises(UserError):
            gs(**bad)


def test_azure() -> None:
    assert az(account_name="a", account_key="k").config == {
        "account_name": "a",
        "account_key": "k",
    }
    url = "abfs://box@acc.dfs.core.windows.net/pre/"
    assert az(url, sas_token="t").config == {"sas_key": "t", "account_name": "acc"}
    who = {"client_id": "i", "client_secret": "s", "tenant_id": "t"}
    assert az(url, **who).config == {**who, "account_name": "acc"}
    assert az(url, anon=True).config["skip_signature"] is True
    assert az(url, account_host="h").config["endpoint"] == "https://h"
    text = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;"
    text += "EndpointSuffix=core.windows.net"
    assert az(connection_string=text).config == {"account_name": "a", "account_key": "k=="}
    emulator = "AccountName=a;AccountKey=k;BlobEndpoint=http://127.0.0.1:1/a"
    assert az(connection_string=emulator).client["allow_http"] is True
    for bad in ({}, {"connection_string": "QueueEndpoint=x"}, {"acount_name": "a"}):
        with pytest.raises(UserError):
            az(**bad)


def test_web() -> None:
    address = parse_address("https://host/a/b")
    got = translate(address, {"headers": {"X": "y"}, "block_size": 5}, {})
    assert got.client["default_headers"] == {"X": "y"}
    nested = translate(address, {"client_kwargs": {"headers": {"X": "y"}}}, {})
    assert nested == translate(address, {"headers": {"X": "y"}}, {})
    with pytest.raises(UserError, match="a map of header names"):
        translate(address, {"headers": "x"}, {})


@pytest.mark.parametrize("table", [S3, GCS, AZURE, HTTP])
def test_every_entry_is_a_word_or_a_table(table: dict[str, Any]) -> None:
    for entry in table.values():
        if isinstance(entry, dict):
            test_every_entry_is_a_word_or_a_table(entry)
        else:
            assert isinstance(entry, Word)

"""The pure parts of origins: addresses, retries, what errors mean, profiles, fsspec's names."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.origins import OriginObject, open_origin
from cache_worker.origins.address import parse_address
from cache_worker.origins.credentials import (
    NO_PROFILE,
    fingerprint,
    forbid_metadata,
    read_options,
    read_profile,
)
from cache_worker.origins.faults import Kind, classify, raised
from cache_worker.origins.retry import BUDGET_SECONDS, CEILING_SECONDS, next_delay
from cacheop.api import fsspec_info
from cacheop.api.dataset import EncryptOption, Mount
from cacheop.api.errors import CredentialError, OriginChanged, OriginError, UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mount_point_is_a_directory() -> None:
    address = parse_address("s3://bkt/a/pre")
    assert (address.store, address.directory) == ("bkt", "a/pre/")
    assert address.paths("x") == ("a/pre/x",)
    assert address.paths("pre") == ("a/pre/pre", "a/pre")
    assert parse_address("s3://bkt/a/pre/").paths("pre") == ("a/pre/pre",)
    assert parse_address("s3://bkt").paths("x") == ("x",)
    assert parse_address("s3://bkt/a?b#c/").directory == "a?b#c/"
    assert parse_address("https://h:1/a%20b/").directory == "a b/"
    assert parse_address("https://h:1/a%20b/").store == "https://h:1"
    azure = parse_address("abfss://box@acc.dfs.core.windows.net/x/")
    assert (azure.store, azure.account, azure.prefix) == ("box", "acc", "x")


@pytest.mark.parametrize(
    "bad", ["/no/scheme", "s3:///x", "s3://b/a//b", "s3://b/../x", "http:///x"]
)
def test_bad_mount_points(bad: str) -> None:
    with pytest.raises(UserError):
        parse_address(bad)


@given(seed=st.integers(0, 10_000), attempt_seconds=st.floats(0, 10))
def test_all_attempts_together_end(seed: int, attempt_seconds: float) -> None:
    rnd = random.Random(seed)
    elapsed, attempt = 0.0, 0
    while True:
        elapsed += attempt_seconds
        attempt += 1
        delay = next_delay(attempt, elapsed, rnd.random())
        if delay is None:
            break
        assert 0 <= delay <= CEILING_SECONDS
        elapsed += delay
    assert attempt >= 2
    assert elapsed <= BUDGET_SECONDS + attempt_seconds


def test_delays_grow_and_attempts_are_bounded() -> None:
    assert [next_delay(n, 0, 0.5) for n in (1, 2, 3, 9)] == [0.1, 0.2, 0.4, 2.0]
    assert next_delay(3, 0, 0.5, attempts=3) is None
    assert next_delay(1, 500, 0.5) is not None
    assert next_delay(2, 500, 0.5) is None


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("GenericError", "... status code: 503 Slow: <Code>SlowDown</Code>", Kind.RETRY),
        ("GenericError", "status code: 500", Kind.RETRY),
        ("GenericError", "status code: 429 Too Many", Kind.RETRY),
        ("GenericError", "HTTP error: error sending request", Kind.RETRY),
        ("GenericError", "source: TimedOut", Kind.RETRY),
        ("ConnectionError", "3 bytes came instead of 5", Kind.RETRY),
        ("PermissionDeniedError", "status code: 403", Kind.REFUSED),
        ("UnauthenticatedError", "status code: 401", Kind.REFUSED),
        ("GenericError", "status code: 400 <Code>ExpiredToken</Code>", Kind.REFUSED),
        ("GenericError", "status code: 400 Bad", Kind.FATAL),
        ("GenericError", "invalid peer certificate: UnknownIssuer", Kind.FATAL),
        ("GenericError", "source: NotPartial", Kind.FATAL),
        ("PreconditionError", "status code: 412", Kind.CHANGED),
        ("GenericError", "status code: 416", Kind.CHANGED),
        ("FileNotFoundError", "status code: 404 <Code>NoSuchKey</Code>", Kind.GONE),
        ("FileNotFoundError", "status code: 404 <Code>NoSuchBucket</Code>", Kind.NO_STORE),
        ("InvalidPathError", "Encountered object with invalid path", Kind.ODD_KEY),
        ("ValueError", 'Could not parse path: Path "a//b"', Kind.ODD_KEY),
        ("GenericError", "PUT http://169.254.169.254/latest/api/token", Kind.NO_CREDENTIALS),
        ("GenericError", "Failed to read token file '/x': No such file", Kind.NO_CREDENTIALS),
        ("GenericError", "Received redirect without LOCATION, this", Kind.REDIRECT),
    ],
)
def test_what_an_error_means(name: str, text: str, kind: Kind) -> None:
    fault = classify(name, text)
    assert fault.kind is kind
    assert "\n" not in fault.reason
    error = raised(fault, "s3://b/", "k", 3)
    assert "s3://b/" in str(error)
    assert isinstance(error, OriginChanged) == (kind in {Kind.CHANGED, Kind.GONE})


def test_the_innermost_cause_is_told() -> None:
    text = 'error sending\n inner: Os {\n code: 111, message: "Connection refused" }'
    assert classify("GenericError", text).reason == "Connection refused"
    assert "host name" in classify("GenericError", 'x "dns error" y').reason


def mount(**options: object) -> Mount:
    return Mount(
        "s3://b/",
        options=options,
        encrypt_options=(EncryptOption("secret", "s3", "key"),),
    )


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="'key' of secret 's3'"):
        read_options(mount(), tmp_path)
    (tmp_path / "s3").mkdir()
    (tmp_path / "s3" / "key").write_text("value\n")
    assert read_options(mount(key="k"), tmp_path) == {"key": "k", "secret": "value"}


def test_a_changed_file_shows(tmp_path: Path) -> None:
    path = tmp_path / "f"
    missing = fingerprint([path])
    path.write_text("1")
    first = fingerprint([path])
    path.write_text("22")
    assert len({missing, first, fingerprint([path])}) == 3


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    aws = tmp_path / ".aws"
    aws.mkdir()
    (aws / "credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = DS\n"
        "[lab]\naws_access_key_id = L\naws_secret_access_key = LS%x\naws_session_token = T\n"
    )
    (aws / "config").write_text(
        "[default]\nregion = r0\n[profile lab]\nregion = r1\nendpoint_url = http://h\n"
        "[profile sso]\nsso_start_url = u\n"
    )
    return {"HOME": str(tmp_path)}


def test_profiles(environment: dict[str, str]) -> None:
    lab = read_profile("lab", environment)
    assert lab.key == ("L", "LS%x", "T")
    assert (lab.region, lab.endpoint_url) == ("r1", "http://h")
    assert read_profile("", environment).key == ("D", "DS", None)
    assert read_profile("", {**environment, "AWS_PROFILE": "lab"}) == lab
    assert read_profile("", {"HOME": "/nonexistent"}) == NO_PROFILE
    with pytest.raises(UserError, match="no profile 'nope'"):
        read_profile("nope", environment)
    with pytest.raises(UserError, match="sso_start_url"):
        read_profile("sso", environment)


def test_the_environment_goes_before_the_default_section(environment: dict[str, str]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "ES"}
    assert read_profile("", {**environment, **keys}).key is None
    assert read_profile("lab", {**environment, **keys}).key == ("L", "LS%x", "T")
    identity = {"AWS_WEB_IDENTITY_TOKEN_FILE": "f", "AWS_ROLE_ARN": "a"}
    assert read_profile("", {**environment, **identity}).key is None
    assert read_profile("", {**environment, **identity}).region == "r0"


def test_metadata_switched_off() -> None:
    off = {"AWS_EC2_METADATA_DISABLED": "true"}
    forbid_metadata("s3://b/", {})
    forbid_metadata("s3://b/", {**off, "AWS_ACCESS_KEY_ID": "K"})
    with pytest.raises(CredentialError, match="no credentials were found for s3://b/"):
        forbid_metadata("s3://b/", off)


def test_a_broken_profile_file_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".aws" / "config").write_text("no section\n")
    with pytest.raises(UserError, match=r"\.aws/config"):
        read_profile("", environment)


def test_what_fsspec_tells() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    nanoseconds = 1_767_323_045_678_000_000
    for info in (
        {"LastModified": moment},
        {"last_modified": moment.replace(tzinfo=None)},
        {"updated": "2026-01-02T03:04:05.678Z"},
    ):
        assert fsspec_info.mtime_ns(info) == nanoseconds
    assert fsspec_info.mtime_ns({"Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}) == (
        nanoseconds - 678_000_000
    )
    assert fsspec_info.mtime_ns({"mtime": 1.5}) == 1_500_000_000
    assert fsspec_info.mtime_ns({"mtime": "rubbish"}) == fsspec_info.mtime_ns({}) == 0
    assert fsspec_info.etag({"ETag": '"x"'}) == '"x"'
    assert fsspec_info.etag({}) == ""
    assert fsspec_info.version_id({"VersionId": "null"}) == ""
    assert fsspec_info.version_id({"generation": 5}) == "5"


def test_engines(tmp_path: Path) -> None:
    for url in ("s3://b/", "gs://b/", "http://h/x", "http://h/x?y=z", "memory://x", "/nowhere"):
        if url == "/nowhere":
            continue
        open_origin(Mount(url), tmp_path)
    with pytest.raises(UserError, match="engine"):
        open_origin(Mount("memory://x", options={"engine": "obstore"}), tmp_path)
    with pytest.raises(UserError, match="engine"):
        open_origin(Mount("s3://b", options={"engine": "boto"}), tmp_path)
    assert OriginObject("k", 1, "", "", 0).key == "k"
    assert issubclass(OriginChanged, OriginError)

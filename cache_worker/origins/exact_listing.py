"""Lists S3 by botocore: about ten times slower than obstore, but every key as it is.

For buckets with keys that obstore cannot address, and, with `version_aware`, for version ids, which
ListObjectsV2 does not tell. Runs in the index child; botocore comes with s3fs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache_worker.origins import Listing
from cache_worker.origins.faults import classify, raised
from cache_worker.origins.store_opener import with_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.origins.address import Address
    from cache_worker.origins.credentials import Profile
    from cache_worker.origins.options import StoreOptions


def list_exactly(
    address: Address, options: StoreOptions, profile: Profile, *, after: str
) -> Iterator[Listing]:
    """The objects of the mount whose full key comes after `after`, a page at a time."""
    import botocore.exceptions  # type: ignore[import-untyped]

    from cache_worker.origins.object_listing import nanoseconds

    pages, field = _pages(address, options, profile, after)
    skip = len(address.directory)
    try:
        for page in pages:
            found = [
                entry
                for entry in page.get(field, ())
                if not entry["Key"].endswith("/") and entry.get("IsLatest", True)
            ]
            yield Listing(
                keys=[entry["Key"][skip:] for entry in found],
                sizes=[entry["Size"] for entry in found],
                mtimes_ns=[nanoseconds(entry["LastModified"]) for entry in found],
                etags=[entry.get("ETag", "") for entry in found],
                version_ids=[_version(entry) for entry in found],
            )
    except botocore.exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        text = f"status code: {status} <Code>{code}</Code>"
        raise raised(classify("ClientError", text), address.mount_point, "", 5) from error
    except botocore.exceptions.BotoCoreError as error:
        fault = classify("BotoCoreError", str(error))
        raise raised(fault, address.mount_point, "", 5) from error


def _version(entry: dict[str, Any]) -> str:
    version = str(entry.get("VersionId") or "")
    return "" if version == "null" else version


def _pages(
    address: Address, options: StoreOptions, profile: Profile, after: str
) -> tuple[Any, str]:
    """(botocore's pages, name of the entries in them)."""
    import botocore.config  # type: ignore[import-untyped]
    import botocore.session  # type: ignore[import-untyped]

    config: dict[str, Any] = dict(options.config)
    client: dict[str, Any] = dict(options.client)
    with_profile(config, client, options, profile)
    key = options.key or profile.key
    verify: Any = options.ca_file or None
    if client.get("allow_invalid_certificates"):
        verify = False
    style = "virtual" if config["virtual_hosted_style_request"] else "path"
    proxy = client.get("proxy_url")
    endpoint = config.get("endpoint")
    if endpoint and style == "virtual":
        endpoint = endpoint.replace(f"://{address.store}.", "://", 1)  # botocore adds it again
    extra: dict[str, Any] = {"signature_version": botocore.UNSIGNED} if options.anonymous else {}
    s3 = botocore.session.Session().create_client(
        "s3",
        region_name=config["region"],
        endpoint_url=endpoint,
        aws_access_key_id=key[0] if key else None,
        aws_secret_access_key=key[1] if key else None,
        aws_session_token=key[2] if key else None,
        verify=verify,
        config=botocore.config.Config(
            s3={"addressing_style": style},
            retries={"mode": "standard", "total_max_attempts": 8},
            proxies=dict.fromkeys(("http", "https"), proxy) if proxy else None,
            **extra,
        ),
    )
    call: dict[str, Any] = {"Bucket": address.store, "Prefix": address.directory}
    if config.get("request_payer"):
        call["RequestPayer"] = "requester"
    if options.version_aware:
        return s3.get_paginator("list_object_versions").paginate(**call), "Versions"
    if after:
        call["StartAfter"] = after
    return s3.get_paginator("list_objects_v2").paginate(**call), "Contents"

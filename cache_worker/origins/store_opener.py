"""Opens an obstore store from translated options."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from cacheop.api.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_worker.origins.address import Address
    from cache_worker.origins.credentials import Key, Profile
    from cache_worker.origins.options import StoreOptions

# For reads: cacheop's own retries count. For listing, where no reader waits: obstore's, patient.
NO_RETRIES: dict[str, Any] = {"max_retries": 0, "retry_timeout": timedelta(seconds=20)}
PATIENT: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=8)},
}


def open_store(
    address: Address, options: StoreOptions, profile: Profile, retries: Any = NO_RETRIES
) -> Any:
    """The store of `address`. UserError for what obstore refuses; no request is made."""
    client: Any = dict(options.client)
    if options.ca_file:
        client["root_certificate"] = _read_ca(options.ca_file, address)
    config: Any = dict(options.config)
    try:
        if address.scheme in {"s3", "s3a"}:
            key = options.key or profile.key
            with_profile(config, client, options, profile)
            return S3Store(
                address.store,
                config=config,
                client_options=client,
                retry_config=retries,
                credential_provider=_provider(key) if key else None,
            )
        if address.scheme in {"gs", "gcs"}:
            return GCSStore(
                address.store, config=config, client_options=client, retry_config=retries
            )
        if address.scheme in {"http", "https"}:
            return HTTPStore(address.store, client_options=client, retry_config=retries)
        return AzureStore(address.store, config=config, client_options=client, retry_config=retries)
    except (ValueError, OSError) as error:
        raise _refused(address, error) from error
    except Exception as error:
        # obstore's own classes all derive from its BaseError, which says too little by itself.
        raise _refused(address, error) from error


def with_profile(
    config: dict[str, Any], client: dict[str, Any], options: StoreOptions, profile: Profile
) -> None:
    """Put in what a profile says about where to go, below what the Dataset and environment say."""
    if profile.region and not options.region:
        config["region"] = profile.region
    if profile.endpoint_url and "endpoint" not in config:
        endpoint = profile.endpoint_url.rstrip("/")
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
        config["virtual_hosted_style_request"] = False
        client["allow_http"] = urlsplit(endpoint).scheme == "http"


def _provider(key: Key) -> Callable[[], Any]:
    # A callback, not configuration: a key of the Dataset never goes with AWS_SESSION_TOKEN.
    credential = {
        "access_key_id": key[0],
        "secret_access_key": key[1],
        "token": key[2],
        "expires_at": None,
    }
    return lambda: credential


def _read_ca(path: str, address: Address) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the certificates {path} for {address.mount_point}: {error.strerror}",
            hint="They come from client_kwargs.verify, AWS_CA_BUNDLE or SSL_CERT_FILE",
        ) from error


def _refused(address: Address, error: Exception) -> UserError:
    reason = str(error).split("\n", 1)[0]
    return UserError(f"cannot open {address.mount_point}: {reason}")

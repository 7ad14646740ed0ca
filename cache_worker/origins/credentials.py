"""Who we are at the origin, in boto's order, and which files to watch for a change of it.

1. `key`, `secret`, `token` of the Dataset (plain, or from a Secret's files)
2. the section `profile` names in ~/.aws/credentials and ~/.aws/config
3. AWS_ACCESS_KEY_ID ... in the environment
4. web identity (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN: IRSA)
5. the section AWS_PROFILE names, or `default`, in those files
6. the container's or the machine's metadata service

obstore does 3, 4 and 6 itself (it reads no profile files); the rest is here.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cacheop.api.errors import CredentialError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cacheop.api.dataset import Mount

Key = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a section of the profile files gives; empty where it says nothing."""

    key: Key | None
    region: str
    endpoint_url: str


NO_PROFILE = Profile(None, "", "")
# What a section may hold instead of keys. botocore understands them, obstore does not.
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process", "login_session")
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def read_options(mount: Mount, secrets_dir: Path) -> dict[str, Any]:
    """The mount's options with those from Secrets put in. UserError for a missing Secret."""
    options = dict(mount.options)
    for option in mount.encrypt_options:
        path = secrets_dir / option.secret_name / option.secret_key
        try:
            options[option.name] = path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise CredentialError(
                f"cannot read key {option.secret_key!r} of secret {option.secret_name!r}, "
                f"option {option.name} of {mount.mount_point}: {reason}",
                hint=f"It is looked for in {path}",
            ) from error
    return options


def secret_files(mount: Mount, secrets_dir: Path) -> list[Path]:
    """The files that `read_options` reads."""
    return [secrets_dir / o.secret_name / o.secret_key for o in mount.encrypt_options]


def profile_files(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """(credentials file, config file) as boto finds them."""
    home = Path(environment.get("HOME", "~")).expanduser() / ".aws"
    return (
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials").expanduser(),
        Path(environment.get("AWS_CONFIG_FILE") or home / "config").expanduser(),
    )


def read_profile(name: str, environment: Mapping[str, str]) -> Profile:
    """The section `name`, or, where it is empty, the one AWS_PROFILE names or `default`.

    Keys are taken only from a named section or when nothing that goes before says who we are.
    UserError if a named section does not exist or says who we are in a way only botocore knows.
    """
    wanted = name or environment.get("AWS_PROFILE") or ""
    section = wanted or "default"
    credentials_file, config_file = profile_files(environment)
    values: dict[str, str] = {}
    found = False
    headings = ((config_file, section if section == "default" else f"profile {section}"),)
    for path, heading in (*headings, (credentials_file, section)):
        parsed = _parse(path)
        if parsed.has_section(heading):
            found = True
            values |= dict(parsed.items(heading))
    if not found:
        if wanted:
            raise UserError(
                f"no profile {wanted!r} in {credentials_file} or {config_file}",
                hint="Name a profile that `aws configure list-profiles` shows",
            )
        return NO_PROFILE
    key = None
    if name or not _environment_says(environment):
        key = _key(values)
        indirect = [word for word in _INDIRECT if word in values]
        if key is None and indirect and wanted:
            raise UserError(
                f"profile {wanted!r} gets its credentials by {indirect[0]}, which is not supported",
                hint="With the option `engine: fsspec` botocore does it, more slowly",
            )
    return Profile(key, values.get("region", ""), values.get("endpoint_url", ""))


def forbid_metadata(mount_point: str, environment: Mapping[str, str]) -> None:
    """CredentialError when only the machine's metadata is left to ask and that is switched off."""
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        return
    if _environment_says(environment) or any(environment.get(name) for name in _CONTAINER):
        return
    raise CredentialError(
        f"no credentials were found for {mount_point}",
        hint="Give credentials by encryptOptions, the environment, a profile or a role, or set "
        "`anon: true` for public data",
    )


def fingerprint(paths: Iterable[Path]) -> tuple[tuple[int, int, int], ...]:
    """Changes when one of the files does; a file that is not there counts as (0, 0, 0)."""
    seen = []
    for path in paths:
        try:
            stat = os.stat(path)
            seen.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:
            seen.append((0, 0, 0))
    return tuple(seen)


def _environment_says(environment: Mapping[str, str]) -> bool:
    if environment.get("AWS_ACCESS_KEY_ID"):
        return True
    return bool(environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environment.get("AWS_ROLE_ARN"))


def _key(values: Mapping[str, str]) -> Key | None:
    key, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    return (key, secret, values.get("aws_session_token")) if key and secret else None


def _parse(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return configparser.RawConfigParser()
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read the profile file {path}: {reason}") from error
    return parser

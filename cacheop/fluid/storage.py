"""A mount of a Fluid Dataset as a mount of ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cacheop.fluid import words
from cacheop.fluid.shapes import as_list, as_map

if TYPE_CHECKING:
    from cacheop.fluid.notes import Notes

JUICEFS = "JuiceFSRuntime"
# These mount one thing only, at the root of the volume.
ROOTED = frozenset({JUICEFS, "ThinRuntime", "EFCRuntime"})
PLACEHOLDER = "pvc://CLAIM/"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CLAIM = "make a PersistentVolumeClaim for it and write pvc://CLAIM/PATH as mountPoint"

# Stores with an S3 interface: how they want buckets addressed, where an endpoint has its region.
_S3_LIKE: Mapping[str, tuple[str, str]] = {
    "oss": ("virtual", r"(?:https?://)?(oss-[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com/?"),
    "cos": ("virtual", r"(?:https?://)?cos\.([a-z0-9-]+)\.myqcloud\.com/?"),
    "cosn": ("virtual", r"(?:https?://)?cos\.([a-z0-9-]+)\.myqcloud\.com/?"),
    "obs": ("virtual", r"(?:https?://)?obs\.([a-z0-9-]+)\.myhuaweicloud\.com/?"),
    "minio": ("path", r"(?!)"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a mount inherits."""

    runtime: str = ""
    """Kind of the runtime, "" when it is not known."""
    options: Mapping[str, str] = field(default_factory=dict)
    """sharedOptions, and storage words among the runtime's properties."""
    encrypt_options: tuple[Any, ...] = ()
    secret_files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Directory in Fluid's pods -> (Secret, "") that is mounted there."""


def convert_mount(
    mount: Mapping[str, Any], around: Surroundings, where: str, notes: Notes
) -> dict[str, Any]:
    """The document of our mount; what cannot be known is a placeholder and a todo."""
    options = _texts(around.options) | _texts(mount.get("options") or {})
    secrets = [*around.encrypt_options, *as_list(mount.get("encryptOptions"))]
    # Within options: as one of Fluid's own examples has it.
    secrets += as_list(as_map(mount.get("options")).get("encryptOptions"))
    _access(mount, where, notes)
    point = str(mount.get("mountPoint") or "")
    if around.runtime == JUICEFS or point.startswith(("juicefs:", "jfs:")):
        return _juicefs(mount, options, secrets, where, notes)
    url, family, style, pattern = _address(point, where, notes)
    path = _path(mount, around.runtime)
    found: dict[str, Any] = {"mountPoint": url, "path": path}
    given, account = words.read(family, options, f"{where}.options", notes)
    encrypted, told = words.secret_options(family, secrets, f"{where}.encryptOptions", notes)
    account = told or account
    if family == "gs":
        encrypted += _google_file(given, around, where, notes)
    plain = _options(family, given, style, pattern, account)
    names = {entry["name"] for entry in encrypted}
    plain = {name: value for name, value in plain.items() if name not in names}
    if plain:
        found["options"] = plain
    if encrypted:
        found["encryptOptions"] = encrypted
    return found


def reference(mount: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(namespace, name, path below) of a mount that is another Dataset: dataset://ns/name/path."""
    match = _URL.fullmatch(str(mount.get("mountPoint") or ""))
    if match is None or match[1] != "dataset":
        return None
    namespace, _, rest = match[2].strip("/").partition("/")
    name, _, below = rest.partition("/")
    return namespace, name, below


def _options(
    family: str, given: Mapping[str, str], style: str, pattern: str, account: str
) -> dict[str, Any]:
    if family == "s3":
        endpoint = re.fullmatch(pattern, given.get("endpoint", "")) if pattern else None
        return words.s3_options(given, style, endpoint[1] if endpoint else "")
    if family == "abfs":
        return words.azure_options(given, account)
    return dict(given)


def _address(point: str, where: str, notes: Notes) -> tuple[str, str, str, str]:
    """(our URL, whose words its options are, addressing style, pattern of an endpoint's region)."""
    match = _URL.fullmatch(point)
    field_ = f"{where}.mountPoint"
    if match is None:
        notes.todo(field_, f"{point!r} is no URL; {_CLAIM}")
        return PLACEHOLDER, "", "", ""
    scheme, rest = match[1].lower(), match[2]
    if scheme in ("s3", "s3a", "s3n"):
        return f"s3://{rest}", "s3", "", ""
    if scheme in _S3_LIKE:
        notes.changed(
            field_,
            f"{scheme}:// is read by its S3 interface: check endpoint_url and region_name with "
            "`cacheop doctor -f`",
        )
        return f"s3://{rest}", "s3", *_S3_LIKE[scheme]
    if scheme in ("gs", "gcs"):
        return f"gs://{rest}", "gs", "", ""
    if scheme in ("wasb", "wasbs", "abfs", "abfss"):
        return f"abfs://{rest.replace('.blob.', '.dfs.', 1)}", "abfs", "", ""
    if scheme in ("http", "https", "pvc"):
        return point, scheme, "", ""
    if scheme == "hdfs":
        notes.todo(
            field_,
            "workers have no Hadoop: write webhdfs://NAMENODE:9870/PATH, or add libhdfs to the "
            "image and set `engine: fsspec` in options",
        )
        return point, scheme, "", ""
    if scheme == "local":
        notes.todo(
            field_,
            f"a node's own directory works with `cacheop up` only; on Kubernetes {_CLAIM}",
        )
        return f"file://{rest}", "file", "", ""
    notes.todo(field_, f"{point} is no storage that cacheop reads; {_CLAIM}")
    return PLACEHOLDER, "", "", ""


def _path(mount: Mapping[str, Any], runtime: str) -> str:
    """Where the files were for pods, and stay."""
    if runtime in ROOTED:
        return "/"
    path = mount.get("path")
    if path is None or path == "":
        path = mount.get("name") or ""
    return "/" + "/".join(part for part in str(path).split("/") if part)


def _juicefs(
    mount: Mapping[str, Any],
    options: Mapping[str, str],
    secrets: list[Any],
    where: str,
    notes: Notes,
) -> dict[str, Any]:
    """Its bucket holds blocks, not files: somebody must show the files first."""
    names = [*options, *(str(s.get("name")) for s in secrets if isinstance(s, Mapping))]
    match = _URL.fullmatch(str(mount.get("mountPoint") or ""))
    below = match[2].strip("/") if match else ""
    volume = options.get("name") or str(mount.get("name") or "VOLUME")
    notes.todo(
        f"{where}.mountPoint",
        "a bucket of JuiceFS holds its blocks, not your files. Run `juicefs gateway`, put its "
        "address into endpoint_url and its credentials into a Secret (key, secret); or, if the "
        "files were only copied into JuiceFS, name the bucket they came from",
    )
    if names:
        notes.dropped(f"{where}.options", f"JuiceFS's own: {', '.join(names)}")
    return {
        "mountPoint": f"s3://{volume}/{below}".rstrip("/") + "/",
        "path": "/",
        "options": {
            "endpoint_url": "http://JUICEFS-GATEWAY:9000",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }


def _google_file(
    given: dict[str, str], around: Surroundings, where: str, notes: Notes
) -> list[dict[str, Any]]:
    """The file with a service account's key, which a runtime mounts from a Secret."""
    path = given.get("token", "")
    if not path.startswith("/"):
        return []
    directory, _, file = path.rpartition("/")
    secret = around.secret_files.get(directory.rstrip("/"))
    del given["token"]
    if secret is None:
        notes.todo(
            f"{where}.options",
            f"{path} is a file in Fluid's pods: name the Secret that has it as encryptOptions, "
            "name: token",
        )
        return []
    reference_ = {"name": secret[0], "key": file}
    return [{"name": "token", "valueFrom": {"secretKeyRef": reference_}}]


def _access(mount: Mapping[str, Any], where: str, notes: Notes) -> None:
    if mount.get("readOnly") is False:
        notes.changed(f"{where}.readOnly", "a Dataset is read-only; write to the storage itself")
    if mount.get("shared") is False:
        notes.dropped(f"{where}.shared", "whoever may use the Dataset sees all its mounts")


def _texts(options: Any) -> dict[str, str]:
    """Fluid's options are all text; what a lax YAML made of them is made text again."""
    if not isinstance(options, Mapping):
        return {}
    return {
        str(name): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if not isinstance(value, list | Mapping) and value is not None
    }

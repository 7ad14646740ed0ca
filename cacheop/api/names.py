"""Every name that more than one process must know, once: paths, environment, socket operations."""

from __future__ import annotations

API_GROUP = "cacheop.io"
API_VERSION = f"{API_GROUP}/v1alpha1"

# Environment, read by the fsspec client in this order.
ENV_MOUNT = "CACHEOP_MOUNT"  # a mounted Dataset: the client just opens files below it
ENV_CACHE = "CACHEOP_CACHE"  # a Dataset's cache directory on this machine (client socket in it)
ENV_ENDPOINT = "CACHEOP_ENDPOINT"  # host:port of a worker
ENV_TOKEN = "CACHEOP_TOKEN"  # noqa: S105 - the name of the variable that holds it
ENV_NAMESPACE = "CACHEOP_NAMESPACE"  # of Datasets that a URL names without one
ENV_READER = "CACHEOP_READER"  # names the job that a process reads for, over all its processes
ENV_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"  # set by the kubelet
ENV_RUN_DIR = "CACHEOP_RUN_DIR"  # where `cacheop up` notes what runs on this machine
ENV_SECRET_PREFIX = "CACHEOP_SECRET_"  # noqa: S105 - + NAME_KEY, upper case: a local secret

# Below a Dataset's cache directory <cache>/<namespace>/<dataset>/<uid>/, the "root".
WORKER_SOCKET = "worker.sock"  # every operation; worker's own user only (0600)
CLIENT_SOCKET = "client/client.sock"  # CLIENT_OPS only; any user (0666)
HOLDER_SOCKET = "holder.sock"  # the holder listens: supervisor, mount processes, commands (0600)
BUDGET_FILE = "budget.json"  # the node plugin's: what is this Dataset's share of the disk
MOUNTS_DIR = "mounts"  # one JSON record a mount, written by the holder
CHUNK_TABLE = "chunks"
MANIFEST_DIR = "manifest"  # <version>.arrow, <version>.index, <version>.slots
DATA_DIR = "data"  # data/<version>/<path>
STATE_FILE = "state.json"  # current and kept versions, suspended or not; replaced atomically

# Operations of the framed protocol; docs/protocol.md has their fields.
CLIENT_OPS = frozenset({"auth", "hello", "bind", "manifest", "read", "touched", "plan", "health"})
CONTROL_OPS = CLIENT_OPS | {
    "status", "refresh", "load", "evict", "suspend", "resume", "versions", "publish", "served",
    "drain", "hot", "configure", "shutdown",
}  # fmt: skip


def index_path(version: str) -> str:
    """The manifest index of `version`, relative to the root."""
    return f"{MANIFEST_DIR}/{version}.index"


def arrow_path(version: str) -> str:
    """The Arrow IPC manifest of `version`, relative to the root."""
    return f"{MANIFEST_DIR}/{version}.arrow"


def fetched_paths(version: str) -> tuple[str, str]:
    """Index and Arrow manifest of `version` while they come from a peer, relative to the root."""
    return f"{index_path(version)}.fetched", f"{arrow_path(version)}.fetched"


def slots_path(version: str) -> str:
    """Where the files of `version` live in the chunk table, relative to the root."""
    return f"{MANIFEST_DIR}/{version}.slots"


def data_path(version: str) -> str:
    """The directory with the files of `version`, relative to the root."""
    return f"{DATA_DIR}/{version}"

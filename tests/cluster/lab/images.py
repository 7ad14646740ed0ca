"""Images for the nodes. There is no registry: they are made here and handed to each containerd."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import time
from pathlib import Path

from release import images as release
from tests.cluster.lab import build, node
from tests.cluster.lab.machines import run
from tests.cluster.lab.network import NODES
from tests.cluster.lab.places import CACHE, TREE

BASE = "localhost/cacheop-base:bookworm"
REDIS = "localhost/redis:lab"
SUITE = "bookworm"
BASE_SECONDS = 400.0
LOAD_SECONDS = 240.0
# What is read outside the base's needs: like the slim images of a registry.
BALLAST = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists",
           "var/cache", "var/log")  # fmt: skip
# Storage of our own: `buildah images` of the machine's user shows nothing of it.
STORAGE = CACHE / "images"
BUILDAH = ("buildah", f"--root={STORAGE / 'storage'}", f"--runroot={STORAGE / 'run'}")
# The image's Debian packages come from where this machine's come from.
APT = Path("/etc/apt")
SOURCES = ("Containerfile", "pyproject.toml", "uv.lock", "README.md", "LICENSE",
           "release", "cacheop", "cache_worker")  # fmt: skip


def cacheop() -> str:
    """Build the tree's image, give it to the nodes that lack it; its name, one for each content."""
    name = f"localhost/cacheop:{_digest()}"
    lacking = [one for one in NODES if name not in _names(one)]
    if not lacking:
        return name
    began = time.monotonic()
    run([*BUILDAH, "rm", "--all"])  # what builds that were killed left
    _make_base()
    recipe = release.Recipe(
        name, base=BASE, buildah=BUILDAH, options=(f"--volume={APT}:/etc/apt:ro",)
    )
    release.build(recipe)
    archive = STORAGE / "cacheop.tar"
    release.export(recipe, archive, compressed=False)
    built = time.monotonic()
    for one in lacking:
        load(one, archive)
    archive.unlink()
    seconds = f"{built - began:.0f} s to build, {time.monotonic() - built:.0f} s to load"
    print(f"lab: {name}: {seconds}", flush=True)
    return name


def load(one: node.Node, archive: Path) -> None:
    """Give a node the images of an archive (docker's or OCI's)."""
    run(node.ctr(one, "images", "import", str(archive)), seconds=LOAD_SECONDS)


def load_pause(one: node.Node) -> None:
    """The image that each pod's namespaces hang on."""
    archive = one.machine.directory / "pause.tar"
    pause = build.binary("pause")
    archive.write_bytes(_image(node.PAUSE_IMAGE, {f"/{pause.name}": pause.read_bytes()}))
    load(one, archive)


def redis() -> str:
    """This machine's redis-server with the libraries it loads, for the chart; its name."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("no redis-server: apt-get install redis-server")
    loaded = re.findall(r"(/\S+) \(0x", run(["ldd", program]))
    files = {name: Path(name).read_bytes() for name in [program, *loaded]}
    for one in NODES:
        if REDIS not in _names(one):
            archive = one.machine.directory / "redis.tar"
            archive.write_bytes(_image(REDIS, files))
            load(one, archive)
            archive.unlink()
    return REDIS


def again(name: str, other: str) -> None:
    """Let an image that the nodes have also go by another name."""
    for one in NODES:
        run(node.ctr(one, "images", "tag", "--force", name, other))


def _names(one: node.Node) -> set[str]:
    return set(run(node.ctr(one, "images", "list", "--quiet")).split())


def _digest() -> str:
    """Of all that goes into the image."""
    found = hashlib.sha256()
    for source in SOURCES:
        top = TREE / source
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(f"{path.relative_to(TREE)}\0{path.stat().st_mode & 0o111}\0".encode())
                found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def _make_base() -> None:
    """A Debian root in buildah's storage, in place of the one that a registry has."""
    if BASE in run([*BUILDAH, "images", "--format={{.Name}}:{{.Tag}}"]).split():
        return
    STORAGE.mkdir(parents=True, exist_ok=True)
    root = STORAGE / "base"
    shutil.rmtree(root, ignore_errors=True)
    try:
        print("lab: making a Debian root (debootstrap, a minute)", flush=True)
        run(
            ["debootstrap", "--variant=minbase", SUITE, str(root), *_mirror()], seconds=BASE_SECONDS
        )
        for name in BALLAST:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir()
        working = run([*BUILDAH, "from", "scratch"]).strip()
        try:
            run([*BUILDAH, "add", "--quiet", working, str(root), "/"], seconds=BASE_SECONDS)
            commit = ["commit", "--quiet", f"--timestamp={release.EPOCH}", working, BASE]
            run([*BUILDAH, *commit], seconds=BASE_SECONDS)
        finally:
            run([*BUILDAH, "rm", working])
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _mirror() -> list[str]:
    """The first that this machine takes its own packages from; none: debootstrap's own choice."""
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in {".list", ".sources"}:
            text = path.read_text()
            if found := re.search(r"^(?:URIs:|deb(?: \[.*\])?)\s+(\S+)", text, re.MULTILINE):
                return [found[1]]
    return []


def _image(name: str, files: dict[str, bytes]) -> bytes:
    """docker's archive of an image of these files alone; the first is the program."""
    layer = _tar({path.lstrip("/"): content for path, content in files.items()}, mode=0o755)
    digest = hashlib.sha256(layer).hexdigest()
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [next(iter(files))], "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {config_name: configuration, "layer.tar": layer}
    return _tar(parts | {"manifest.json": json.dumps(manifest).encode()}, mode=0o644)


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()

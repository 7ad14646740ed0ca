"""The image, built and stated; the list of images that a cluster needs.

`python -m release.images list`, `python -m release.images build [--base IMAGE] [--tag NAME]
[--into DIRECTORY]`
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).parents[1]
# Where all images come from; the chart has a value of that name (for mirrors).
REGISTRY = "ghcr.io/cacheop"
SBOM = "opt/cacheop/sbom.cdx.json"
LARGEST_BYTES = 250 << 20
BUILD_SECONDS = 900
# Fixed, so that a layer is the same in every commit that does not change what is in it.
EPOCH = "315532800"  # 1980-01-01, the first day that zip files know
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build: buildah with its own options, and those of `build`."""

    tag: str
    base: str = ""
    containerfile: str = "Containerfile"
    buildah: tuple[str, ...] = ("buildah",)
    options: tuple[str, ...] = ()


def names() -> list[str]:
    """Every image that a cluster pulls, as the chart names them; ours is the first."""
    version = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["version"]
    # Read without YAML: this runs before there is an environment.
    redis = (TREE / "helm/cacheop/values.yaml").read_text().partition("\nredis:")[2]
    words = dict(re.findall(r"^    (registry|repository|tag): (\S+)$", redis, re.MULTILINE))
    return [
        f"{REGISTRY}/cacheop:{version}",
        f"{words['registry']}/{words['repository']}:{words['tag']}",
    ]


def build(recipe: Recipe) -> None:
    """Build the image into buildah's storage. Raises RuntimeError with what it said."""
    if not shutil.which(recipe.buildah[0]):
        raise RuntimeError("no buildah: apt-get install buildah")
    epoch = os.environ.get("SOURCE_DATE_EPOCH", EPOCH)
    # chroot: needs no runtime and no network of its own, so it works inside containers too.
    command = [*recipe.buildah, "build", "--layers", "--isolation=chroot", f"--timestamp={epoch}"]
    command += [f"--build-arg=SOURCE_DATE_EPOCH={epoch}", f"--file={recipe.containerfile}"]
    if recipe.base:
        command += [f"--build-arg=BASE={recipe.base}", "--pull-never"]
    if CERTIFICATES.exists():
        command.append(f"--secret=id=certificates,src={CERTIFICATES}")
    _run([*command, *recipe.options, f"--tag={recipe.tag}", "."])


def export(recipe: Recipe, archive: Path, *, compressed: bool) -> None:
    """The image as an OCI archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    options = [] if compressed else ["--disable-compression"]
    target = f"oci-archive:{archive}:{recipe.tag}"
    _run([*recipe.buildah, "push", "--quiet", *options, recipe.tag, target])


def layers(archive: Path) -> list[int]:
    """The size of each layer of an OCI archive, in bytes."""
    with tarfile.open(archive) as tar:
        return [int(layer["size"]) for layer in _manifest(tar)["layers"]]


def sbom(archive: Path) -> str:
    """The list of software that the image carries."""
    with tarfile.open(archive) as tar:
        for layer in reversed(_manifest(tar)["layers"]):
            with tarfile.open(fileobj=io.BytesIO(_blob(tar, layer["digest"]))) as content:
                if SBOM in content.getnames():
                    file = content.extractfile(SBOM)
                    assert file is not None
                    return file.read().decode()
    raise RuntimeError(f"{archive} has no {SBOM}")


def _manifest(tar: tarfile.TarFile) -> dict[str, list[dict[str, str]]]:
    index = tar.extractfile("index.json")
    assert index is not None
    digest = json.load(index)["manifests"][0]["digest"]
    found: dict[str, list[dict[str, str]]] = json.loads(_blob(tar, digest))
    return found


def _blob(tar: tarfile.TarFile, digest: str) -> bytes:
    file = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
    assert file is not None
    return file.read()


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=TREE,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-6000:]}")


def main(arguments: list[str]) -> int:
    """The verb's exit code."""
    parser = argparse.ArgumentParser(prog="./dev image", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="print the images that a cluster needs")
    building = verbs.add_parser("build", help="build the image")
    building.add_argument("--base", default="", help="the image it stands on, in buildah's storage")
    building.add_argument("--tag", default=names()[0])
    building.add_argument("--into", type=Path, default=TREE / "dist", help="for archive and SBOM")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "list":
        print("\n".join(names()))
        return 0
    try:
        return _build_and_tell(Recipe(chosen.tag, base=chosen.base), chosen.into)
    except RuntimeError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1


def _build_and_tell(recipe: Recipe, directory: Path) -> int:
    build(recipe)
    archive = directory / (re.sub(r"[^\w.-]+", "-", recipe.tag.rpartition("/")[2]) + ".oci.tar")
    export(recipe, archive, compressed=True)
    listed = archive.with_suffix("").with_suffix(".cdx.json")
    listed.write_text(sbom(archive))
    sizes = layers(archive)
    each = " + ".join(f"{size / 1e6:.1f}" for size in sizes)
    print(f"{archive}: {sum(sizes) / 1e6:.1f} MB compressed ({each}); {listed}")
    if sum(sizes) > LARGEST_BYTES:
        print(f"image: more than {LARGEST_BYTES >> 20} MiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""csi-sanity, the conformance tests of CSI, for what the driver says it can do."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

VERSION = "v5.6.0"
PACKAGE = f"github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@{VERSION}"
BUILD_SECONDS = 500
# There is no controller service; these two of the node's make their volume by it.
SKIPPED = (
    "Controller",
    "should remove target path",
    "should fail when volume does not exist on the specified path",
)


@pytest.fixture(scope="session")
def csi_sanity() -> Path:
    """The program, built once from its Go module and kept where the test cluster's are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "cacheop/kubernetes" / f"csi-test-{VERSION}"
    program = directory / "csi-sanity"
    if not program.exists() and not shutil.which("go"):
        pytest.skip("needs csi-sanity, or Go to build it")
    directory.mkdir(parents=True, exist_ok=True)
    with program.with_name("csi-sanity.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            new = directory / ".csi-sanity"
            environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(new)}
            subprocess.run(
                ["go", "install", "-trimpath", "-ldflags=-s -w", PACKAGE],
                env=environment,
                check=True,
                timeout=BUILD_SECONDS,
            )
            (new / "csi-sanity").rename(program)
    return program


def test_csi_sanity(kubelet, csi_sanity, tmp_path):
    done = subprocess.run(
        [
            str(csi_sanity),
            f"--csi.endpoint=unix://{kubelet.socket}",
            f"--csi.mountdir={kubelet.directory}/sanity-target",
            f"--csi.stagingdir={kubelet.directory}/sanity-staging",
            "--ginkgo.no-color",
            f"--ginkgo.skip={'|'.join(SKIPPED)}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    said = done.stdout[-6000:]
    assert done.returncode == 0, said
    passed = re.search(r"(\d+) Passed \| 0 Failed", said)
    assert passed is not None, said
    assert int(passed[1]) > 10
    assert kubelet.mounted() == []

"""What Debian brings: the programs that are not built here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

INSTALL_SECONDS = 280
# Each package and a file that shows it is there.
PACKAGES = {
    "buildah": "/usr/bin/buildah",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "debootstrap": "/usr/sbin/debootstrap",
    "iproute2": "/usr/sbin/ip",
    "libseccomp-dev": "/usr/include/seccomp.h",
    "nftables": "/usr/sbin/nft",
    "openssl": "/usr/bin/openssl",
    "gcc": "/usr/bin/gcc",
    "libc6-dev": "/usr/include/stdlib.h",
    "pkg-config": "/usr/bin/pkg-config",
    "redis-server": "/usr/bin/redis-server",
}


def lacking() -> list[str]:
    """The packages that are not there."""
    return [package for package, file in PACKAGES.items() if not Path(file).exists()]


def require() -> None:
    """Install what is not there. Raises RuntimeError with the command that would."""
    if not (wanted := lacking()):
        return
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *wanted]
    print(f"lab: installing {' '.join(wanted)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = [
        shutil.which("apt-get")
        and subprocess.run(
            command,
            check=False,
            env=environment,
            stdout=subprocess.DEVNULL,
            timeout=INSTALL_SECONDS,
        ).returncode
        for command in (["apt-get", "update", "-qq"], install)
    ]
    if done[-1] != 0:
        raise RuntimeError(f"could not install: {' '.join(install)}")

"""The chart as an administrator installs it: helm, with the image of this tree."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CHART = Path(__file__).parents[2] / "helm/cacheop"
SYSTEM = "cacheop-system"
RELEASE = "cacheop"
WAIT_SECONDS = 180
CACHE_DIR = "/var/lib/cacheop"
# Of the lab's range for Services, outside what the API server gives away by itself first.
REDIS_ADDRESS, TEST_ADDRESS = "198.19.0.77", "198.19.0.78"


@dataclass(frozen=True, slots=True)
class Chart:
    """One release of the chart, and how the cluster at hand wants it."""

    image: str
    redis_image: str = ""
    """Empty: not the lab, which has neither a registry nor DNS."""
    home: Path = field(default_factory=lambda: Path("/tmp"))

    def values(self) -> dict[str, str]:
        """What --set gets."""
        found = {
            **_image("image", self.image),
            "node.cacheDirs": f"{{{CACHE_DIR}}}",
            "operator.resources.requests.cpu": "10m",
        }
        if not self.redis_image:
            return found | {"node.allowRootDisk": "true"}
        return found | {
            **_image("redis.image", self.redis_image),
            "redis.clusterIP": REDIS_ADDRESS,
            "test.clusterIP": TEST_ADDRESS,
        }

    def install(self, changes: dict[str, str] | None = None) -> None:
        """Install or upgrade it with other values, and wait until it is all there."""
        sets = self.values() | (changes or {})
        words = [f"--set={name}={value}" for name, value in sets.items()]
        self.helm("upgrade", RELEASE, str(CHART), "--install", "--create-namespace", "--wait",
                  f"--timeout={WAIT_SECONDS}s", *words)  # fmt: skip

    def test(self) -> str:
        """`helm test`: what it says."""
        return self.helm("test", RELEASE, f"--timeout={WAIT_SECONDS}s", "--logs")

    def uninstall(self) -> None:
        """As docs/kubernetes.md says; Datasets must be gone."""
        self.helm("uninstall", RELEASE, "--ignore-not-found", "--wait",
                  f"--timeout={WAIT_SECONDS}s")  # fmt: skip

    def helm(self, *arguments: str) -> str:
        """What helm prints. AssertionError with what it said when it fails."""
        homes = dict.fromkeys(("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"),
                              str(self.home))  # fmt: skip
        done = subprocess.run(
            ["helm", f"--namespace={SYSTEM}", *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS + 30,
            env=os.environ | homes,
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)}\n{done.stdout}"
        return done.stdout


def _image(value: str, name: str) -> dict[str, str]:
    rest, _, tag = name.rpartition(":")
    registry, _, repository = rest.rpartition("/")
    return {f"{value}.registry": registry, f"{value}.repository": repository, f"{value}.tag": tag}

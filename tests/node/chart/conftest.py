"""The chart through the real helm."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.operator.control_plane import binary

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/cacheop"
NAMESPACE = "cacheop-system"
VALUES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    """Runs helm; its own files go where nobody else's are."""
    program = shutil.which("helm") or binary("helm")
    if program is None:
        pytest.skip("no helm on PATH, and none built here: ./dev cluster-up")
    home = str(tmp_path_factory.mktemp("helm"))
    names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
    clean = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    env = {**clean, **dict.fromkeys(names, home)}
    return lambda *arguments, check=True: run([program, *arguments], check=check, env=env)


@pytest.fixture(scope="session")
def render(helm):
    """Documents of the chart with these files of ci/ and these --set. Each is rendered once."""

    @functools.cache
    def rendered(*files, **sets):
        words = [word for name in files for word in ("--values", f"{CHART}/ci/{name}.yaml")]
        words += [word for key, value in sets.items() for word in ("--set-json", f"{key}={value}")]
        text = helm("template", "cacheop", str(CHART), f"--namespace={NAMESPACE}", *words)
        return [document for document in yaml.safe_load_all(text) if document]

    return rendered


def run(command, *, given="", check=True, env=None):
    """What a command prints, errors too where they are not a failure of the test."""
    done = subprocess.run(
        command,
        input=given,
        check=False,
        text=True,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if check else subprocess.STDOUT,
        env=env,
    )
    assert not check or done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def find(documents, kind, name):
    (found,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found

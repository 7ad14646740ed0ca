"""The command line as users run it, and Datasets "running" on fake control sockets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cacheop import local
from cacheop.cli.control import ask_once
from cacheop.cli.main import code_of

TOP = Path(__file__).parents[2]


class CommandLine:
    """Runs `cacheop` as a user does, off a terminal, in a run directory of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.run_dir = tmp_path / "run"
        self.run_dir.mkdir()
        self.cache = tmp_path / "cache"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CACHEOP_RUN_DIR": str(self.run_dir),
            "CACHEOP_CACHE_DIR": str(self.cache),
            "CACHEOP_DEBUG": "1",
            "COLUMNS": "200",
            "KUBECONFIG": str(self.tmp_path / "no-kubeconfig"),
        }

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "cacheop.cli.main", *map(str, arguments)]

    def process(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """As a user runs it."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """The same in this process, which saves the start of an interpreter."""
        words, stdout, stderr = list(map(str, arguments)), io.StringIO(), io.StringIO()
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = code_of(words)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())

    def json(self, *arguments: object) -> dict:
        done = self(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    def fails(self, code: int, *arguments: object) -> str:
        """The one line of an error."""
        return self.one_line(code, self(*arguments))

    @staticmethod
    def one_line(code: int, done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == code, done.stdout + done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return errors[0].removeprefix("error: ")

    def fake(
        self,
        name: str = "demo",
        namespace: str = "default",
        nodes: int = 1,
        each: dict[int, dict] | None = None,
        **fake: object,
    ) -> local.RunRecord:
        """A Dataset that runs on fake control sockets; `each` changes what single nodes are."""
        directory = local.directory(self.run_dir, namespace, name)
        directory.mkdir(mode=0o700)
        records = []
        roots = [self.cache / f"node-{k}" / namespace / name / "local" for k in range(nodes)]
        cluster = {"others": list(map(str, roots))} if nodes > 1 else {}
        for root in roots:
            root.mkdir(parents=True, exist_ok=True)
        for k, root in enumerate(roots):
            config = directory / f"node-{k}.json"
            content = {
                "namespace": namespace,
                "name": name,
                "node": f"node-{k}",
                "root": str(root),
                "dataset": {"spec": {}},
                "mounts": [],
                "fake": fake | (each or {}).get(k, {}),
                **cluster,
            }
            config.write_text(json.dumps(content))
            command = [sys.executable, "-m", "tests.fakes.control", str(config)]
            process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL)
            self.processes.append(process)
            records.append(local.NodeRecord(f"node-{k}", root, process.pid, config))
            wait_until(lambda root=root: answers(root))
        record = local.RunRecord(
            namespace, name, "dataset.yaml", tuple(records), "", time.time(), self.run_dir
        )
        local.write(record)
        return record

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)


def answers(root: Path) -> bool:
    try:
        return bool(ask_once(root, "hello"))
    except OSError:
        return False


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)

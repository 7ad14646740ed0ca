"""A real worker process on a CONFIG of its own, and a real client process' way to read from it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

from cacheop.client.connection import connect_unix
from cacheop.client.filesystem import CacheopFileSystem


class RunningWorker:
    """`spec` goes into the Dataset as it is. Start, kill and start again as often as you like."""

    def __init__(self, directory, mounts, *, spec=None, verb="work", target=None, **config):
        self.directory = directory
        self.root = directory / "cache" / "default" / "data" / "local"
        self.config = directory / "node.json"
        self.verb = verb
        self.log = directory / "worker.log"
        document = {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": "data"},
            "spec": {"mounts": mounts, **(spec or {})},
        }
        directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            json.dumps(
                {
                    "dataset": document,
                    "namespace": "default",
                    "name": "data",
                    "uid": "local",
                    "node": "node-0",
                    "root": str(self.root),
                    "secrets": str(directory / "secrets"),
                    "mounts": [{"target": str(target)}] if target else [],
                    **config,
                }
            )
        )
        self.process = None

    def start(self, *, ready=True, seconds=30):
        """Seconds until it was ready (or, with `ready=False`, until it answered)."""
        started = time.monotonic()
        self.launch()
        self.wait_ready(ready=ready, seconds=seconds)
        return time.monotonic() - started

    def launch(self):
        """Start it and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cache_worker", self.verb, str(self.config)],
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, *, ready=True, seconds=30):
        """Until it can be read (or, with `ready=False`, until it answers)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.tail()}")
            try:
                phase = self.status()["phase"]
            except OSError:
                time.sleep(0.01)
                continue
            if phase == "Ready" or not ready:
                return
            if phase == "Failed":
                raise AssertionError(f"failed: {self.status()['error']}")
            time.sleep(0.02)
        raise AssertionError(f"not ready in {seconds} s: {self.tail()}")

    def tail(self):
        return self.log.read_text()[-3000:]

    def call(self, op, seconds=60, **meta):
        connection = connect_unix(self.root / "worker.sock")
        try:
            return connection.call(op, meta, time.monotonic() + seconds).meta
        finally:
            connection.close()

    def status(self):
        return self.call("status", 10)

    def condition(self, kind):
        return next(c for c in self.status()["conditions"] if c["type"] == kind)

    def metric(self, name, **labels):
        """The sum of a metric's samples with these labels."""
        url = f"http://{self.status()['addresses']['http']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(name + "{") and all(w in line for w in wanted)
        )

    def filesystem(self):
        return CacheopFileSystem(cache=str(self.root), skip_instance_cache=True)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode if self.process else None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


def s3_mount(endpoint, bucket, prefix="", path="/", **options):
    return {
        "mountPoint": f"s3://{bucket}/{prefix}",
        "path": path,
        "options": {"endpoint_url": endpoint, "key": "demo", "secret": "demo-secret", **options},
    }


def maps(pid):
    with open(f"/proc/{pid}/maps") as file:
        return file.read()


def is_running(pid):
    return os.path.exists(f"/proc/{pid}")

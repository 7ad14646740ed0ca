"""kubectl as the tests use it: objects are dicts, every wait has a deadline and tells what is."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND_SECONDS = 60.0
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2

Object = dict[str, Any]


class KubectlError(Exception):
    """What kubectl said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One namespace of the cluster that KUBECONFIG names."""

    namespace: str = "default"

    def run(self, *arguments: str, given: str = "", seconds: float = COMMAND_SECONDS) -> str:
        """What kubectl prints. Raises KubectlError."""
        done = subprocess.run(
            ["kubectl", f"--namespace={self.namespace}", *arguments],
            check=False,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Create or change them, by server-side apply."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--server-side", "--filename=-", given=json.dumps(document))

    def get(self, kind: str, name: str) -> Object:
        """One object."""
        found: Object = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """All objects of a kind, or those with these labels."""
        found: list[Object] = json.loads(
            self.run("get", kind, f"--selector={selector}", "--output=json")
        )["items"]
        return found

    def all_pods(self, fields: str) -> list[Object]:
        """Pods of all namespaces of which these fields hold."""
        found: list[Object] = json.loads(
            self.run(
                "get", "pods", "--all-namespaces", f"--field-selector={fields}", "--output=json"
            )
        )["items"]
        return found

    def delete(self, kind: str, name: str, *, seconds: float = COMMAND_SECONDS) -> None:
        """Delete it, if it is there, and wait until it is gone."""
        self.run("delete", kind, name, "--ignore-not-found", "--wait", f"--timeout={seconds:.0f}s",
                 seconds=seconds + 10)  # fmt: skip

    def logs(self, pod: str) -> str:
        """What the pod printed."""
        return self.run("logs", pod)

    def execute(self, pod: str, *command: str, seconds: float = COMMAND_SECONDS) -> str:
        """What the command prints in the pod."""
        return self.run("exec", pod, "--", *command, seconds=seconds)

    def until(self, what: str, true: Callable[[], object], *, seconds: float = WAIT_SECONDS) -> Any:
        """Wait for a true answer, and give it."""
        deadline = time.monotonic() + seconds
        error: Exception | None = None
        while True:
            try:
                if answer := true():
                    return answer
            except KubectlError as failed:
                error = failed
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {seconds:.0f} s until {what}, in vain ({error})\n{self.situation()}"
                )
            time.sleep(POLL_SECONDS)

    def ready(self, *pods: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until these pods are ready."""
        for pod in pods:
            self.until(f"pod {pod} is ready", lambda pod=pod: is_ready(self.get("pod", pod)),
                       seconds=seconds)  # fmt: skip

    def output_of(self, pod: str, *, seconds: float = WAIT_SECONDS) -> str:
        """What a pod that runs to its end printed. Asserts that it ended well."""
        ended = {"Succeeded", "Failed"}
        phase = self.until(
            f"pod {pod} ends",
            lambda: (found := self.get("pod", pod)["status"]["phase"]) in ended and found,
            seconds=seconds,
        )
        printed = self.logs(pod)
        assert phase == "Succeeded", f"{pod}: {printed}\n{self.situation()}"
        return printed

    def events(self, name: str) -> str:
        """What Kubernetes and we say about one object, a line each."""
        found = self.run("get", "events", f"--field-selector=involvedObject.name={name}",
                         "--output=json")  # fmt: skip
        return "\n".join(f"{e['reason']}: {e['message']}" for e in json.loads(found)["items"])

    def situation(self) -> str:
        """Pods, events and logs, for the message of a test that failed."""
        said = []
        for question in (
            ("get", "pods", "--output=wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ):
            with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
                said.append(self.run(*question))
        with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
            for pod in self.list("pods"):
                name = pod["metadata"]["name"]
                with contextlib.suppress(KubectlError):
                    said.append(f"--- log of {name}\n{self.run('logs', name, '--tail=30')}")
        for component in ("operator", "node"):
            with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
                selector = f"app.kubernetes.io/component={component}"
                log = self.run("logs", "--namespace=cacheop-system", f"--selector={selector}",
                               "--tail=40", "--prefix")  # fmt: skip
                said.append(f"--- log of {component}\n{log}")
        with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
            said.append(self.run("get", "datasets,dataloads", "--output=yaml"))
        return "\n".join(said)


def is_ready(item: Object) -> bool:
    """Whether an object's condition Ready is True."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in item["status"].get("conditions", [])
    )

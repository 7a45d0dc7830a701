"""A cluster through kubectl, production in it, and clients that count answers and failures."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image, render
from slipway.release.history import COMPONENT
from slipway.release.rollout import WORKLOAD

NAMED = "SLIPWAY_CLUSTER"
"""Variable with the kubeconfig, which `make cluster` sets. KUBECONFIG alone is ignored: it can be for other work."""
TIMEOUT = 300
"""Seconds until the wanted state must be reached."""
OURS = "app.kubernetes.io/name=model"
CLIENTS = 8


@dataclass(frozen=True)
class Cluster:
    kubeconfig: str

    def run(self, *arguments: str, manifest: Any = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, with the manifest on its standard input."""
        return subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
        )

    def must(self, *arguments: str, manifest: Any = None) -> str:
        done = self.run(*arguments, manifest=manifest)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self.must("get", *arguments, "--output=json"))


class Production:
    """The overlay of a copy of kustomize/ in the cluster."""

    def __init__(self, cluster: Cluster, namespace: str, overlay: Path, images: dict[str, Image]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.images = images
        self.overlay = overlay
        self._in = f"--namespace={namespace}"

    def release(self, name: str) -> None:
        """Release image A or B. Return when no other image runs."""
        write_release(self.overlay, self.images[name])
        self.cluster.must("apply", f"--kustomize={self.overlay}")
        self.settle()

    def settle(self) -> None:
        """Wait until all wanted replicas are ready, and all others are gone."""
        done = self.cluster.run(self._in, "rollout", "status", WORKLOAD, f"--timeout={TIMEOUT}s")
        assert done.returncode == 0, f"{done.stderr}\n{self.must('get', 'pods,events')}"
        wait(lambda: not any("deletionTimestamp" in pod["metadata"] for pod in self.pods()), "Pods do not leave")

    def must(self, *arguments: str, manifest: Any = None) -> str:
        return self.cluster.must(self._in, *arguments, manifest=manifest)

    def read(self, *arguments: str) -> Any:
        return self.cluster.read(self._in, *arguments)

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.read("pods", f"--selector={OURS}")["items"]
        return found

    def scale(self, replicas: int) -> None:
        self.must("scale", WORKLOAD, f"--replicas={replicas}")
        self.settle()

    @contextmanager
    def load(self, name: str, clients: int, pause: float, records: int) -> Iterator["Load"]:
        """Run clients of the Service in a pod, by its IP address, because a cluster can lack DNS."""
        script = Path(__file__).with_name("load.py").read_text()
        address = self.read("service", "model")["spec"]["clusterIP"]
        container = {
            "name": "load",
            "image": reference(self.images["A"]),
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", script, address, "80", str(clients), str(pause), str(records)],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "containers": [container],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.must("create", "--filename=-", manifest=pod)
        try:
            load = Load(self, name)
            load.go_on(2)
            yield load
        finally:
            self.must("delete", "pod", name)


@dataclass
class Seen:
    """The counts of the clients for consecutive seconds."""

    seconds: list[dict[str, Any]] = field(default_factory=list)

    def count(self, what: str) -> Counter[str]:
        return sum((Counter(second[what]) for second in self.seconds), Counter())

    @property
    def failed(self) -> int:
        return self.count("failures").total()

    @property
    def bundles(self) -> set[str]:
        """The bundles in all answers."""
        return {each.split()[0] for each in self.count("answers")}

    @property
    def releases(self) -> set[str]:
        """Bundle and commit in the answers to /version."""
        return {each for each in self.count("answers") if " " in each}

    def __str__(self) -> str:
        answered, slowest = self.count("answers").total(), max(second["slowest"] for second in self.seconds)
        failed = ", ".join(f"{count} {why}" for why, count in self.count("failures").items())
        return f"{len(self.seconds)} s, {answered:,} answers, the slowest after {slowest} s; failed: {failed or 'none'}"


class Load:
    def __init__(self, production: Production, name: str) -> None:
        self._production, self._name = production, name

    def go_on(self, seconds: int) -> Seen:
        """Return the counts of the next seconds."""
        began = len(self._lines())
        wait(lambda: len(self._lines()) >= began + seconds, f"The pod {self._name} logs nothing")
        return Seen(self._lines()[began:])

    @contextmanager
    def watched(self, what: str) -> Iterator[Seen]:
        """Yield the counts from two seconds before the block to three after it. Every second must have an answer."""
        began, seen = len(self._lines()), Seen()
        self.go_on(2)
        yield seen
        self.go_on(3)
        seen.seconds = self._lines()[began:]
        print(f"{what}: {seen}")
        assert all(second["answers"] for second in seen.seconds), "a second without an answer"

    def _lines(self) -> list[dict[str, Any]]:
        done = self._production.cluster.run("logs", f"--namespace={self._production.namespace}", self._name)
        return [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]


def reference(image: Image) -> str:
    """Return an image as a container names it."""
    return f"{image.name}:{image.tag}" + (f"@{image.digest}" if image.digest else "")


def write_release(overlay: Path, image: Image) -> None:
    """Write the file that `slipway promote` and `slipway rollback` write. The bundle is named after the image."""
    deployed = Deployed(image, Provenance(bundle=f"image {image.tag}"), None)
    (overlay / COMPONENT / "kustomization.yaml").write_bytes(render(deployed))


def wait(holds: Any, otherwise: str, timeout: int = TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, f"{otherwise}, after {timeout} s"
        time.sleep(1)


def image(variable: str) -> Image:
    """Read NAME:TAG or NAME:TAG@DIGEST from a variable."""
    said = os.environ.get(variable, "")
    tagged, _, digest = said.partition("@")
    name, colon, tag = tagged.rpartition(":")
    assert colon, f"{variable} is {said!r}; name an image that the cluster has or can pull, as NAME:TAG"
    return Image(name, tag, digest or None)

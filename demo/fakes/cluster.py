"""A Kubernetes cluster on the person's own machine, which runs the environments of the demo as their overlays say."""

import ipaddress
import json
import os
import re
import secrets
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from demo import processes
from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Image
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.git import Snapshot
from slipway.release.history import OVERLAYS
from slipway.release.rollout import namespace_of, write_manifests

LOADERS = {
    r"kind-(.+)": ("kind", "load", "docker-image", "--name", "{cluster}"),
    r"(minikube)": ("minikube", "image", "load"),
    r"k3d-(.+)": ("k3d", "image", "import", "--cluster", "{cluster}"),
    r"(docker-desktop)": (),  # has Docker's own images
}
"""By the name of a context: how a cluster of that kind is given an image of Docker's, whose name comes last."""
HERE = ("localhost", "kubernetes.docker.internal", "host.docker.internal")
MACHINES_OF_MINIKUBE = ipaddress.ip_network("192.168.0.0/16")
"""Networks between this machine and a virtual one on it."""
IMAGE = re.compile(r"(?<=image: )\S+@sha256:[0-9a-f]{64}")
OWNER = "slipway-demo"
"""A label by which a play knows the namespaces that it has made."""
LOOKS = 0.5
"""Seconds between two looks at which pods are ready; one that leaves serves on for ten."""
FORWARDS = 20
"""Seconds within which a port has to be forwarded to a pod."""


@dataclass(frozen=True)
class Cluster:
    """`loader` is how it is given an image of Docker's; `mark` is that of a play.

    `variables` are the person's own, as the demo gives its programs another home.
    """

    context: str
    loader: tuple[str, ...]
    variables: Mapping[str, str]
    mark: str = field(default_factory=lambda: f"{OWNER}={secrets.token_hex(8)}")

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Of kubectl, which never uses whatever context is the current one by then."""
        return ("kubectl", "--context", self.context, *arguments)

    def kubectl(self, *arguments: str) -> str:
        return process.run(*self.command(*arguments), variables=self.variables)

    def build(self, image: Image) -> str:
        """Build with Docker what the demo's engine was given, and give it to the cluster; returns its name there."""
        name = f"slipway-demo:{image.folder.name}"
        process.run("docker", "build", "--quiet", "--tag", name, str(image.folder), variables=self.variables)
        if self.loader:
            process.run(*self.loader, name, variables=self.variables)
        return name


def named(asked: str) -> Cluster:
    """The cluster of a context of kubectl, or, for `1`, of the current one.

    Raises InputError where it is not one of this machine.
    """
    variables = dict(os.environ)
    context = process.run("kubectl", "config", "current-context") if asked == "1" else asked
    loader = _loader(context)
    if loader is None:
        raise InputError(
            f"The context {context} is none of kind, minikube, k3d or Docker Desktop, and the demo touches no other "
            "cluster; name one of these with `make demo CLUSTER=kind-...`."
        )
    cluster = Cluster(context, loader, variables)
    told = json.loads(cluster.kubectl("config", "view", "--minify", "--output=json"))
    server = str(told["clusters"][0]["cluster"]["server"])
    if not _is_here(urlsplit(server).hostname or "", context):
        raise InputError(
            f"The context {context} has the name of a local cluster, and its server is {server}, which is not on this "
            "machine; the demo touches no other cluster."
        )
    cluster.kubectl("version", "--request-timeout=10s")
    return cluster


def _loader(context: str) -> tuple[str, ...] | None:
    """That of the cluster of a context; None where the context has not the name of a local one."""
    for pattern, loader in LOADERS.items():
        if match := re.fullmatch(pattern, context):
            return tuple(each.format(cluster=match[1]) for each in loader)
    return None


def _is_here(host: str, context: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in HERE
    return address.is_loopback or address.is_unspecified or (context == "minikube" and address in MACHINES_OF_MINIKUBE)


class Workload:
    """An environment in the cluster; `balancer` passes on to its ready pods, as its Service does."""

    def __init__(self, environment: str, cluster: Cluster, balancer: Balancer) -> None:
        self.environment, self.cluster, self.balancer = environment, cluster, balancer
        self._namespace = ""
        self._forwards: dict[str, tuple[int, subprocess.Popen[str]]] = {}
        self._looked = 0.0

    def roll_out(self, image: Image, main: Snapshot) -> None:
        """Apply the overlay, but for the name of the image; that it becomes ready is seen later.

        Raises InputError where its namespace is somebody else's.
        """
        name = self.cluster.build(image)
        with tempfile.TemporaryDirectory() as folder:
            write_manifests(main, Path(folder))
            overlay = self.cluster.kubectl("kustomize", str(Path(folder, OVERLAYS, self.environment)))
            manifests, images = IMAGE.subn(name, overlay)
            if images != 1:
                raise CheckFailed(f"The overlay of {self.environment} names {images} images by digest, and not one.")
            file = Path(folder, "manifests.yaml")
            if not self._namespace:
                self._namespace = self._claim(namespace_of(main, self.environment), file)
            file.write_text(manifests, encoding="utf-8")
            self.cluster.kubectl("apply", "--filename", str(file))

    def look(self) -> None:
        """Forward a port to each pod that the Service would send to, until the pod is gone."""
        if not self._namespace or time.monotonic() - self._looked < LOOKS:
            return
        pods = self._pods()
        ready = sorted(pod for pod, is_ready in pods.items() if is_ready)
        for pod in ready:
            if pod not in self._forwards or self._forwards[pod][1].poll() is not None:
                self._forwards[pod] = self._forward(pod)
        self.balancer.ports = tuple(self._forwards[pod][0] for pod in ready)
        self._end_forwards(self._forwards.keys() - pods.keys())
        self._looked = time.monotonic()

    def end(self) -> None:
        """Delete the namespaces of the play, with all that is in them: at once, as pods take half a minute to end."""
        self._end_forwards(set(self._forwards))
        self.cluster.kubectl("delete", "namespaces", "--selector", self.cluster.mark)

    def _claim(self, namespace: str | None, file: Path) -> str:
        """Make the namespace, which must not be there: whatever is in it would be replaced, and deleted at the end."""
        if namespace is None:
            raise CheckFailed(f"The overlay of {self.environment} names no namespace.")
        owner, _, mark = self.cluster.mark.partition("=")
        metadata = {"name": namespace, "labels": {owner: mark}}
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}), encoding="utf-8")
        try:
            self.cluster.kubectl("create", "--filename", str(file))
        except InputError as error:
            raise InputError(
                f"The demo makes the namespace {namespace} in {self.cluster.context} and deletes it at the end, and "
                f"cannot: {error}"
            ) from None
        return namespace

    def _pods(self) -> dict[str, bool]:
        """Those of the Service, and whether each is ready; one that leaves is not, and is there until it has ended."""
        selector = ("--namespace", self._namespace, "--selector", "kubernetes.io/service-name=model")
        slices = json.loads(self.cluster.kubectl("get", "endpointslices", *selector, "--output=json"))["items"]
        endpoints = [each for one in slices for each in one.get("endpoints") or ()]
        return {each["targetRef"]["name"]: bool(each["conditions"].get("ready")) for each in endpoints}

    def _end_forwards(self, pods: set[str]) -> None:
        for pod in pods:
            _, process = self._forwards.pop(pod)
            processes.end(process.pid)
            process.wait()

    def _forward(self, pod: str) -> tuple[int, "subprocess.Popen[str]"]:
        command = self.cluster.command("port-forward", "--namespace", self._namespace, f"pod/{pod}", ":8080")
        process = subprocess.Popen(
            command,
            env=self.cluster.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        says = process.stdout
        told = says.readline() if says and select.select([says], [], [], FORWARDS)[0] else ""
        port = re.search(r"127\.0\.0\.1:(\d+)", told)
        if says is None or port is None:
            processes.end(process.pid)
            raise CheckFailed(f"`{' '.join(command)}` forwards nothing.")
        threading.Thread(target=says.read, daemon=True).start()  # kubectl names each connection, and waits for a reader
        return int(port[1]), process

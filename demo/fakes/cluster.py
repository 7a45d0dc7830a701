"""Run the environments of the demo in a local Kubernetes cluster, from their overlays."""

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
    r"(docker-desktop)": (),  # it shares the images of Docker
}
"""Pattern of a context's name → command that loads an image into such a cluster. The name of the image is appended."""
LOCAL_HOSTS = ("localhost", "kubernetes.docker.internal", "host.docker.internal")
MINIKUBE_NETWORK = ipaddress.ip_network("192.168.0.0/16")
"""The network of the virtual machines in which minikube runs."""
IMAGE = re.compile(r"(?<=image: )\S+@sha256:[0-9a-f]{64}")
OWNER = "slipway-demo"
"""The label of the namespaces that a demo has created."""
INTERVAL = 0.5
"""Seconds between two checks of the pods. A terminating pod still serves for ten seconds."""
FORWARD_SECONDS = 20
"""Time limit for forwarding a port to a pod."""


@dataclass(frozen=True)
class Cluster:
    """A local cluster. `loader` is the command that loads an image. `mark` is the label of this demo's namespaces.

    `variables` are the user's environment variables. kubectl needs them, because the demo sets another home directory.
    """

    context: str
    loader: tuple[str, ...]
    variables: Mapping[str, str]
    mark: str = field(default_factory=lambda: f"{OWNER}={secrets.token_hex(8)}")

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return a kubectl command for this context, even if another context is current."""
        return ("kubectl", "--context", self.context, *arguments)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl for this context, and return its output."""
        return process.run(*self.command(*arguments), variables=self.variables)

    def build(self, image: Image) -> str:
        """Build an image of the demo's engine with Docker, load it into the cluster, and return its name there."""
        name = f"slipway-demo:{image.folder.name}"
        process.run("docker", "build", "--quiet", "--tag", name, str(image.folder), variables=self.variables)
        if self.loader:
            process.run(*self.loader, name, variables=self.variables)
        return name


def find(wanted: str) -> Cluster:
    """Find the cluster that belongs to a kubectl context. `1` means the current context.

    Raises InputError if the cluster is not on this machine.
    """
    variables = dict(os.environ)
    context = process.run("kubectl", "config", "current-context") if wanted == "1" else wanted
    loader = _loader(context)
    if loader is None:
        raise InputError(
            f"The context {context} is not of kind, minikube, k3d or Docker Desktop, and the demo touches no other "
            "cluster; name one of these with `make demo CLUSTER=kind-...`."
        )
    cluster = Cluster(context, loader, variables)
    told = json.loads(cluster.kubectl("config", "view", "--minify", "--output=json"))
    server = str(told["clusters"][0]["cluster"]["server"])
    if not _is_here(urlsplit(server).hostname or "", context):
        raise InputError(
            f"The context {context} has the name of a local cluster, but its server is {server}, which is not on this "
            "machine; the demo touches no other cluster."
        )
    cluster.kubectl("version", "--request-timeout=10s")
    return cluster


def _loader(context: str) -> tuple[str, ...] | None:
    """Return the command that loads images into the cluster of a context, or None if the context is not a local one."""
    for pattern, loader in LOADERS.items():
        if match := re.fullmatch(pattern, context):
            return tuple(each.format(cluster=match[1]) for each in loader)
    return None


def _is_here(host: str, context: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in LOCAL_HOSTS
    return address.is_loopback or address.is_unspecified or (context == "minikube" and address in MINIKUBE_NETWORK)


class ClusterWorkload:
    """An environment in the cluster.

    `balancer` passes connections on to the environment's ready pods, as its Service does.
    """

    def __init__(self, environment: str, cluster: Cluster, balancer: Balancer) -> None:
        self.environment, self.cluster, self.balancer = environment, cluster, balancer
        self._namespace = ""
        self._forwards: dict[str, tuple[int, subprocess.Popen[str]]] = {}
        self._updated = 0.0

    def roll_out(self, image: Image, main: Snapshot) -> None:
        """Apply the overlay, with the name that the image has in the cluster. Do not wait until pods are ready.

        Raises InputError if the overlay's namespace already exists and was not created by this demo.
        """
        name = self.cluster.build(image)
        with tempfile.TemporaryDirectory() as folder:
            write_manifests(main, Path(folder))
            overlay = self.cluster.kubectl("kustomize", str(Path(folder, OVERLAYS, self.environment)))
            manifests, images = IMAGE.subn(name, overlay)
            if images != 1:
                raise CheckFailed(f"The overlay of {self.environment} names {images} images by digest instead of one.")
            file = Path(folder, "manifests.yaml")
            if not self._namespace:
                self._namespace = self._claim(namespace_of(main, self.environment), file)
            file.write_text(manifests, encoding="utf-8")
            self.cluster.kubectl("apply", "--filename", str(file))

    def update(self) -> None:
        """Forward a port to each pod that the Service would send requests to, until the pod is gone."""
        if not self._namespace or time.monotonic() - self._updated < INTERVAL:
            return
        pods = self._pods()
        ready = sorted(pod for pod, is_ready in pods.items() if is_ready)
        for pod in ready:
            if pod not in self._forwards or self._forwards[pod][1].poll() is not None:
                self._forwards[pod] = self._forward(pod)
        self.balancer.ports = tuple(self._forwards[pod][0] for pod in ready)
        self._end_forwards(self._forwards.keys() - pods.keys())
        self._updated = time.monotonic()

    def end(self) -> None:
        """Delete all namespaces of this demo at once, because their pods take half a minute to end."""
        self._end_forwards(set(self._forwards))
        self.cluster.kubectl("delete", "namespaces", "--selector", self.cluster.mark)

    def _claim(self, namespace: str | None, file: Path) -> str:
        """Create the namespace. It must not exist yet, because the demo would replace its content and delete it."""
        if namespace is None:
            raise CheckFailed(f"The overlay of {self.environment} names no namespace.")
        owner, _, mark = self.cluster.mark.partition("=")
        metadata = {"name": namespace, "labels": {owner: mark}}
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}), encoding="utf-8")
        try:
            self.cluster.kubectl("create", "--filename", str(file))
        except InputError as error:
            raise InputError(
                f"The demo cannot create the namespace {namespace} in {self.cluster.context}, which it would delete at "
                f"the end: {error}"
            ) from None
        return namespace

    def _pods(self) -> dict[str, bool]:
        """Return the pods of the Service, and whether each is ready. A terminating pod is not ready."""
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
        told = says.readline() if says and select.select([says], [], [], FORWARD_SECONDS)[0] else ""
        port = re.search(r"127\.0\.0\.1:(\d+)", told)
        if says is None or port is None:
            processes.end(process.pid)
            raise CheckFailed(f"`{' '.join(command)}` does not forward a port.")
        threading.Thread(
            target=says.read, daemon=True
        ).start()  # kubectl prints a line for each connection, and blocks if its output is not read
        return int(port[1]), process

"""What Argo CD or Flux and a Deployment do: follow `main`, and replace the replicas of an environment one by one."""

import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.demo.balancer import Balancer
from slipway.demo.engine import Engine, Image
from slipway.errors import Refused
from slipway.release.clients import is_ready
from slipway.release.history import live
from slipway.release.landing import snapshot

LOOKS = 0.1
"""Seconds between two looks at `main`, and at whether replicas are ready."""
GRACE = 2
"""Seconds for which a replica that was told to end still answers: twenty looks."""
STARTS = 30
"""Seconds within which a replica has to be ready."""


@dataclass(frozen=True)
class Rollout:
    """When `main` was seen to name a bundle, by time.monotonic()."""

    bundle: str
    began: float


@dataclass(frozen=True)
class Replica:
    port: int
    process: "subprocess.Popen[bytes]"


class Agent:
    """Has an environment run what the overlay on `main` of a bare repository says, behind `balancer`."""

    def __init__(self, environment: str, replicas: int, bare: Path, engine: Engine) -> None:
        self.environment, self.wanted, self.bare, self.engine = environment, replicas, bare, engine
        self.balancer = Balancer()
        self.error: Exception | None = None
        self.rollouts: list[Rollout] = []
        self._runs: Image | None = None
        self._replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        self._over = threading.Event()

    @contextmanager
    def following(self) -> Generator["Agent", None, None]:
        """Follow until the block ends; no replica outlives it."""
        thread = threading.Thread(target=self._follow, daemon=True)
        with self.balancer.balancing():
            thread.start()
            try:
                yield self
            finally:
                self._over.set()
                thread.join()
                for replica in (*self._replicas, *self._leaving):
                    replica.process.kill()  # nobody asks it any more
                    replica.process.wait()

    def _follow(self) -> None:
        seen = ""
        while not self._over.wait(LOOKS):
            try:
                now = snapshot("main", self.bare)
                if now.name == seen:
                    continue
                seen = now.name
                found = live(now, self.environment)
                if found and found.image.digest:
                    image = self.engine.find(found.image.digest)
                    if image != self._runs:
                        self._roll_out(image)
            except Exception as error:  # told to whoever plays; the replicas go on
                self.error = error
                return

    def _roll_out(self, image: Image) -> None:
        """One more is started and ready before one is told to end, as `maxSurge: 1` and `maxUnavailable: 0` say."""
        self.rollouts.append(Rollout(image.bundle, time.monotonic()))
        old = list(self._replicas)
        for _ in range(self.wanted):
            self._replicas.append(self._start(image))
            self._route()
            if old:
                self._leave(old.pop(0))
        self._runs = image

    def _start(self, image: Image) -> Replica:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = image.start({"SLIPWAY_PORT": str(port), "SLIPWAY_GRACE": str(GRACE)}, image.folder / "server.log")
        replica = Replica(port, process)
        began = time.monotonic()
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() - began > STARTS or self._over.is_set():
                self._leaving.append(replica)
                raise Refused(f"A replica of {self.environment} does not become ready; {image.folder}/server.log.")
            time.sleep(LOOKS)
        return replica

    def _leave(self, replica: Replica) -> None:
        """Told to end, it says that it is not ready; only when that is seen do connections go elsewhere."""
        replica.process.terminate()
        while is_ready(replica.port):
            time.sleep(LOOKS)
        self._replicas.remove(replica)
        self._leaving.append(replica)
        self._route()

    def _route(self) -> None:
        self.balancer.ports = tuple(each.port for each in self._replicas)

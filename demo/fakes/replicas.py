"""The fake of a Kubernetes Deployment: replicas are processes, replaced one by one."""

import socket
import subprocess
import time
from dataclasses import dataclass

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Image
from slipway.errors import CheckFailed
from slipway.integrations.git import Snapshot
from slipway.release.load_client import is_ready

INTERVAL = 0.1
"""Seconds between two readiness probes."""
GRACE = 2
"""Seconds for which a replica still answers after SIGTERM: twenty probes."""
START_SECONDS = 30
"""Within which a replica has to be ready."""


@dataclass(frozen=True)
class Replica:
    """A server process and its port."""

    port: int
    process: "subprocess.Popen[bytes]"


class Replicas:
    """As many replicas as `wanted`, behind a balancer."""

    def __init__(self, wanted: int, balancer: Balancer) -> None:
        self.wanted, self.balancer = wanted, balancer
        self._ready: list[Replica] = []
        self._others: list[Replica] = []

    def roll_out(self, image: Image, _main: Snapshot) -> None:
        """Start one replica and wait until it is ready, then end an old one, as `maxSurge: 1` with `maxUnavailable: 0`.

        Raises CheckFailed if one does not become ready.
        """
        old = list(self._ready)
        for _ in range(self.wanted):
            self._ready.append(self._start(image))
            self._route()
            if old:
                self._leave(old.pop(0))

    def update(self) -> None:
        """Do nothing: processes do not change between two rollouts."""

    def end(self) -> None:
        """Kill all replicas. Requests have ended by then."""
        for replica in (*self._ready, *self._others):
            replica.process.kill()
            replica.process.wait()

    def _start(self, image: Image) -> Replica:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = image.start({"SLIPWAY_PORT": str(port), "SLIPWAY_GRACE": str(GRACE)}, image.folder / "server.log")
        replica = Replica(port, process)
        began = time.monotonic()
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                self._others.append(replica)
                raise CheckFailed(
                    f"A replica of bundle {image.bundle} does not become ready; see {image.folder}/server.log."
                )
            time.sleep(INTERVAL)
        return replica

    def _leave(self, replica: Replica) -> None:
        """Send SIGTERM, and route connections elsewhere once the replica is not ready any more."""
        replica.process.terminate()
        while is_ready(replica.port):
            time.sleep(INTERVAL)
        self._ready.remove(replica)
        self._others.append(replica)
        self._route()

    def _route(self) -> None:
        self.balancer.ports = tuple(each.port for each in self._ready)

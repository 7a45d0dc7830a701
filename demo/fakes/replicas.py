"""Provide a fake of a Kubernetes Deployment. Its replicas are processes, which are replaced one by one."""

import itertools
import os
import subprocess
import time
from dataclasses import dataclass

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Image
from demo.logged_requests import CLOCK, LoggedRequests
from slipway.errors import CheckFailed
from slipway.integrations.git import Snapshot
from slipway.integrations.ports import free_port
from slipway.release.load_client import is_ready

INTERVAL = 0.1
"""Seconds between two readiness probes."""
GRACE = 2
"""Seconds for which a replica still answers after SIGTERM. This is the time of 20 probes."""
START_SECONDS = 30
"""Time limit for a replica to become ready."""


@dataclass(frozen=True)
class Replica:
    """A server process and its port."""

    port: int
    process: "subprocess.Popen[bytes]"


class Replicas:
    """Replicas behind a balancer. `wanted` is their number. If `logged` is given, they log their requests."""

    def __init__(self, wanted: int, balancer: Balancer, logged: LoggedRequests | None = None) -> None:
        self.wanted, self.balancer, self.logged = wanted, balancer, logged
        self._numbers = itertools.count(1)
        self._ready: list[Replica] = []
        self._others: list[Replica] = []

    def roll_out(self, image: Image, _main: Snapshot) -> None:
        """Start a new replica, wait until it is ready, and end an old one. Repeat this for all replicas.

        A Kubernetes Deployment with `maxSurge: 1` and `maxUnavailable: 0` works in the same way. Raises CheckFailed if
        a replica does not become ready.
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
        """Kill all replicas. The demo calls this when all requests have ended."""
        for replica in (*self._ready, *self._others):
            replica.process.kill()
            replica.process.wait()

    def _start(self, image: Image) -> Replica:
        port = free_port()
        variables = {"SLIPWAY_PORT": str(port), "SLIPWAY_GRACE": str(GRACE)}
        if self.logged:
            variables |= self.logged.variables(next(self._numbers))
            variables["PYTHONPATH"] = os.pathsep.join(map(str, (image.folder / "src", CLOCK)))
        process = image.start(variables, image.folder / "server.log")
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
        """Send SIGTERM to a replica, and remove it from the balancer when it is no longer ready."""
        replica.process.terminate()
        while is_ready(replica.port):
            time.sleep(INTERVAL)
        self._ready.remove(replica)
        self._others.append(replica)
        self._route()

    def _route(self) -> None:
        self.balancer.ports = tuple(each.port for each in self._ready)

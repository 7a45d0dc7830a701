"""Replicas on this machine, each a process, replaced one by one as a Deployment does."""

import socket
import subprocess
import time
from dataclasses import dataclass

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Image
from slipway.errors import CheckFailed
from slipway.integrations.git import Snapshot
from slipway.release.load_client import is_ready

LOOKS = 0.1
"""Seconds between two looks at whether a replica is ready."""
GRACE = 2
"""Seconds for which a replica that was told to end still answers: twenty looks."""
STARTS = 30
"""Seconds within which a replica has to be ready."""


@dataclass(frozen=True)
class Replica:
    port: int
    process: "subprocess.Popen[bytes]"


class Replicas:
    """As many as are `wanted`, behind a balancer."""

    def __init__(self, wanted: int, balancer: Balancer) -> None:
        self.wanted, self.balancer = wanted, balancer
        self._ready: list[Replica] = []
        self._others: list[Replica] = []

    def roll_out(self, image: Image, _main: Snapshot) -> None:
        """One more is started and ready before one is told to end, as `maxSurge: 1` and `maxUnavailable: 0` say.

        Raises CheckFailed where one does not become ready.
        """
        old = list(self._ready)
        for _ in range(self.wanted):
            self._ready.append(self._start(image))
            self._route()
            if old:
                self._leave(old.pop(0))

    def look(self) -> None:
        """Nothing changes between two rollouts."""

    def end(self) -> None:
        """Without grace: nobody asks them any more."""
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
            if process.poll() is not None or time.monotonic() - began > STARTS:
                self._others.append(replica)
                raise CheckFailed(
                    f"A replica of bundle {image.bundle} does not become ready; {image.folder}/server.log."
                )
            time.sleep(LOOKS)
        return replica

    def _leave(self, replica: Replica) -> None:
        """Told to end, it says that it is not ready; only when that is seen do connections go elsewhere."""
        replica.process.terminate()
        while is_ready(replica.port):
            time.sleep(LOOKS)
        self._ready.remove(replica)
        self._others.append(replica)
        self._route()

    def _route(self) -> None:
        self.balancer.ports = tuple(each.port for each in self._ready)

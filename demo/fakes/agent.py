"""Provide a fake of Argo CD and Flux that follows `main` and runs the image that an environment's overlay names."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Engine, Image
from slipway.integrations.git import Snapshot, snapshot
from slipway.release.history import live

INTERVAL = 0.1
"""Seconds between two checks of `main`."""


@dataclass(frozen=True)
class Rollout:
    """A bundle that `main` named. `began` is the value of time.monotonic() when the agent detected the change."""

    bundle: str
    began: float


class Workload(Protocol):
    """Runs the image of an environment, and sets the ports of its balancer."""

    def roll_out(self, image: Image, main: Snapshot, /) -> None:
        """Replace the running image with another image."""

    def update(self) -> None:
        """Update the ports of the balancer. The agent calls this regularly."""

    def end(self) -> None:
        """End everything that runs in the environment."""


class Agent:
    """Follows the branch `main` of a bare repository, and rolls out the image that it names for one environment.

    `balancer` passes connections to the environment's workload.
    """

    def __init__(self, environment: str, bare: Path, engine: Engine, workload: Callable[[Balancer], Workload]) -> None:
        self.environment, self.bare, self.engine = environment, bare, engine
        self.balancer = Balancer()
        self.workload = workload(self.balancer)
        self.error: Exception | None = None
        self.rollouts: list[Rollout] = []
        self._stopped = threading.Event()

    @contextmanager
    def following(self) -> Generator["Agent", None, None]:
        """Follow `main` until the block ends, then end the workload."""
        thread = threading.Thread(target=self._follow, daemon=True)
        with self.balancer.balancing():
            thread.start()
            try:
                yield self
            finally:
                self._stopped.set()
                thread.join()
                self.workload.end()

    def _follow(self) -> None:
        seen, runs = "", None
        while not self._stopped.wait(INTERVAL):
            try:
                now = snapshot("main", self.bare)
                if now.name != seen:
                    seen = now.name
                    found = live(now, self.environment)
                    image = self.engine.find(found.image.digest) if found and found.image.digest else runs
                    if image and image != runs:
                        self.rollouts.append(Rollout(image.bundle, time.monotonic()))
                        self.workload.roll_out(image, now)
                        runs = image
                self.workload.update()
            except Exception as error:  # the scenario reports it, and the replicas keep running
                self.error = error
                return

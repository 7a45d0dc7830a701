"""What Argo CD or Flux do: follow `main`, and have an environment run what its overlay there says."""

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

LOOKS = 0.1
"""Seconds between two looks at `main`."""


@dataclass(frozen=True)
class Rollout:
    """When `main` was seen to name a bundle, by time.monotonic()."""

    bundle: str
    began: float


class Workload(Protocol):
    """What runs the image of an environment, and tells its balancer where."""

    def roll_out(self, image: Image, main: Snapshot, /) -> None: ...

    def look(self) -> None:
        """Whatever has to be seen to between two rollouts."""

    def end(self) -> None: ...


class Agent:
    """Follows `main` of a bare repository for an environment, whose workload stands behind `balancer`."""

    def __init__(self, environment: str, bare: Path, engine: Engine, workload: Callable[[Balancer], Workload]) -> None:
        self.environment, self.bare, self.engine = environment, bare, engine
        self.balancer = Balancer()
        self.workload = workload(self.balancer)
        self.error: Exception | None = None
        self.rollouts: list[Rollout] = []
        self._over = threading.Event()

    @contextmanager
    def following(self) -> Generator["Agent", None, None]:
        """Follow until the block ends; the workload does not outlive it."""
        thread = threading.Thread(target=self._follow, daemon=True)
        with self.balancer.balancing():
            thread.start()
            try:
                yield self
            finally:
                self._over.set()
                thread.join()
                self.workload.end()

    def _follow(self) -> None:
        seen, runs = "", None
        while not self._over.wait(LOOKS):
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
                self.workload.look()
            except Exception as error:  # told to whoever plays; the replicas go on
                self.error = error
                return

"""A real Dask scheduler with two workers on loopback."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import distributed

from slipway.integrations.ports import free_port
from tests.slipway.conftest import ROOT

QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@dataclass(frozen=True)
class Cluster:
    address: str
    workers: tuple[subprocess.Popen[bytes], ...]

    def exit_codes(self) -> list[int | None]:
        """Return the exit code of each worker, or None for one that runs."""
        return [each.poll() for each in self.workers]


@contextmanager
def running(folder: Path, preload: Path, number: int = 2) -> Generator[Cluster, None, None]:
    """Run a cluster whose workers have two threads, run the file `preload` first, and are not restarted."""
    port = str(free_port())
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:

        def start(*command: str | Path) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / "dask.log").open("ab"))
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, *QUIET],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start("scheduler", "--host", "127.0.0.1", "--port", port)
        options = (address, "--nthreads", "2", "--no-nanny", "--host", "127.0.0.1", "--preload", preload)
        workers = tuple(start("worker", *options) for _ in range(number))
        with distributed.Client(address, timeout=60) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(number, timeout=120)
        yield Cluster(address, workers)

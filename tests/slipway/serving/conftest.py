"""Server processes with the code of this work tree, for the champion and for any bundle."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import Repository
from tests.slipway.serving import odd

STARTS_WITHIN = 60
STOPS_WITHIN = 20


@dataclass(frozen=True)
class Server:
    """A server that is ready. `log` has its output and errors as JSON lines."""

    url: str
    bundle: Path
    process: subprocess.Popen[bytes]
    log: Path


Serve = Callable[..., AbstractContextManager[Server]]
"""Starts a server for a bundle. Keyword arguments are environment variables."""


@pytest.fixture(scope="session")
def served(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Clone the repository and pull champion/. Tests must not change it."""
    repository = origin.clone(tmp_path_factory.mktemp("served") / "repository")
    repository.must("dvc", "pull", "--quiet", "champion.dvc")
    return repository


@pytest.fixture(scope="session")
def serve(served: Repository, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start `python -m slipway.serving BUNDLE` on a free port, and stop it by SIGTERM at the end."""

    @contextmanager
    def start(bundle: Path, **variables: str) -> Generator[Server, None, None]:
        log = tmp_path_factory.mktemp("server") / "log"
        environment = served.environment | {"SLIPWAY_PORT": "0", "SLIPWAY_GRACE": "0"} | variables
        command = [sys.executable, "-m", "slipway.serving", str(bundle)]
        with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
            try:
                yield Server(f"http://127.0.0.1:{_port(process, log)}", bundle, process, log)
            except Exception as error:
                error.add_note(f"The server has the exit code {process.poll()}. Its log:\n{log.read_text()}")
                raise
            finally:
                process.send_signal(signal.SIGTERM)
                _stopped(process)

    return start


@pytest.fixture(scope="session")
def server(serve: Serve, served: Repository) -> Iterator[Server]:
    """Serve the champion for all tests. Use `serve` for a server that a test stops or configures."""
    with serve(served.path / "champion") as server:
        yield server


@pytest.fixture(scope="session")
def odd_server(serve: Serve, odd_bundle: Path) -> Iterator[Server]:
    """Serve the bundle of `odd` with default settings for all tests."""
    with serve(odd_bundle) as server:
        yield server


def _stopped(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port from the log line `ready`. The last line may be incomplete."""
    deadline = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines(keepends=True):
            if '"ready"' in line and line.endswith("\n"):
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    pytest.fail(f"The server is not ready:\n{log.read_text()}")


@pytest.fixture(scope="session")
def champion(served: Repository) -> ServedModel:
    """Load the champion in this process."""
    return ServedModel(served.path / "champion", "model", 1000)


@pytest.fixture(scope="session")
def odd_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the bundle of the module `odd`."""
    return odd.write_bundle(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="session")
def lenient_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the bundle of the module `odd`, but ignore unknown fields."""
    return odd.write_bundle(tmp_path_factory.mktemp("lenient"), "ignore")


@pytest.fixture
def lenient_model(lenient_bundle: Path) -> ServedModel:
    return ServedModel(lenient_bundle, "odd", 5)


@pytest.fixture
def odd_model(odd_bundle: Path) -> ServedModel:
    return ServedModel(odd_bundle, "odd", 5)

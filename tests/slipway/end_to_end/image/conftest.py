"""Fixtures: a real container engine, a real image registry, and the image of the champion on fake base images."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from slipway.integrations.ports import free_port
from tests.slipway.conftest import Repository, locked
from tests.slipway.end_to_end.image import engine, fake_bases
from tests.slipway.tools import require

BASES = ("--base", fake_bases.RUNTIME, "--build-base", fake_bases.BUILDER)
MIRROR = "mirror.invalid"


@dataclass(frozen=True)
class Engine:
    client: docker.DockerClient
    host: str
    shared: Path


@dataclass(frozen=True)
class Built:
    """The image of the champion, the clone it was built in, and the output of the build."""

    name: str
    repository: Repository
    said: str


@pytest.fixture(scope="session")
def podman(of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine.require_all()
    here, shared = tmp_path_factory.getbasetemp(), of_all_workers / "podman"
    if address := engine.running_engine():
        with engine.borrowed(address, shared) as client:
            yield Engine(client, address, shared)
        return
    with engine.podman(shared, here / "podman.sock") as client:
        yield Engine(client, f"unix://{here}/podman.sock", shared)


@pytest.fixture(scope="session")
def bases(podman: Engine) -> dict[str, str]:
    """The variables for a build on the fake bases, which one worker makes for all."""
    record = podman.shared / "bases"
    with locked(podman.shared / "bases.lock"):
        if not record.exists():
            fake_bases.make_bases(podman.client)
            record.touch()
    return {
        "DOCKER_HOST": podman.host,
        "SLIPWAY_RUN_BASE": fake_bases.RUNTIME,
        "SLIPWAY_BUILD_BASE": fake_bases.BUILDER,
        "PIP_TRUSTED_HOST": MIRROR,
    }


@pytest.fixture(scope="session")
def built(podman: Engine, bases: dict[str, str], origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The image of the champion, which one worker builds for all."""
    record = podman.shared / "built.json"
    with locked(podman.shared / "built.lock"):
        if not record.exists():
            repository = origin.clone(tmp_path_factory.mktemp("image") / "repository")
            repository.must("dvc", "pull", "--quiet", "champion")
            said = repository.must("slipway", "image", "build", **bases)
            record.write_text(json.dumps([said.split()[1], str(repository.path), said]))
    name, path, said = json.loads(record.read_text())
    return Built(name, Repository(Path(path)), said)


@pytest.fixture(scope="session")
def images() -> Iterator[str]:
    """The address of a registry, from go-containerregistry, that keeps images in memory."""
    program = require("registry")
    port = free_port()
    with subprocess.Popen(
        [program, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"localhost:{port}"
        process.terminate()

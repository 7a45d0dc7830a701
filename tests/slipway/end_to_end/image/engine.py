"""A container engine for the tests: Docker if this user may use it, otherwise Podman with Docker's API.

Podman has a storage of its own, which is deleted afterwards. From Docker, only the images that the tests made are.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker

from tests.slipway.tools import require, require_linux

# Ulimits that every machine allows. Locks are files, because all storages share those in memory. An `exec` process does
# not linger for minutes.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
log_driver = "k8s-file"
[engine]
events_logger = "file"
lock_type = "file"
exit_command_delay = 5
"""
REGISTRIES = """\
[[registry]]
location = "localhost"
insecure = true
"""
START = 20
"""Seconds."""
DOCKER = Path("/var/run/docker.sock")


def running_engine() -> str | None:
    """Return the address of an engine that runs already, or None to start Podman.

    An ordinary user cannot rely on Podman: on GitHub's runners, for example, it may not limit a container's memory.
    """
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    return f"unix://{DOCKER}" if os.geteuid() != 0 and os.access(DOCKER, os.W_OK) else None


def require_all() -> None:
    """Skip the test if containers cannot run here."""
    require_linux()  # the fake base images contain the Python of this machine
    require("strip")
    if running_engine():
        return
    require("podman")
    if not runtimes():
        require("runc")


def runtimes() -> list[str]:
    """Return the installed container runtimes, runc first: crun refuses machines with both versions of cgroups."""
    return [name for name in ("runc", "crun") if shutil.which(name)]


@contextmanager
def used(shared: Path, delete: Callable[[], None]) -> Iterator[None]:
    """Create the folder `shared`, which several processes use at once. The last of them calls `delete`."""
    with shared.with_suffix(".users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        shared.mkdir(exist_ok=True)
        yield
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        delete()


@contextmanager
def borrowed(address: str, shared: Path) -> Iterator[docker.DockerClient]:
    """Use the engine at `address`. The last of several processes deletes the images that are new since the first."""
    record = shared / "images.json"

    def images() -> list[str]:
        return [each.id for each in client.images.list()]

    def delete() -> None:
        before = json.loads(record.read_text())
        for image in images():
            if image not in before:
                client.images.remove(image, force=True)

    with closing(docker.DockerClient(base_url=address, timeout=300)) as client, used(shared, delete):
        with suppress(FileExistsError):
            there = json.dumps(images())
            with record.open("x") as file:
                file.write(there)
        yield client


@contextmanager
def podman(shared: Path, socket: Path) -> Iterator[docker.DockerClient]:
    """Run a service on `socket` with its images in `shared`. The last of several processes deletes them."""

    def delete() -> None:
        subprocess.run([*command(shared), "system", "reset", "--force"], env=environment(shared), check=False)
        shutil.rmtree(shared, ignore_errors=True)

    with used(shared, delete), service(shared, socket) as client:
        yield client


@contextmanager
def service(shared: Path, socket: Path) -> Iterator[docker.DockerClient]:
    configuration = shared / "containers.conf"
    if not configuration.exists():
        manager = 'cgroup_manager = "cgroupfs"\n' if os.geteuid() == 0 else ""  # systemd may not be there
        (shared / "registries.conf").write_text(REGISTRIES)
        configuration.write_text(f'{CONFIGURATION}{manager}runtime = "{runtimes()[0]}"\n')
    with (shared / "podman.log").open("a") as log:
        process = subprocess.Popen(
            [*command(shared), "system", "service", "--time", "0", f"unix://{socket}"],
            env=environment(shared),
            stdout=log,
            stderr=log,
        )
        client = None
        try:
            client = connected(socket, shared / "podman.log")
            yield client
        finally:
            if client:
                client.close()
            process.terminate()
            process.wait(timeout=START)


def command(shared: Path) -> list[str]:
    return ["podman", "--root", f"{shared}/root", "--runroot", f"{shared}/run", "--tmpdir", f"{shared}/tmp"]


def environment(shared: Path) -> dict[str, str]:
    return os.environ | {
        "CONTAINERS_CONF": f"{shared}/containers.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{shared}/registries.conf",
    }


def connected(socket: Path, log: Path) -> docker.DockerClient:
    end = time.monotonic() + START
    while time.monotonic() < end:
        if socket.exists():
            return docker.DockerClient(base_url=f"unix://{socket}", timeout=300)
        time.sleep(0.05)
    raise AssertionError(f"Podman does not start: {log.read_text()}")

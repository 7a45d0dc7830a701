"""A container engine for the tests: Docker if this user may use it, otherwise Podman with Docker's API.

Podman has a storage of its own, which is deleted afterwards. From Docker, only the images that the tests made are.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
def borrowed(address: str, shared: Path) -> Iterator[docker.DockerClient]:
    """Use the engine at `address`. The last of several processes deletes the images that are new since the first."""
    client = docker.DockerClient(base_url=address, timeout=300)
    record = shared / "images.json"
    with shared.with_suffix(".users").open("w") as users:
        shared.mkdir(exist_ok=True)
        fcntl.flock(users, fcntl.LOCK_EX)
        if not record.exists():
            record.write_text(json.dumps([each.id for each in client.images.list()]))
        fcntl.flock(users, fcntl.LOCK_SH)
        yield client
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        before = json.loads(record.read_text())
        for image in client.images.list():
            if image.id not in before:
                client.images.remove(image.id, force=True)
        client.close()


@contextmanager
def podman(shared: Path, socket: Path) -> Iterator[docker.DockerClient]:
    """Run a service on `socket` with its images in `shared`. The last of several processes deletes them."""
    with shared.with_suffix(".users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        shared.mkdir(exist_ok=True)
        with service(shared, socket) as client:
            yield client
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        subprocess.run([*command(shared), "system", "reset", "--force"], env=environment(shared), check=False)
        shutil.rmtree(shared, ignore_errors=True)


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

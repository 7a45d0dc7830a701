"""A container engine for the tests: Podman with Docker's API, in a storage that is deleted afterwards."""

import fcntl
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


def require_all() -> None:
    """Skip the test if containers cannot run here."""
    require_linux()  # the fake base images contain the Python of this machine
    require("podman", "strip")
    if not runtimes():
        require("runc")


def runtimes() -> list[str]:
    """Return the installed container runtimes, runc first: crun refuses machines with both versions of cgroups."""
    return [name for name in ("runc", "crun") if shutil.which(name)]


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

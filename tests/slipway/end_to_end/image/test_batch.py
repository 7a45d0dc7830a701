"""The batch image scores files as `slipway score` does, without a network, a shell or rights, and also on Dask."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import distributed
import docker
import pytest

from slipway.integrations.ports import free_port
from slipway.release.component import BATCH
from slipway.scoring import score
from tests.slipway.conftest import ROOT
from tests.slipway.end_to_end.image import fake_bases
from tests.slipway.end_to_end.image.conftest import Built, Engine
from tests.slipway.scoring.conftest import files

MOST_BYTES = 225_000_000


@pytest.fixture(scope="module")
def batch(podman: Engine, bases: dict[str, str], built: Built) -> str:
    """Build the batch image from the same commit as the image of the server, and return its name."""
    assert podman
    said = built.repository.must("slipway", "image", "build", "--batch", **bases)
    return said.split()[1]


def with_dependencies(package: str) -> set[str]:
    """Return the normalized names of a package and of all installed packages that it needs."""
    found, todo = set(), [package]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            needed = [each for each in requires(name) or () if "extra ==" not in each]
        except PackageNotFoundError:  # needed only by another version of Python
            continue
        found.add(name)
        todo += [match[0] for each in needed if (match := re.match(r"[\w.-]+", each))]
    return found


@pytest.fixture(scope="module")
def dask_batch(podman: Engine, bases: dict[str, str], built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the batch image of a fork with the component `dask`, whose batch.txt also has `distributed`."""
    assert podman
    fork = built.repository.clone(tmp_path_factory.mktemp("dask") / "repository")
    shutil.copytree(built.repository.path / "champion", fork.path / "champion")
    locked = re.split(r"^(?=[\w.-]+==)", (ROOT / "requirements/dev.txt").read_text(), flags=re.MULTILINE)
    batch = fork.path / "requirements/batch.txt"
    known = set(re.findall(r"^([\w.-]+)==", batch.read_text(), re.MULTILINE))
    needed = with_dependencies("distributed") - known
    batch.write_text(batch.read_text() + "".join(each for each in locked if each.partition("==")[0] in needed))
    fork.commit("Score on Dask")
    said = fork.must("slipway", "image", "build", "--batch", "--tag", "dask", **bases)
    return said.split()[1]


@contextmanager
def dask_cluster(podman: Engine, image: str, folder: Path) -> Iterator[str]:
    """Run the scheduler and two workers of the component `dask`. Yield the address of the scheduler."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    commands = [["distributed.cli.dask_scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"]]
    options = ["--nthreads=1", "--no-nanny", "--no-dashboard", "--local-directory=/tmp", "--death-timeout=60"]
    commands += [["distributed.cli.dask_worker", address, "--host=127.0.0.1", *options]] * 2
    containers = [
        podman.client.containers.run(
            image,
            ["-m", *command],
            entrypoint="python3",
            detach=True,
            network_mode="host",
            read_only=True,
            cap_drop=["ALL"],
            user="65532:65532",
            tmpfs={"/tmp": ""},
            volumes={str(folder): {"bind": "/data", "mode": "rw"}},
        )
        for command in commands
    ]
    try:
        with distributed.Client(address, timeout=60) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for each in containers:
            each.remove(force=True)


def run(podman: Engine, image: str, folder: Path, *arguments: str, network: str = "none") -> tuple[int, str]:
    """Run a container as the CronJob does, with `folder` at /data. Return its exit code and its output."""
    container = podman.client.containers.run(
        image,
        [*arguments],
        detach=True,
        network_mode=network,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        user="65532:65532",
        tmpfs={"/tmp": ""},
        volumes={str(folder): {"bind": "/data", "mode": "rw"}},
    )
    try:
        return container.wait()["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


def test_the_batch_image_writes_the_files_of_the_verb(batch: str, podman: Engine, built: Built, tmp_path: Path) -> None:
    (tmp_path / "data/input").mkdir(parents=True)
    shutil.copy(ROOT / "sample/source/1998H2.csv", tmp_path / "data/input")
    for folder in (tmp_path / "data", tmp_path / "data/input"):
        folder.chmod(0o777)
    code, said = run(podman, batch, tmp_path / "data", "/data/input", "/data/output")
    assert code == 0, said
    source = str(tmp_path / "data/input")
    score.run(built.repository.path / "champion", source, str(tmp_path / "expected"), (), lambda *_: None)
    assert files(tmp_path / "data/output") == files(tmp_path / "expected")
    code, said = run(podman, batch, tmp_path / "data", "/data/none", "/data/output")
    assert (code, said) == (
        2,
        "slipway: /data/none does not exist or has no files; name a file, or a folder of files.\n",
    )


def test_two_dask_workers_of_the_batch_image_write_the_same_bytes(
    dask_batch: str, podman: Engine, built: Built, tmp_path: Path
) -> None:
    (tmp_path / "data/input").mkdir(parents=True)
    for part in ("1997H2", "1998H1", "1998H2"):
        shutil.copy(ROOT / f"sample/source/{part}.csv", tmp_path / "data/input")
    for folder in (tmp_path / "data", tmp_path / "data/input"):
        folder.chmod(0o777)
    with dask_cluster(podman, dask_batch, tmp_path / "data") as address:
        arguments = ("/data/input", "/data/output", f"--dask={address}")
        code, said = run(podman, dask_batch, tmp_path / "data", *arguments, network="host")
    assert code == 0, said
    source = str(tmp_path / "data/input")
    score.run(built.repository.path / "champion", source, str(tmp_path / "expected"), (), lambda *_: None)
    assert files(tmp_path / "data/output") == files(tmp_path / "expected")


def test_the_batch_image_is_small_and_has_the_labels_of_the_server(batch: str, podman: Engine, built: Built) -> None:
    assert batch == built.name + BATCH
    images = {name: podman.client.images.get(name) for name in (batch, built.name, fake_bases.RUNTIME)}
    assert images[batch].attrs["Size"] - images[fake_bases.RUNTIME].attrs["Size"] < MOST_BYTES
    assert images[batch].attrs["Config"]["Labels"] == images[built.name].attrs["Config"]["Labels"]
    assert images[batch].attrs["Config"]["User"] == "65532:65532"


def test_the_batch_image_has_no_shell(batch: str, podman: Engine) -> None:
    with pytest.raises(docker.errors.APIError):
        podman.client.containers.run(batch, ["-c", "true"], entrypoint="sh", remove=True, network_mode="none")


def test_the_image_of_the_server_does_not_have_the_packages_of_batch_scoring(podman: Engine, built: Built) -> None:
    code = "import importlib.util as u; print([n for n in ('pyarrow', 'fsspec', 'slipway.scoring') if u.find_spec(n)])"
    said = podman.client.containers.run(
        built.name, ["-c", code], entrypoint="python3", remove=True, network_mode="none"
    )
    assert said.decode().strip() == "[]"

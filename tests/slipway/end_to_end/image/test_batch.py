"""The batch image scores files as `slipway score` does, without a network, a shell or rights."""

import shutil
from pathlib import Path

import docker
import pytest

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


def run(podman: Engine, image: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a container as the CronJob does, with `folder` at /data. Return its exit code and its output."""
    container = podman.client.containers.run(
        image,
        [*arguments],
        detach=True,
        network_mode="none",
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

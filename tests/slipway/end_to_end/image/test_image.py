"""The image, built and tested with a real engine on fake base images, and images that the smoke test must reject."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.bundle import GOLDEN
from slipway.release import smoke
from slipway.release.image import LOG
from tests.slipway.conftest import Result
from tests.slipway.end_to_end.image import fake_bases
from tests.slipway.end_to_end.image.conftest import BASES, MIRROR, Built, Engine

MOST_BYTES = 120_000_000
SERVER = "from slipway.serving.{module} import {name}; {change}; from slipway.serving.__main__ import main; main()"
Try = Callable[..., Result]
Variant = Callable[..., str]


@pytest.fixture
def variant(podman: Engine, built: Built, request: pytest.FixtureRequest) -> Variant:
    """Build an image from the good one, with more lines of a Dockerfile."""

    def make(*lines: str) -> str:
        name = f"localhost/variant-{abs(hash(request.node.name))}:latest"
        fake_bases.build(podman.client, name, [f"FROM {built.name}", *lines])
        return name

    return make


@pytest.fixture
def smoked(podman: Engine, slipway: Try, monkeypatch: pytest.MonkeyPatch) -> Try:
    monkeypatch.setenv("DOCKER_HOST", podman.host)
    return lambda *arguments: slipway("image", "smoke", *arguments)


def serving(module: str, name: str, change: str) -> str:
    """Return an entry point that runs the server with a change."""
    code = SERVER.format(module=module, name=name, change=change)
    return f"ENTRYPOINT {json.dumps(['python3', '-c', code, '/app/bundle'])}"


def as_root(code: str) -> tuple[str, str, str]:
    """Return lines that change the file system, without a shell."""
    return "USER 0", f"RUN {json.dumps(['python3', '-c', code])}", "USER 65532"


def test_smoke_passes_for_a_correct_image(built: Built, smoked: Try) -> None:
    result = smoked(built.name, "--bundle", str(built.repository.path / "champion"))
    assert result.code == 0, result.err
    for words in ("ready", "nothing writable", "labels agree", "8 golden rows", ", 0 failed; gone with exit code 0"):
        assert words in result.out


def test_labels_contain_the_provenance(podman: Engine, built: Built) -> None:
    commit, created = built.repository.must("git", "show", "-s", "--format=%H %cI").split()
    configuration = podman.client.images.get(built.name).attrs["Config"]
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.created"] == created
    assert labels["org.opencontainers.image.title"] == "slipway"
    assert built.name == f"slipway:sha-{commit[:12]}"
    for key, file in {"bundle": "champion.dvc", "data": "data.dvc"}.items():
        assert f"- md5: {labels[f'slipway.{key}']}.dir" in (built.repository.path / file).read_text()
    assert configuration["User"] == "65532:65532"


def test_image_is_small(podman: Engine, built: Built) -> None:
    size, base = (podman.client.images.get(name).attrs["Size"] for name in (built.name, fake_bases.RUNTIME))
    assert size - base < MOST_BYTES


def test_packages_have_no_times_and_no_sources(podman: Engine, built: Built) -> None:
    """Equal packages then give an equal layer on every machine."""
    look = """
import pathlib as p
files = [*p.Path("/app/packages").rglob("*")]
code = [file for file in files if file.suffix == ".pyc"]
print(len(code) > 500, {file.stat().st_mtime for file in files}, {file.open("rb").read(8)[4:] for file in code})
print([file for file in files if file.suffix == ".py"])
"""
    said = podman.client.containers.run(built.name, ["-c", look], entrypoint=["python3"], remove=True).decode()
    unchecked = b"\x01\x00\x00\x00"  # PEP 552: hash of the source, unchecked
    assert said.splitlines() == [f"True {{0.0}} {{{unchecked!r}}}", "[]"]


def test_image_does_not_contain_the_package_mirror(podman: Engine, built: Built) -> None:
    record = json.dumps([podman.client.api.history(built.name), podman.client.images.get(built.name).attrs])
    assert "slipway.serving" in record
    assert MIRROR not in record


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        pytest.param(["USER 0"], "The image runs as 0;", id="root"),
        pytest.param(["USER nobody"], "The image runs as nobody;", id="a user without a number"),
        pytest.param(
            as_root("import os; os.chmod('/app/bundle', 0o700)"), "The server ends before it is ready", id="for root"
        ),
        pytest.param(
            [serving("server", "Server", "open('/started', 'w')")], "[Errno 30] Read-only file system", id="writes"
        ),
        pytest.param(
            [*as_root("import os; os.mkdir('/kept'); os.chmod('/kept', 0o777)"), "VOLUME /kept"],
            "/kept can be written",
            id="volume",
        ),
        pytest.param([f"COPY --from={fake_bases.BUILDER} /bin/sh /bin/sh"], "The image has sh;", id="shell"),
        pytest.param(
            [f"COPY --from={fake_bases.BUILDER} {fake_bases.STDLIB}/pip /app/pip"], "The image has pip;", id="pip"
        ),
        pytest.param(
            as_root("import pathlib as p; f = p.Path('/app/bundle/golden.json'); f.write_text('{}')"),
            "/app/bundle/golden.json is corrupt",
            id="no golden rows",
        ),
        pytest.param(
            as_root("open('/app/bundle/reference.json', 'a').write(' ')"), "build the image again", id="another bundle"
        ),
        pytest.param(["LABEL slipway.data=0123"], "/version returns", id="a label that lies"),
        pytest.param(
            [
                serving(
                    "served_model",
                    "ServedModel as M",
                    "predict = M.predict; M.predict = lambda self, rows: predict(self, rows) * 1.01",
                )
            ],
            "The answer to row 0 of golden.json is",
            id="other answers",
        ),
        pytest.param(
            [serving("server", "Server", "import os; Server.handle_exit = lambda *_: os._exit(0)")],
            "requests failed around SIGTERM",
            id="drops requests",
        ),
        pytest.param(
            [serving("server", "Server", "Server.handle_exit = lambda *_: None")],
            "The server is still ready after SIGTERM",
            id="ignores SIGTERM",
        ),
        pytest.param(
            [serving("server", "Server", "Server._stop = lambda *_: None")],
            "The server still runs",
            id="never ends",
        ),
        pytest.param(
            [serving("server", "Server", "import os; Server._stop = lambda *_: os._exit(3)")],
            "The server ends with exit code 3",
            id="exit code",
        ),
        pytest.param(
            ['ENTRYPOINT ["python3", "-c", "import time; time.sleep(600)"]'], "The server is not ready after", id="slow"
        ),
        pytest.param(['ENTRYPOINT ["nothing"]'], "The container does not start", id="no program"),
    ],
)
def test_smoke_rejects_a_faulty_image(
    variant: Variant, smoked: Try, monkeypatch: pytest.MonkeyPatch, lines: list[str], sentence: str
) -> None:
    monkeypatch.setattr(smoke, "START", 1 if "sleep" in lines[-1] else 20)
    monkeypatch.setattr(smoke, "STOP", 3)
    result = smoked(variant(*lines))
    assert result.code == 1
    assert sentence in result.err


def test_smoke_rejects_another_bundle(built: Built, smoked: Try, tmp_path: Path) -> None:
    other = shutil.copytree(built.repository.path / "champion", tmp_path / "other")
    (other / GOLDEN).write_text((other / GOLDEN).read_text() + "\n")
    result = smoked(built.name, "--bundle", str(other))
    assert result.code == 1
    assert f"but {other} is" in result.err


def test_smoke_removes_its_container(podman: Engine, variant: Variant, smoked: Try) -> None:
    name = variant(serving("server", "Server", "1 / 0"))
    assert smoked(name).code == 1
    assert not podman.client.containers.list(all=True, filters={"ancestor": name})


def test_smoke_names_a_missing_image(smoked: Try) -> None:
    result = smoked("localhost/nothing:latest")
    assert result.code == 2
    assert "The engine has no image localhost/nothing:latest" in result.err


def test_failed_build_prints_one_sentence_and_writes_a_log(podman: Engine, built: Built) -> None:
    environment = {"DOCKER_HOST": podman.host, "PIP_INDEX_URL": "file:///nowhere"}
    result = built.repository.run("slipway", "image", "build", "--tag", "failed", *BASES, **environment)
    assert result.code == 2
    assert "No matching distribution found" in result.err
    assert "No matching distribution found" in (built.repository.path / LOG).read_text()
    assert len(result.err.splitlines()) == 1

"""The chain from the commit to the answer: `slipway status --live` names each broken link."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest

from slipway.provenance import Provenance
from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, release_file
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import flags, image

Offer = Callable[[str], Candidate]
Run = Callable[..., Result]


class Answers(BaseHTTPRequestHandler):
    """Answers to /version that a test sets."""

    provenance: Provenance | None = None

    def do_GET(self) -> None:
        body = json.dumps({"provenance": self.provenance.model_dump()} if self.provenance else ["?"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def answering() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def released(
    work: Repository,
    offer: Offer,
    slipway: Run,
    answering: str,
    empty_registry: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The address of a server with the model that was released to production, with a registry."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work.path}/mlflow.db")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    shutil.copy(empty_registry, work.path / "mlflow.db")
    made = offer("one")
    mlflow.set_tracking_uri(f"sqlite:///{work.path}/mlflow.db")
    client = mlflow.MlflowClient()
    client.create_registered_model("house-prices")
    tags = made.provenance.tags() | {"slipway.image_digest": str(image(1).digest)}
    client.create_model_version("house-prices", str(work.path), tags=tags)
    assert slipway("promote", PRODUCTION, *flags(1)).code == 0
    assert slipway("deploy", PRODUCTION).code == 0
    Answers.provenance = made.provenance
    return answering


def test_status_confirms_an_unbroken_chain(released: str, slipway: Run) -> None:
    result = slipway("status", "--live", released)
    assert result.code == 0, result.out
    assert result.out.count("  holds  ") == 6
    assert "version 1 of house-prices has the alias champion" in result.out
    assert "unchecked" in result.out  # the image, without an engine
    assert "sha-000000000001" in slipway("status").out


RELEASE = release_file(PRODUCTION)


@pytest.mark.parametrize(
    ("file", "old", "new", "links"),
    [
        (RELEASE, f'"{image(1).digest}"', f'"{image(2).digest}"', "registry"),
        (RELEASE, "slipway/bundle: ", "slipway/bundle: x # ", "dvc.lock, bundle, registry, answer"),
        (RELEASE, "slipway/commit: ", "slipway/commit: deadbeef # ", "commit, answer"),
        (RELEASE, "kind: Component", "kind: [", "release"),
        ("champion.dvc", "md5: ", "md5: 0", "bundle"),
        ("dvc.lock", "md5: ", "md5: 0", "dvc.lock"),
    ],
)
def test_status_names_the_link_that_a_commit_breaks(
    released: str, work: Repository, slipway: Run, file: str, old: str, new: str, links: str
) -> None:
    work.must("git", "pull", "--quiet", "origin", "main")
    work.edit(file, old, new)
    work.commit("By hand")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    work.must("git", "fetch", "--quiet")
    result = slipway("status", "--live", released)
    assert result.code == 1, result.out
    assert f"The chain is broken at: {links}." in result.out


@pytest.mark.parametrize("served", [Provenance(bundle="another"), None], ids=["another model", "another server"])
def test_status_names_another_answer(released: str, slipway: Run, served: Provenance | None) -> None:
    Answers.provenance = served
    assert "The chain is broken at: answer." in slipway("status", "--live", released).out


def test_status_names_a_missing_alias(released: str, slipway: Run) -> None:
    mlflow.MlflowClient().delete_registered_model_alias("house-prices", "champion")
    assert "The chain is broken at: registry." in slipway("status", "--live", released).out


def test_deploy_waits_until_the_released_model_answers(released: str, work: Repository, slipway: Run) -> None:
    """It stops after timeout_seconds, also if another model answers."""
    right = Answers.provenance
    for old, new in (
        ("urls: {}", f"urls: {{production: '{released}'}}"),
        ("timeout_seconds: 600", "timeout_seconds: 4"),
    ):
        work.edit("params.yaml", old, new)
    answered = slipway("deploy", PRODUCTION)
    assert answered.code == 0, answered.err
    assert f"{released} answers with bundle" in answered.out
    Answers.provenance = Provenance(bundle="another")
    late = slipway("deploy", PRODUCTION)
    assert (late.code, "after 4 s: it answers with bundle another" in late.err) == (1, True)
    Answers.provenance = right


@pytest.mark.usefixtures("work")
def test_status_shows_that_nothing_is_released_yet(slipway: Run) -> None:
    assert slipway("status").out.count("nothing yet") == 2
    result = slipway("status", "--live", "http://127.0.0.1:1")
    assert (result.code, "nothing has been released to production" in result.out) == (1, True)
    assert (slipway("deploy", PRODUCTION).code, slipway("releases", "elsewhere").code) == (1, 2)

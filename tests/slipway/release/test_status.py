"""The chain from the commit to the answer: each link can be broken, and is named then."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow
import pytest

from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, images_file, origin_file
from slipway.serving.provenance import Lineage
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import flags, image

Offer = Callable[[str], Candidate]
Run = Callable[..., Result]


class Answers(BaseHTTPRequestHandler):
    """A server's /version, as a test wants it."""

    lineage: Lineage | None = None

    def do_GET(self) -> None:
        body = json.dumps({"lineage": self.lineage.model_dump()} if self.lineage else ["?"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def answering() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def released(work: Repository, offer: Offer, slipway: Run, answering: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that answers with what was released to production, by a registry too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work.path}/mlflow.db")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    made = offer("one")
    mlflow.set_tracking_uri(f"sqlite:///{work.path}/mlflow.db")
    client = mlflow.MlflowClient()
    client.create_registered_model("house-prices")
    client.create_model_version("house-prices", str(work.path), tags=made.tags(image(1)))
    assert slipway("promote", PRODUCTION, *flags(1)).code == 0
    assert slipway("deploy", PRODUCTION).code == 0
    Answers.lineage = Lineage(bundle=made.bundle, commit=made.commit)
    return answering


def push(work: Repository, file: str, old: str, new: str) -> None:
    work.must("git", "pull", "--quiet", "origin", "main")
    work.edit(file, old, new)
    work.commit("By hand")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    work.must("git", "fetch", "--quiet")


def test_all_links_hold(released: str, slipway: Run) -> None:
    result = slipway("status", "--live", released)
    assert result.code == 0, result.out
    assert result.out.count("  holds  ") == 6
    assert "Version 1 of house-prices is the champion" in result.out
    assert "not seen" in result.out  # the image, as no engine can look into it
    assert "sha-000000000001" in slipway("status").out


def other_image(work: Repository, _: str) -> None:
    push(work, images_file(PRODUCTION), f'"{image(1).digest}"', f'"{image(2).digest}"')


def other_bundle(work: Repository, _: str) -> None:
    push(work, origin_file(PRODUCTION), "slipway/bundle: ", "slipway/bundle: x # ")


def other_commit(work: Repository, _: str) -> None:
    push(work, origin_file(PRODUCTION), "slipway/commit: ", "slipway/commit: deadbeef # ")


def no_overlay(work: Repository, _: str) -> None:
    push(work, images_file(PRODUCTION), "kind: Kustomization", "kind: [")


def other_champion(work: Repository, _: str) -> None:
    push(work, "champion.dvc", "md5: ", "md5: 0")


def other_lock(work: Repository, _: str) -> None:
    push(work, "dvc.lock", "md5: ", "md5: 0")


def other_alias(_: Repository, __: str) -> None:
    mlflow.MlflowClient().delete_registered_model_alias("house-prices", "champion")


def other_answer(_: Repository, __: str) -> None:
    Answers.lineage = Lineage(bundle="another")


def no_server_of_ours(_: Repository, __: str) -> None:
    Answers.lineage = None


@pytest.mark.parametrize(
    ("breaks", "links"),
    [
        (other_image, "registry"),
        (other_bundle, "dvc.lock, bundle, registry, answer"),
        (other_commit, "commit, answer"),
        (no_overlay, "overlay"),
        (other_champion, "bundle"),
        (other_lock, "dvc.lock"),
        (other_alias, "registry"),
        (other_answer, "answer"),
        (no_server_of_ours, "answer"),
    ],
)
def test_a_broken_link_is_named(
    released: str, work: Repository, slipway: Run, breaks: Callable[[Repository, str], None], links: str
) -> None:
    breaks(work, released)
    result = slipway("status", "--live", released)
    assert result.code == 1, result.out
    assert f"The chain is broken at: {links}." in result.out


def test_a_release_is_waited_for(released: str, work: Repository, slipway: Run) -> None:
    """And not for ever; nor is it enough that another model answers."""
    right = Answers.lineage
    for old, new in (
        ("urls: {}", f"urls: {{production: '{released}'}}"),
        ("timeout_seconds: 600", "timeout_seconds: 4"),
    ):
        work.edit("params.yaml", old, new)
    answered = slipway("deploy", PRODUCTION)
    assert answered.code == 0, answered.err
    assert f"{released} answers with bundle" in answered.out
    Answers.lineage = Lineage(bundle="another")
    late = slipway("deploy", PRODUCTION)
    assert (late.code, "after 4 s: it answers with bundle another" in late.err) == (1, True)
    Answers.lineage = right


@pytest.mark.usefixtures("work")
def test_nothing_is_live_yet(slipway: Run) -> None:
    assert slipway("status").out.count("nothing yet") == 2
    result = slipway("status", "--live", "http://127.0.0.1:1")
    assert (result.code, "nothing has been released to production" in result.out) == (1, True)
    assert (slipway("deploy", PRODUCTION).code, slipway("releases", "elsewhere").code) == (1, 2)

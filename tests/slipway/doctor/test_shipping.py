"""From the image to the answers: a registry, agents, a cluster and servers that are not as they should be."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub
from slipway import artifacts
from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image, render
from slipway.release.history import PRODUCTION, release_file
from tests.slipway.conftest import Repository
from tests.slipway.doctor.answers import Answer, answering
from tests.slipway.doctor.conftest import Find, edited, mended

CHAMPION = artifacts.stated_hash((Path(__file__).parents[3] / "champion.dvc").read_bytes())


@pytest.fixture
def answer() -> Answer:
    return Answer()


@pytest.fixture
def another(answer: Answer) -> Iterator[str]:
    with answering(answer) as url:
        yield url


def release(fork: Repository, bundle: str, url: str) -> None:
    """Have main of origin say that a bundle is live in production, and params.yaml that it answers there."""
    deployed = Deployed(Image("ghcr.io/team/houses", "sha-1", f"sha256:{1:064x}"), Provenance(bundle=bundle), None)
    (fork.path / release_file(PRODUCTION)).write_bytes(render(deployed))
    fork.commit("Release")
    fork.must("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    edited(fork, "params.yaml", "urls: {}", f"urls: {{production: '{url}'}}")


def line_of(key: str) -> int:
    """Return the line of params.yaml, in this folder, that starts with a key."""
    lines = Path("params.yaml").read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.strip().startswith(key)]
    return number


def test_it_holds(find: Find) -> None:
    for name in ("release.image", "registry", "example hosts", "agents", "cluster access"):
        assert find(name).state == "holds", find(name)
    assert find("release.urls").state == "unknown"  # as it is optional


def test_images_go_nowhere(fork: Repository, find: Find, registry: str) -> None:
    edited(fork, "params.yaml", f"image: {registry}/team/houses", "image: null")
    assert (find("release.image").state, find("registry").state) == ("missing", "unknown")
    assert mended(fork, find, "release.image").sentence == "Images go to ghcr.io/team/houses."


def test_no_registry(fork: Repository, find: Find, registry: str, another: str, answer: Answer) -> None:
    edited(fork, "params.yaml", f"image: {registry}", f"image: {another.removeprefix('http://')}")
    assert find("registry").state == "holds"
    answer.status = 404
    assert "answers 404, as no registry does" in find("registry").sentence
    edited(fork, "params.yaml", another.removeprefix("http://"), "127.0.0.1:9")
    found = find("registry")
    assert (found.state, found.command) == ("missing", f"${{EDITOR:-vi}} +{line_of('image:')} params.yaml")


def test_an_example_is_still_in_use(fork: Repository, find: Find, registry: str) -> None:
    edited(fork, "params.yaml", f"image: {registry}/team/houses", "image: ghcr.io/your-team/house-prices")
    found = find("example hosts")
    assert (found.state, f"(params.yaml, line {line_of('image:')})" in found.sentence) == ("missing", True)
    edited(fork, "params.yaml", "image: ghcr.io/your-team/house-prices", f"image: {registry}/team/houses")
    edited(fork, "params.yaml", "urls: {}", "urls: {staging: https://houses.staging.example.com}")
    assert find("example hosts").command == f"${{EDITOR:-vi}} +{line_of('urls:')} params.yaml"


def test_agents_follow_another_repository(fork: Repository, find: Find, github: GitHub) -> None:
    """One of them is enough, if it does so wholly."""
    mine, upstream = f"{github.url}/team/houses", "https://github.com/your-team/house-prices"
    edited(fork, "kustomize/agents/flux/source.yaml", mine, upstream)
    assert find("agents").sentence == "argocd would follow team/houses."
    edited(fork, "kustomize/agents/argocd/staging.yaml", mine, upstream)
    assert (find("agents").state, f"follows {upstream}, " in find("agents").sentence) == ("missing", True)
    assert mended(fork, find, "agents").state == "holds"
    fork.must("git", "remote", "set-url", "origin", f"{github.url}/team/another")
    assert find("agents").state == "missing"
    fork.must("git", "remote", "remove", "origin")
    assert find("agents").state == "unknown"


def kubeconfig(url: str, context: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": "hidden-token-of-the-cluster"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
    )


def test_kubectl(
    fork: Repository, find: Find, another: str, answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against a server that answers as a cluster does to the question who may do what."""
    edited(fork, "params.yaml", "deploy: agent", "deploy: kubectl")
    config = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(config))
    config.write_text(kubeconfig(another, ""))
    assert find("cluster access").command == "kubectl config use-context CONTEXT"
    config.write_text(kubeconfig(another, "here"))
    kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}}
    answer.status, answer.document = 201, {**kind, "status": {"allowed": True}}
    assert find("cluster access").state == "holds", find("cluster access")
    answer.document = {**kind, "status": {"allowed": False}}
    assert "may not write to house-prices" in find("cluster access").sentence
    config.write_text(kubeconfig("http://127.0.0.1:9", "here"))
    assert find("cluster access").state == "missing"
    assert find("agents").state == "holds"  # as none is needed


def test_a_server_answers_as_released(fork: Repository, find: Find) -> None:
    fork.must("dvc", "pull", "--quiet", "champion.dvc")
    log = fork.path / "build.log"
    command = [sys.executable, "-m", "slipway", "serve", "--port", "0"]
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=fork.environment | {"SLIPWAY_GRACE": "0"}, stdout=out) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while not (found := re.findall(r'"port": ?(\d+)', log.read_text())):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            release(fork, str(CHAMPION), f"http://127.0.0.1:{found[0]}")
            assert find("release.urls").state == "holds", find("release.urls")
        finally:
            process.terminate()
    assert "does not answer" in find("release.urls").sentence


def test_a_server_answers_otherwise(fork: Repository, find: Find, another: str, answer: Answer) -> None:
    release(fork, "a0123", another)
    answer.document = {"provenance": {"bundle": "4567", "commit": "89ab"}}
    found = find("release.urls")
    assert (found.state, "answers with bundle 4567 of commit 89ab" in found.sentence) == ("missing", True)
    assert found.command == f"slipway status production --live {another}"
    answer.document = ["?"]
    assert "not like a server of Slipway" in find("release.urls").sentence


def test_an_environment_that_is_none(fork: Repository, find: Find) -> None:
    edited(fork, "params.yaml", "urls: {}", "urls: {elsewhere: http://127.0.0.1:9}")
    found = find("release.urls")
    assert (found.state, "names elsewhere" in found.sentence) == ("missing", True)

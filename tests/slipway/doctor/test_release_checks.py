"""Checks of a release, with a registry, agents, a cluster and servers that differ from the configuration."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub
from slipway import artifacts
from slipway.monitoring.manifests import compile_to
from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image, render
from slipway.release.history import PRODUCTION, release_file
from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import Answer, Find, answering

CHAMPION = artifacts.stated_hash((Path(__file__).parents[3] / "champion.dvc").read_bytes())


@pytest.fixture
def answer() -> Answer:
    return Answer()


@pytest.fixture
def another(answer: Answer) -> Iterator[str]:
    with answering(answer) as url:
        yield url


def release(fork: Repository, bundle: str, url: str) -> None:
    """Release a bundle to production on main of origin, and add the address of production to params.yaml."""
    deployed = Deployed(Image("ghcr.io/team/houses", "sha-1", f"sha256:{1:064x}"), Provenance(bundle=bundle), None)
    (fork.path / release_file(PRODUCTION)).write_bytes(render(deployed))
    fork.commit("Release")
    fork.must("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    fork.edit("params.yaml", "urls: {}", f"urls: {{production: '{url}'}}")


def place_of(key: str) -> str:
    """Return the place of a key in params.yaml as the doctor prints it."""
    lines = Path("params.yaml").read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:")]
    return f"Edit `{key}` in params.yaml, line {number}."


def test_addresses_of_environments_are_optional(find: Find) -> None:
    assert (find("release.urls").state, find("release.urls").place) == ("optional", place_of("urls"))


def test_an_image_without_a_name_is_reported(fork: Repository, find: Find, registry: str) -> None:
    fork.edit("params.yaml", f"image: {registry}/team/houses", "image: null")
    found = find("image")
    assert found.state == "missing"
    assert found.place == f"{place_of('image')} An example is ghcr.io/team/houses."


def test_a_registry_that_does_not_answer_is_reported(
    fork: Repository, find: Find, registry: str, another: str, answer: Answer
) -> None:
    host = another.removeprefix("http://")
    fork.edit("params.yaml", f"image: {registry}", f"image: {host}")
    assert find("image").state == "ok"
    answer.status = 404
    assert "answers 404, which a registry does not" in find("image").sentence
    fork.edit("params.yaml", host, "127.0.0.1:9")
    assert (find("image").state, find("image").place) == ("missing", place_of("image"))


LOGGED = "prediction_log:\n  address: s3://logs/houses\n  image: ghcr.io/team/log-shipper:1\n"


def test_a_prediction_log_is_off_without_its_section(find: Find) -> None:
    assert find("prediction log").state == "ok"
    assert find("prediction log").sentence.startswith("Requests are not logged")


def test_settings_of_the_prediction_log_that_were_not_compiled_are_reported(fork: Repository, find: Find) -> None:
    params = fork.path / "params.yaml"
    without = params.read_text()
    params.write_text(without + LOGGED)
    assert (find("prediction log").state, find("prediction log").command) == ("missing", "make manifests")
    compile_to(Path("kustomize/components"))
    Path("champion").mkdir(exist_ok=True)
    Path("champion/schema.json").write_text("{}")
    assert "mark `private`" in find("prediction log").sentence
    params.write_text(without)
    assert (find("prediction log").state, find("prediction log").command) == ("missing", "make manifests")


def test_overlays_without_the_prediction_log_are_reported(fork: Repository, find: Find) -> None:
    with (fork.path / "params.yaml").open("a") as file:
        file.write(LOGGED)
    compile_to(Path("kustomize/components"))
    for environment in ("staging", "production"):
        fork.edit(f"kustomize/overlays/{environment}/kustomization.yaml", "- ../../components/prediction-log", "# off")
    found = find("prediction log")
    assert (found.state, "no overlay has the component" in found.sentence) == ("missing", True)


def test_a_base_image_without_a_digest_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("Dockerfile", f"@sha256:{1:064x}", "")
    found = find("base images")
    assert (found.state, found.command) == ("optional", "slipway image pin")
    assert found.sentence.startswith("docker.io/library/python:3.13-trixie in the Dockerfile can change")


def test_an_example_address_that_is_in_use_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("params.yaml", "urls: {}", "urls: {staging: https://houses.staging.example.com}")
    found = find("template values")
    assert (found.state, found.place) == ("missing", "Edit these lines.")
    assert "houses.staging.example.com (params.yaml, line " in found.sentence
    fork.edit("params.yaml", "{staging: https://houses.staging.example.com}", "{}")
    assert find("template values").state == "ok"  # without the component ingress, no file uses the host names
    fork.edit("kustomize/overlays/staging/kustomization.yaml", "# - ../../components/in", "- ../../components/in")
    assert find("template values").command == "slipway init --staging-host HOST --production-host HOST"


def test_one_agent_has_to_follow_this_repository(fork: Repository, find: Find, github: GitHub) -> None:
    mine, template = f"{github.url}/team/houses", "https://github.com/your-team/house-prices"
    fork.edit("kustomize/agents/flux/source.yaml", mine, template)
    assert find("template values").state == "ok"
    fork.edit("kustomize/agents/argocd/staging.yaml", mine, template)
    found = find("template values")
    assert (found.state, found.command) == ("missing", f"slipway init --repository {mine}")
    assert found.sentence == "No agent in kustomize/agents follows team/houses."
    fork.edit("params.yaml", "deploy: agent", "deploy: kubectl")
    assert find("template values").state == "ok"  # the workflow deploys


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


KUBECTL = """#!{python}
import json, os, sys, urllib.request
config = json.loads(open(os.environ["KUBECONFIG"]).read())
if sys.argv[1:] == ["config", "current-context"]:
    sys.exit(print(config["current-context"]) if config["current-context"] else "error: current-context is not set")
server = config["clusters"][0]["cluster"]["server"]
review = urllib.request.Request(server + "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", b"{{}}")
allowed = json.load(urllib.request.urlopen(review))["status"]["allowed"]
print("yes" if allowed else "no")
sys.exit(not allowed)
"""
"""A fake of the two commands of kubectl that the doctor runs. Debian has no package of kubectl."""


def test_kubectl_needs_access_to_the_cluster(
    fork: Repository, find: Find, another: str, answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server answers an access review as a cluster does."""
    fork.edit("params.yaml", "deploy: agent", "deploy: kubectl")
    config, program = tmp_path / "kubeconfig", tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(config))
    config.write_text(kubeconfig(another, ""))
    assert find("cluster access").command == "kubectl config use-context CONTEXT"
    config.write_text(kubeconfig(another, "here"))
    kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}}
    answer.status, answer.document = 201, {**kind, "status": {"allowed": True}}
    assert find("cluster access").state == "ok", find("cluster access")
    answer.document = {**kind, "status": {"allowed": False}}
    assert "cannot write to house-prices" in find("cluster access").sentence
    config.write_text(kubeconfig("http://127.0.0.1:9", "here"))
    assert find("cluster access").state == "missing"


def test_a_server_that_answers_with_the_released_model_is_ok(fork: Repository, find: Find) -> None:
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
            assert find("release.urls").state == "ok", find("release.urls")
        finally:
            process.terminate()
    assert "does not answer" in find("release.urls").sentence


def test_a_server_that_answers_with_another_model_is_reported(
    fork: Repository, find: Find, another: str, answer: Answer
) -> None:
    release(fork, "a0123", another)
    answer.document = {"provenance": {"bundle": "4567", "commit": "89ab"}}
    found = find("release.urls")
    assert (found.state, "answers with bundle 4567 of commit 89ab" in found.sentence) == ("missing", True)
    assert found.command == f"slipway status production --live {another}"
    answer.document = ["?"]
    assert "its /version is not that of a Slipway server" in find("release.urls").sentence


def test_an_address_of_an_unknown_environment_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("params.yaml", "urls: {}", "urls: {elsewhere: http://127.0.0.1:9}")
    found = find("release.urls")
    assert (found.state, "`release.urls` has elsewhere" in found.sentence) == ("missing", True)

"""A fork in which everything is set up, at a server that answers like GitHub; a test then takes one thing away."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub, State
from slipway.doctor.context import read_fork
from slipway.doctor.result import Finding
from slipway.doctor.runner import CHECKS, examine
from tests.slipway.conftest import Repository, edit
from tests.slipway.doctor.answers import Answer, answering

EVERY = {name: check for group in CHECKS.values() for name, check in group.items()}
SECRETS = ("SLIPWAY_APP_KEY", "PROMETHEUS_URL", "MLFLOW_TRACKING_URI", "REGISTRY_PASSWORD")
VARIABLES = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("GITHUB_TOKEN", "GH_TOKEN", "GITHUB_SERVER_URL", "GITHUB_API_URL", "GITHUB_OUTPUT", "GITHUB_REPOSITORY"),
    *("KUBECONFIG", "KUBE_CONFIG", "DOCKER_HOST"),
)

Find = Callable[[str], Finding]
"""What the check of a name finds."""


def named(kind: str, *names: str) -> dict[str, object]:
    """A list of GitHub's, of secrets or variables."""
    return {"total_count": len(names), kind: [{"name": name} for name in names]}


def set_up(ruleset: str) -> dict[str, object]:
    """What GitHub says of a repository that was set up as docs/github.md has it."""
    rules = [{**rule, "ruleset_id": 7} for rule in json.loads(ruleset)["rules"]]
    return {
        "": {"full_name": "team/houses", "default_branch": "main", "has_issues": True, "private": True},
        "/actions/permissions": {"enabled": True, "allowed_actions": "all"},
        "/actions/workflows": {"workflows": [{"path": ".github/workflows/ship.yml", "state": "active"}]},
        "/actions/permissions/workflow": {
            "default_workflow_permissions": "read",
            "can_approve_pull_request_reviews": True,
        },
        "/rules/branches/main": rules,
        "/rulesets": [{"id": 7, "name": "main"}],
        "/rulesets/7": {"id": 7, "bypass_actors": [{"actor_type": "Integration", "actor_id": 3}]},
        "/labels": [{"name": "bug"}, {"name": "ship-anyway"}],
        "/environments": {"environments": [{"name": "staging"}, {"name": "production", "protection_rules": []}]},
        "/environments/staging/secrets": named("secrets"),
        "/environments/production/secrets": named("secrets"),
        "/actions/secrets": named("secrets", *SECRETS),
        "/actions/organization-secrets": named("secrets"),
        "/actions/variables": named("variables", "SLIPWAY_APP_ID", "REGISTRY", "REGISTRY_USER"),
        "/actions/organization-variables": named("variables", "ATTEST"),
    }


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHub]:
    with GitHub(State(), tmp_path_factory.mktemp("github")).serving() as server:
        yield server


@pytest.fixture
def github(server: GitHub, origin: Repository) -> GitHub:
    """A server that knows a repository in which everything is set up, and nothing of earlier tests."""
    server.state = State(documents=set_up((origin.path / ".github/ruleset.json").read_text()))
    return server


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A registry that wants a login; its host."""
    with answering(Answer(401)) as url:
        yield url.removeprefix("http://")


@pytest.fixture(scope="session")
def prepared(origin: Repository, tmp_path_factory: pytest.TempPathFactory, server: GitHub, registry: str) -> Repository:
    fork = origin.clone(tmp_path_factory.mktemp("doctor") / "fork")
    fork.edit("params.yaml", "image: null", f"image: {registry}/team/houses")
    for file in (fork.path / "kustomize").rglob("*.yaml"):
        text = file.read_text().replace("https://github.com/your-team/house-prices", f"{server.url}/team/houses")
        file.write_text(text.replace("ghcr.io/your-team/house-prices", f"{registry}/team/houses"))
    owners = fork.path / ".github/CODEOWNERS"
    owners.write_text(owners.read_text().replace("# /src/model/       @YOUR-ORGANISATION", "/src/model/ @team"))
    for environment in ("staging", "production"):
        host = fork.path / f"kustomize/overlays/{environment}/host.yaml"
        host.write_text(host.read_text().replace("example.com", "houses.test"))
    fork.commit("Set up")
    fork.must("git", "tag", "prepared")
    return fork


@pytest.fixture
def fork(prepared: Repository, monkeypatch: pytest.MonkeyPatch, github: GitHub) -> Repository:
    """A clone, in which this process is, as it was before any test."""
    prepared.must("git", "reset", "--quiet", "--hard", "prepared")
    prepared.must("git", "clean", "-ffdxq")
    prepared.must("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    prepared.must("git", "config", "remote.origin.url", f"{github.url}/team/houses.git")
    monkeypatch.chdir(prepared.path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name, value in github.variables().items():
        if name != "GITHUB_REPOSITORY":
            monkeypatch.setenv(name, value)
    return prepared


@pytest.fixture
def find(fork: Repository) -> Find:
    assert fork.path == Path.cwd()
    return lambda name: examine(read_fork(os.environ), {name: EVERY[name]}, 12)[name]


def mended(fork: Repository, find: Find, name: str) -> Finding:
    """What a check finds after the command that it named was pasted."""
    fork.must("sh", "-c", find(name).command)
    return find(name)


def edited(fork: Repository, file: str, old: str, new: str) -> None:
    edit(fork.path / file, old, new)

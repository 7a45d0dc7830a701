"""A fork that is set up completely, on a server that answers like GitHub. Each test then removes one thing."""

import asyncio
import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo.fakes.github_server import GitHub, State
from demo.fakes.http_server import listen, served
from slipway.doctor.context import read_fork
from slipway.doctor.result import Finding
from slipway.doctor.runner import CHECKS, examine
from tests.slipway.conftest import Repository

EVERY = {name: check for group in CHECKS.values() for name, check in group.items()}
SECRETS = ("SLIPWAY_APP_KEY", "PROMETHEUS_URL", "MLFLOW_TRACKING_URI", "REGISTRY_PASSWORD")
VARIABLES = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("GITHUB_TOKEN", "GH_TOKEN", "GITHUB_SERVER_URL", "GITHUB_API_URL", "GITHUB_OUTPUT", "GITHUB_REPOSITORY"),
    *("KUBECONFIG", "KUBE_CONFIG", "DOCKER_HOST"),
)

Find = Callable[[str], Finding]
"""Runs a check by its name."""


@dataclass
class Answer:
    """An answer, the seconds that it takes, and how often it was sent."""

    status: int = 200
    document: Any = None
    seconds: float = 0.0
    sent: int = 0


@contextmanager
def answering(answer: Answer) -> Generator[str, None, None]:
    """Serve an answer at the yielded address. The test can change the answer meanwhile."""

    async def reply(_: Request) -> JSONResponse:
        await asyncio.sleep(answer.seconds)
        answer.sent += 1
        return JSONResponse(answer.document, answer.status)

    listener = listen()
    with served(Starlette(routes=[Route("/{path:path}", reply, methods=["GET", "POST"])]), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def named(kind: str, *names: str) -> dict[str, object]:
    """Return a list of secrets or variables as GitHub does."""
    return {"total_count": len(names), kind: [{"name": name} for name in names]}


def set_up(ruleset: str) -> dict[str, object]:
    """Return GitHub's answers for a repository that was set up as in docs/github.md."""
    return {
        "": {"full_name": "team/houses", "default_branch": "main", "has_issues": True, "private": True},
        "/actions/permissions": {"enabled": True, "allowed_actions": "all"},
        "/actions/workflows": {"workflows": [{"path": ".github/workflows/ship.yml", "state": "active"}]},
        "/actions/permissions/workflow": {"can_approve_pull_request_reviews": True},
        "/rules/branches/main": [{**rule, "ruleset_id": 7} for rule in json.loads(ruleset)["rules"]],
        "/rulesets": [{"id": 7, "name": "main"}],
        "/rulesets/7": {"id": 7, "bypass_actors": [{"actor_type": "Integration", "actor_id": 3}]},
        "/labels": [{"name": "bug"}, {"name": "ship-anyway"}],
        "/environments": {"environments": [{"name": "staging"}, {"name": "production", "protection_rules": []}]},
        "/environments/staging/secrets": named("secrets"),
        "/environments/production/secrets": named("secrets"),
        "/actions/secrets": named("secrets", *SECRETS),
        "/actions/organization-secrets": named("secrets"),
        "/actions/variables": named("variables", "SLIPWAY_APP_ID", "REGISTRY", "REGISTRY_USER", "SLIPWAY_SCHEDULES"),
        "/actions/organization-variables": named("variables", "ATTEST"),
    }


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHub]:
    with GitHub(State(), tmp_path_factory.mktemp("github")).serving() as server:
        yield server


@pytest.fixture
def github(server: GitHub, origin: Repository) -> GitHub:
    """A server with one repository that is set up completely, and without the state of earlier tests."""
    server.state = State(documents=set_up((origin.path / ".github/ruleset.json").read_text()))
    return server


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The host of a registry that requires a login."""
    with answering(Answer(401)) as url:
        yield url.removeprefix("http://")


@pytest.fixture(scope="session")
def prepared(origin: Repository, tmp_path_factory: pytest.TempPathFactory, server: GitHub, registry: str) -> Repository:
    fork = origin.clone(tmp_path_factory.mktemp("doctor") / "fork")
    fork.edit("params.yaml", "image: null", f"image: {registry}/team/houses")
    mine = f"{server.url}/team/houses"
    for file in (fork.path / "kustomize").rglob("*.yaml"):
        file.write_text(file.read_text().replace("https://github.com/your-team/house-prices", mine))
    fork.edit(".github/CODEOWNERS", "# /src/model/       @YOUR-ORGANISATION", "/src/model/ @team")
    fork.edit("Dockerfile", "-trixie AS", f"-trixie@sha256:{1:064x} AS")
    fork.edit("Dockerfile", ":nonroot AS", f":nonroot@sha256:{2:064x} AS")
    fork.commit("Set up")
    fork.must("git", "tag", "prepared")
    return fork


@pytest.fixture
def fork(prepared: Repository, monkeypatch: pytest.MonkeyPatch, github: GitHub) -> Repository:
    """A clone in the state before all tests, as the current directory of this process."""
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


def fixed(fork: Repository, find: Find, name: str) -> Finding:
    """Run the command of a finding, and the check again."""
    fork.must("sh", "-c", find(name).command)
    return find(name)

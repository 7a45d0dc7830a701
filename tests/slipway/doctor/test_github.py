"""What GitHub says of the repository, with one thing at a time not as docs/github.md has it."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.doctor.runner import CHECKS
from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import SECRETS, Find, edited, mended, named

ASKED = [name for name in CHECKS["GitHub"] if name not in ("origin", "owners")]
RULES = json.loads(Path(__file__).parents[3].joinpath(".github/ruleset.json").read_text())["rules"]


def without(kind: str) -> list[dict[str, Any]]:
    return [{**rule, "ruleset_id": 7} for rule in RULES if rule["type"] != kind]


def with_parameter(kind: str, key: str, value: object) -> list[dict[str, Any]]:
    rule = next(rule for rule in RULES if rule["type"] == kind)
    return [*without(kind), {"type": kind, "ruleset_id": 7, "parameters": {**rule["parameters"], key: value}}]


def test_all_is_set_up(find: Find) -> None:
    for name in CHECKS["GitHub"]:
        assert find(name).state == "holds", find(name)


@pytest.mark.parametrize(
    ("name", "path", "says", "words", "command"),
    [
        ("repository", "", {"default_branch": "trunk"}, "trunk", "gh repo edit --default-branch main"),
        ("repository", "", {"default_branch": "main", "has_issues": False}, "Issues are off", "--enable-issues"),
        ("workflows", "/actions/permissions", {"enabled": False}, "Actions are off", "-F enabled=true"),
        (
            *("workflows", "/actions/permissions", {"enabled": True, "allowed_actions": "local_only"}),
            *("Only actions of this account", "-f allowed_actions=all"),
        ),
        (
            *("workflows", "/actions/workflows"),
            {"workflows": [{"path": ".github/workflows/monitor.yml", "state": "disabled_fork"}]},
            *("Off are monitor.yml", "gh workflow enable monitor.yml"),
        ),
        (
            *("workflow token", "/actions/permissions/workflow"),
            {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True},
            *("may write", "-f default_workflow_permissions=read"),
        ),
        (
            *("workflow token", "/actions/permissions/workflow"),
            {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False},
            *("may not create pull requests", "-F can_approve_pull_request_reviews=true"),
        ),
        (
            *("rules of main", "/rules/branches/main", without("required_status_checks")),
            *("weaker ones: required_status_checks.", "--method PUT 'repos/{owner}/{repo}/rulesets/7'"),
        ),
        (
            *("rules of main", "/rules/branches/main"),
            with_parameter("required_status_checks", "required_status_checks", [{"context": "test"}]),
            *("weaker ones: required_status_checks.", "grep -v bypass_actors"),
        ),
        (
            *("rules of main", "/rules/branches/main"),
            with_parameter("pull_request", "required_approving_review_count", 0),
            *("weaker ones: pull_request.", "rulesets/7"),
        ),
        ("label", "/labels", [{"name": "bug"}], "no label ship-anyway", "gh label create ship-anyway"),
        (
            *("environments", "/environments", {"environments": [{"name": "staging"}]}),
            *("no environment production", "--method PUT 'repos/{owner}/{repo}/environments/production'"),
        ),
        ("App", "/actions/secrets", named("secrets"), "SLIPWAY_APP_KEY", "gh secret set SLIPWAY_APP_KEY"),
        ("App", "/actions/variables", named("variables"), "SLIPWAY_APP_ID", "gh variable set SLIPWAY_APP_ID"),
        ("App", "/rulesets/7", {"bypass_actors": []}, "No App may bypass", "rulesets/7"),
        (
            *("registry login", "/actions/variables", named("variables", "REGISTRY")),
            *("REGISTRY_USER", "gh variable set REGISTRY_USER"),
        ),
    ],
)
def test_it_says_no(find: Find, github: GitHub, name: str, path: str, says: Any, words: str, command: str) -> None:
    github.state.documents[path] = says
    found = find(name)
    assert found.state == "missing", found
    assert words in found.sentence
    assert command in found.command


@pytest.mark.parametrize(
    ("name", "path", "says", "command"),
    [
        ("secrets of MLflow", "/actions/secrets", named("secrets"), "gh secret set MLFLOW_TRACKING_URI"),
        ("Prometheus", "/actions/secrets", named("secrets"), "gh secret set PROMETHEUS_URL"),
        ("attestation", "/actions/organization-variables", named("variables"), "gh variable set ATTEST --body true"),
        ("App", "/rulesets/7", {"id": 7}, "unset GITHUB_TOKEN GH_TOKEN; gh auth login"),
    ],
)
def test_it_is_optional_or_not_told(find: Find, github: GitHub, name: str, path: str, says: Any, command: str) -> None:
    github.state.documents[path] = says
    assert (find(name).state, find(name).command) == ("unknown", command)


def test_no_rules_at_all(find: Find, github: GitHub) -> None:
    github.state.documents |= {"/rules/branches/main": [], "/rulesets": []}
    create = "gh api --method POST 'repos/{owner}/{repo}/rulesets' --input .github/ruleset.json"
    assert find("rules of main").command == create
    assert find("App").state == "holds"  # as nothing stops a release


@pytest.mark.parametrize(
    ("remote", "source", "lacking"),
    [
        ("s3://houses/dvc", "sample/source", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        ("azure://houses/dvc", "sample/source", "AZURE_STORAGE_CONNECTION_STRING"),
        ("../sample/remote", "s3://deliveries", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_secrets_that_the_storage_needs(
    fork: Repository, find: Find, github: GitHub, remote: str, source: str, lacking: str
) -> None:
    edited(fork, ".dvc/config", "../sample/remote", remote)
    edited(fork, "params.yaml", "source: sample/source", f"source: {source}")
    found = find("secrets of data")
    assert (found.state, f"no secret {lacking}." in found.sentence) == ("missing", True)
    assert found.command == " && ".join(f"gh secret set {name}" for name in lacking.split(", "))
    github.state.documents["/actions/organization-secrets"] = named("secrets", *lacking.split(", "))
    assert find("secrets of data").state == "holds"


def test_a_storage_whose_secrets_the_workflows_do_not_hand_on(fork: Repository, find: Find) -> None:
    edited(fork, ".dvc/config", "../sample/remote", "gs://houses/dvc")
    assert find("secrets of data").state == "unknown"


def test_secrets_of_what_is_used_here(fork: Repository, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.team.com")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden-password")
    assert find("secrets of MLflow").command == "gh secret set MLFLOW_TRACKING_PASSWORD"
    edited(fork, "params.yaml", "deploy: agent", "deploy: kubectl")
    assert "gh secret set KUBE_CONFIG" in find("cluster secret").command


def test_a_secret_of_each_environment(fork: Repository, find: Find, github: GitHub) -> None:
    edited(fork, "params.yaml", "deploy: agent", "deploy: kubectl")
    github.state.documents["/environments/staging/secrets"] = named("secrets", "KUBE_CONFIG")
    assert find("cluster secret").state == "missing"
    github.state.documents["/environments/production/secrets"] = named("secrets", "KUBE_CONFIG")
    assert find("cluster secret").state == "holds"


def test_secrets_on_a_second_page(find: Find, github: GitHub) -> None:
    """The server shows the same page for ever; it is not asked for ever."""
    github.state.documents["/actions/secrets"] = named("secrets", *SECRETS, *(f"OTHER_{n}" for n in range(26)))
    assert find("Prometheus").state == "holds"
    assert len([path for path in github.state.asked("GET") if path.endswith("/actions/secrets")]) == 2


def test_github_is_not_asked_without_a_token(find: Find, monkeypatch: pytest.MonkeyPatch, github: GitHub) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    for name in ASKED:
        found = find(name)
        assert (found.state, found.command) == ("unknown", "unset GITHUB_TOKEN GH_TOKEN; gh auth login")
    assert github.state.requests == []


def test_a_token_that_may_not_see_it(find: Find, github: GitHub) -> None:
    github.state.failures.append(Failure(403))
    for name in ASKED:
        found = find(name)
        if name in ("secrets of data", "cluster secret"):
            assert found.state == "holds"  # as none is needed
        else:
            assert (found.state, "403" in found.sentence) == ("unknown", True), found
            assert "gh auth login" in found.command


def test_github_is_down(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "https://127.0.0.1:9")
    assert find("label").sentence == "Not seen, as GitHub does not answer: ConnectionError."


def test_where_origin_is(fork: Repository, find: Find, github: GitHub) -> None:
    host = github.url.removeprefix("https://")
    for address, state in {
        f"{github.url}/team/houses": "holds",
        f"{github.url}/team/houses/": "holds",
        f"https://user:password@{host}/team/houses.git": "holds",
        f"git@{host}:team/houses.git": "holds",
        "https://gitlab.team.com/team/houses": "missing",
        f"https://not{host}/team/houses": "missing",
    }.items():
        fork.must("git", "remote", "set-url", "origin", address)
        assert find("origin").state == state, address
        if state == "missing":
            command = f"git remote set-url origin {github.url}/OWNER/NAME"
            assert find("label").command == find("origin").command == command


def test_no_origin(fork: Repository, find: Find) -> None:
    fork.must("git", "remote", "remove", "origin")
    assert find("origin").command.startswith("gh repo create")


def test_owners(fork: Repository, find: Find) -> None:
    edited(fork, ".github/CODEOWNERS", "/src/model/ @team/", "# /src/model/ @YOUR-ORGANISATION/")
    assert find("owners").state == "unknown"
    edited(fork, ".github/CODEOWNERS", "# /data.dvc", "/data.dvc")
    assert find("owners").state == "missing"
    assert mended(fork, find, "owners").state == "holds"
    assert "\n/data.dvc         @team/modelling\n" in (fork.path / ".github/CODEOWNERS").read_text()

"""Checks of the repository on GitHub, with one setting at a time that differs from docs/github.md."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.doctor.runner import CHECKS
from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import SECRETS, Find, named

ON_GITHUB = [name for name in CHECKS["GitHub"] if name not in ("origin", "code owners")]
RULESET = json.loads(Path(__file__).parents[3].joinpath(".github/ruleset.json").read_text())


def in_force(kind: str, **parameters: object) -> list[dict[str, Any]]:
    """Return the rules of the template, with other parameters in one rule, or without this rule."""
    return [
        {**rule, "ruleset_id": 7, "parameters": {**rule.get("parameters", {}), **(parameters if this else {})}}
        for rule in RULESET["rules"]
        if not (this := rule["type"] == kind) or parameters
    ]


DISABLED = {"path": ".github/workflows/monitor.yml", "state": "disabled_fork"}
CREATE_PULLS = "can_approve_pull_request_reviews"
NO_VARIABLES = named("variables")
NO_BYPASS: dict[str, Any] = {"bypass_actors": []}
CHECK = "required_status_checks"


@pytest.mark.parametrize(
    ("name", "path", "answer", "words", "command"),
    [
        ("repository", "", {"default_branch": "trunk"}, "trunk", "gh repo edit --default-branch main"),
        ("repository", "", {"default_branch": "main", "has_issues": False}, "Issues are off", "--enable-issues"),
        ("Actions", "/actions/permissions", {"enabled": False}, "Actions are off", "-F enabled=true"),
        ("Actions", "/actions/permissions", {"enabled": True, "allowed_actions": "local_only"}, "Only actions", "=all"),
        ("Actions", "/actions/workflows", {"workflows": [DISABLED]}, "monitor.yml", "gh workflow enable monitor.yml"),
        ("Actions", "/actions/permissions/workflow", {CREATE_PULLS: False}, "cannot create", f"-F {CREATE_PULLS}=true"),
        ("label", "/labels", [{"name": "bug"}], "does not exist", "gh label create ship-anyway"),
        ("environments", "/environments", {"environments": [{"name": "staging"}]}, "production", "ments/production'"),
        ("App", "/actions/secrets", named("secrets"), "secret SLIPWAY_APP_KEY", "gh secret set SLIPWAY_APP_KEY < KEY"),
        ("App", "/actions/variables", named("variables"), "SLIPWAY_APP_ID", "gh variable set SLIPWAY_APP_ID"),
        ("App", "/rulesets/7", NO_BYPASS, "No App can bypass", "gh ruleset view 7 --web"),
    ],
)
def test_a_setting_that_differs_is_reported(
    find: Find, github: GitHub, name: str, path: str, answer: Any, words: str, command: str
) -> None:
    github.state.documents[path] = answer
    found = find(name)
    assert (found.state, words in found.sentence, command in found.command) == ("missing", True, True), found


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        (in_force(CHECK), CHECK),
        (in_force(CHECK, required_status_checks=[{"context": "test", "integration_id": 15368}]), CHECK),
        (in_force(CHECK, required_status_checks=[{"context": "pass"}]), CHECK),  # any app could set this check
        (in_force("pull_request", required_approving_review_count=0), "pull_request"),
    ],
)
def test_a_missing_or_weaker_rule_is_reported(
    find: Find, github: GitHub, rules: list[dict[str, Any]], lacking: str
) -> None:
    github.state.documents["/rules/branches/main"] = rules
    found = find("ruleset")
    assert (found.state, found.sentence.endswith(f"weaker ones: {lacking}.")) == ("missing", True), found
    assert found.command == "gh api --method PUT 'repos/{owner}/{repo}/rulesets/7' --input .github/ruleset.json"
    assert "bypass_actors" not in RULESET  # so that GitHub keeps them


def test_optional_secrets_are_listed(find: Find, github: GitHub) -> None:
    github.state.documents |= {"/actions/secrets": named("secrets"), "/actions/organization-variables": NO_VARIABLES}
    found = find("optional secrets")
    for words in ("secret MLFLOW_TRACKING_URI (to record", "secret PROMETHEUS_URL (to", "variable ATTEST (to attest"):
        assert (found.state, words in found.sentence) == ("optional", True), found
    github.state.documents[""] = {"default_branch": "main", "private": False}
    assert "ATTEST" not in find("optional secrets").sentence  # images of public repositories are attested


def test_schedules_are_off_without_the_variable(find: Find, github: GitHub) -> None:
    assert find("schedules").sentence.startswith("Scheduled runs of New data, Monitor and Cluster are on,")
    github.state.documents["/actions/variables"] = named("variables")
    found = find("schedules")
    assert found.sentence.startswith("Scheduled runs of New data, Monitor and Cluster are off,")
    assert (found.state, found.command) == ("optional", "gh variable set SLIPWAY_SCHEDULES --body true")


def test_an_approval_of_production_is_reported(find: Find, github: GitHub) -> None:
    assert "production ships without approval" in find("environments").sentence
    reviewed = {"name": "production", "protection_rules": [{"type": "required_reviewers"}]}
    github.state.documents["/environments"] = {"environments": [{"name": "staging"}, reviewed]}
    assert "production needs an approval" in find("environments").sentence


def test_only_an_owner_can_list_the_bypass_actors(find: Find, github: GitHub) -> None:
    github.state.documents["/rulesets/7"] = {"id": 7}
    assert (find("App").state, find("App").command) == ("unknown", "unset GITHUB_TOKEN GH_TOKEN; gh auth login")


def test_a_new_ruleset_is_created(find: Find, github: GitHub) -> None:
    github.state.documents |= {"/rules/branches/main": [], "/rulesets": []}
    create = "gh api --method POST 'repos/{owner}/{repo}/rulesets' --input .github/ruleset.json"
    assert find("ruleset").command == create
    assert find("App").state == "ok"  # no rule refuses a release
    github.state.documents |= {"/rules/branches/main": [{"type": "update", "ruleset_id": 7}], "/rulesets/7": NO_BYPASS}
    assert find("App").state == "missing"


@pytest.mark.parametrize(
    ("remote", "source", "lacking"),
    [
        ("s3://houses/dvc", "sample/source", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        ("azure://houses/dvc", "sample/source", ("AZURE_STORAGE_CONNECTION_STRING",)),
        ("../sample/remote", "s3://deliveries", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        (
            "../sample/remote",
            "postgresql+psycopg://db/sales\n  query: select 1\n  watermark: id",
            ("SLIPWAY_SOURCE_PASSWORD", "SLIPWAY_SOURCE_USER"),
        ),
    ],
)
def test_storage_needs_its_secrets(
    fork: Repository, find: Find, github: GitHub, remote: str, source: str, lacking: tuple[str, ...]
) -> None:
    fork.edit(".dvc/config", "../sample/remote", remote)
    fork.edit("params.yaml", "source: sample/source", f"source: {source}")
    found = find("secrets")
    assert (found.state, all(f"secret {name}" in found.sentence for name in lacking)) == ("missing", True)
    assert found.command == " && ".join(f"gh secret set {name}" for name in lacking)
    github.state.documents["/actions/organization-secrets"] = named("secrets", *lacking)
    assert find("secrets").state == "ok"


def test_labels_from_a_query_need_their_secrets(fork: Repository, find: Find, github: GitHub) -> None:
    live = "\nlive:\n  log: logs\n  labels: postgresql+psycopg://db/sales\n  labels_query: select 1\n"
    (fork.path / "params.yaml").write_text((fork.path / "params.yaml").read_text() + live)
    lacking = ("SLIPWAY_LABELS_PASSWORD", "SLIPWAY_LABELS_USER")
    assert find("secrets").command == " && ".join(f"gh secret set {name}" for name in lacking)
    github.state.documents["/actions/organization-secrets"] = named("secrets", *lacking)
    assert find("secrets").state == "ok"


@pytest.mark.parametrize(
    ("remote", "variable"), [("s3://a/b", "AWS_ROLE"), ("gs://a/b", "GOOGLE_PROVIDER"), ("azure://a/b", "AZURE_CLIENT")]
)
def test_storage_needs_no_secrets_if_the_workflows_log_in(
    fork: Repository, find: Find, github: GitHub, remote: str, variable: str
) -> None:
    fork.edit(".dvc/config", "../sample/remote", remote)
    assert find("secrets").state != "ok"
    github.state.documents["/actions/organization-variables"] = named("variables", variable)
    assert find("secrets").state == "ok"


def test_the_workflows_have_no_secrets_for_other_storage(fork: Repository, find: Find) -> None:
    fork.edit(".dvc/config", "../sample/remote", "gs://houses/dvc")
    assert (find("secrets").state, "no secrets for gs://" in find("secrets").sentence) == ("unknown", True)


def test_mlflow_needs_the_secrets_that_are_set_here(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.team.com")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden-password")
    assert find("secrets").command == "gh secret set MLFLOW_TRACKING_PASSWORD"


@pytest.mark.parametrize(
    ("image", "lacking"),
    [
        ("ghcr.io/team/houses", []),
        ("ghcr.io/another/houses", ["variable REGISTRY_USER", "secret REGISTRY_PASSWORD"]),
        ("quay.io/team/houses", ["variable REGISTRY", "variable REGISTRY_USER", "secret REGISTRY_PASSWORD"]),
    ],
)
def test_only_the_packages_of_the_same_owner_need_no_login(
    fork: Repository, find: Find, github: GitHub, registry: str, image: str, lacking: list[str]
) -> None:
    fork.edit("params.yaml", f"image: {registry}/team/houses", f"image: {image}")
    github.state.documents |= {"/actions/secrets": named("secrets"), "/actions/variables": named("variables")}
    found = find("secrets")
    assert found.state == ("missing" if lacking else "ok")
    assert found.command == " && ".join(f"gh {each.replace(' ', ' set ')}" for each in lacking)


def test_kubectl_needs_a_secret_of_the_repository_or_of_each_environment(
    fork: Repository, find: Find, github: GitHub
) -> None:
    fork.edit("params.yaml", "deploy: agent", "deploy: kubectl")
    github.state.documents["/environments/staging/secrets"] = named("secrets", "KUBE_CONFIG")
    assert (find("secrets").state, find("secrets").command) == ("missing", "gh secret set KUBE_CONFIG < KUBECONFIG")
    github.state.documents["/environments/production/secrets"] = named("secrets", "KUBE_CONFIG")
    assert find("secrets").state == "ok"
    github.state.plan, github.state.private = "free", True
    assert find("secrets").state == "missing"


def test_secrets_on_a_second_page_are_read(find: Find, github: GitHub) -> None:
    """The server returns the same page for each number, and the requests end nevertheless."""
    github.state.documents["/actions/secrets"] = named("secrets", *SECRETS, *(f"OTHER_{n}" for n in range(26)))
    assert find("secrets").state == "ok"
    assert len([path for path in github.state.asked("GET") if path.endswith("/actions/secrets")]) == 2


@pytest.mark.parametrize("name", ["ruleset", "environments"])
def test_a_feature_that_the_plan_lacks_is_reported_in_its_words(find: Find, github: GitHub, name: str) -> None:
    github.state.plan, github.state.private = "free", True
    found = find(name)
    assert found.state == "optional"
    assert "Upgrade to GitHub Pro or make this repository public to enable this feature." in found.sentence
    assert (found.command, found.place) == ("", "docs/github.md has a table of the plans.")
    assert find("App").state == "ok"  # without rules, a release needs no App


def test_no_request_is_sent_without_a_token(find: Find, monkeypatch: pytest.MonkeyPatch, github: GitHub) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    for name in ON_GITHUB:
        assert (find(name).state, find(name).command) == ("unknown", "gh auth login")
    assert github.state.requests == []


def test_a_token_without_the_permission_is_reported(fork: Repository, find: Find, github: GitHub) -> None:
    fork.edit("params.yaml", "source: sample/source", "source: s3://deliveries")
    github.state.failures.append(Failure(403))
    for name in ON_GITHUB:
        found = find(name)
        assert (found.state, "403" in found.sentence) == ("unknown", True), found
        assert "gh auth login" in found.command


def test_a_github_that_does_not_answer_is_reported(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "https://127.0.0.1:9")
    assert find("label").sentence == "Not checked, because GitHub does not answer (ConnectionError)."


def test_origin_is_read_from_any_address(fork: Repository, find: Find, github: GitHub) -> None:
    host = github.url.removeprefix("https://")
    for address, state in {
        f"{github.url}/team/houses": "ok",
        f"{github.url}/team/houses/": "ok",
        f"https://user:password@{host}/team/houses.git": "ok",
        f"git@{host}:team/houses.git": "ok",
        "https://gitlab.team.com/team/houses": "missing",
        f"https://not{host}/team/houses": "missing",
    }.items():
        fork.must("git", "remote", "set-url", "origin", address)
        assert find("origin").state == state, address
    assert find("origin").command == f"git remote set-url origin {github.url}/OWNER/NAME"
    assert find("label").sentence == f"Not checked, because origin is not a repository at {github.url}."
    fork.must("git", "remote", "remove", "origin")
    assert find("origin").command.startswith("gh repo create")


def test_code_owners_without_teams_are_reported(fork: Repository, find: Find) -> None:
    fork.edit(".github/CODEOWNERS", "/src/model/ @team/", "# /src/model/ @YOUR-ORGANISATION/")
    assert find("code owners").state == "optional"
    fork.edit(".github/CODEOWNERS", "# /data.dvc", "/data.dvc")
    assert (find("code owners").state, "@YOUR-ORGANISATION" in find("code owners").sentence) == ("missing", True)

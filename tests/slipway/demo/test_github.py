"""The fake of GitHub refuses what GitHub refuses. docs/decisions/demo.md lists the facts, with their sources."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.fakes.github_permissions import PUSH, needless
from demo.fakes.github_repo import APP, APP_TOKEN, CHECKS, GitHubRepo, PullRequest
from demo.fakes.github_server import GitHub, State
from demo.fakes.github_state import BOT, Token
from demo.fakes.workflow_events import Event, render, starts
from demo.fakes.workflow_run import job_tokens
from tests.slipway.conftest import Repository

WORKFLOWS = {
    CHECKS: """
name: Pull request
on:
  pull_request:
    types: [opened, synchronize, labeled]
  workflow_dispatch:
    inputs:
      pull_request: {type: number, required: true}
concurrency:
  group: pull-request-${{ github.event.pull_request.number || inputs.pull_request || github.ref }}
  cancel-in-progress: ${{ github.event_name == 'pull_request' }}
jobs:
  pass:
    runs-on: ubuntu-24.04
    steps:
      - run: echo "secret=$SECRET"
        env: {SECRET: "${{ secrets.PASSWORD && 'is there' || 'is missing' }}"}
""",
    "comment.yml": """
name: Comment
on:
  workflow_run: {workflows: [Pull request], types: [completed]}
jobs:
  comment: {runs-on: ubuntu-24.04, steps: [{run: "true"}]}
""",
    "ship.yml": """
name: Ship
on:
  push: {branches: [main], paths: [src/**, params.yaml]}
  workflow_dispatch:
    inputs:
      environment: {type: choice, options: [staging, production]}
permissions: {contents: read}
concurrency: {group: ship}
jobs:
  build:
    runs-on: ubuntu-24.04
    permissions: {pull-requests: write}
    outputs:
      image: ${{ steps.build.outputs.image }}
      tag: ${{ steps.build.outputs.tag }}
    steps:
      - id: build
        run: echo "image=ghcr.io/acme/houses" >> $GITHUB_OUTPUT; echo tag=sha-1 >> $GITHUB_OUTPUT
  release:
    needs: build
    runs-on: ubuntu-24.04
    steps:
      - run: echo "image=[$IMAGE] tag=[$TAG]"
        env: {IMAGE: "${{ needs.build.outputs.image }}", TAG: "${{ needs.build.outputs.tag }}"}
""",
    "new-data.yml": """
name: New data
on:
  schedule: [{cron: "17 * * * *"}]
  repository_dispatch: {types: [new-data]}
  workflow_dispatch:
jobs:
  propose:
    runs-on: ubuntu-24.04
    steps:
      - run: echo "branch=[$BRANCH]"
        env: {BRANCH: "${{ github.event.repository.default_branch }}"}
""",
    "failing.yml": """
name: Failing
on: workflow_dispatch
jobs:
  fail:
    runs-on: ubuntu-24.04
    steps: [{run: "seq 9000; exit 3"}]
""",
}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[GitHubRepo]:
    """Make a small repository with workflows that do nothing."""
    start = Repository(tmp_path / "start")
    (start.path / ".github/workflows").mkdir(parents=True)
    for name, text in WORKFLOWS.items():
        (start.path / ".github/workflows" / name).write_text(text)
    (start.path / "params.yaml").write_text("a: 1\n")
    start.must("git", "init", "--quiet", "--initial-branch=main")
    start.commit("Start")
    with GitHub(State(), tmp_path).serving() as github:
        yield GitHubRepo(tmp_path, start.path, github)


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(repo: GitHubRepo) -> Iterator[Send]:
    """Send a request to the API, with the token of the workflow or with another."""
    trusted = ssl.create_default_context(cafile=str(repo.github.authority))
    with httpx.Client(base_url=f"{repo.github.api}/repos/team/houses", verify=trusted) as client:

        def call(method: str, path: str, token: str = "", **body: Any) -> httpx.Response:
            headers = {"Authorization": f"token {token or repo.github.state.token}"}
            return client.request(method, path, json=body or None, headers=headers)

        yield call


def change(repo: GitHubRepo, file: str = "params.yaml", text: str = "a: 2\n", branch: str = "change") -> Repository:
    """Make a clone with a commit that changes a file, and push its branch."""
    work = Repository(repo.copy(f"work-{branch}"))
    (work.path / file).write_text(text)
    work.commit("Change")
    work.must("git", "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    return work


def opened(repo: GitHubRepo, **how: Any) -> PullRequest:
    """Open a person's pull request."""
    return repo.push(change(repo).path, 1, "change", **how)


def queued(repo: GitHubRepo) -> list[str]:
    return [each.workflow for each in repo.queued]


def dispatch(send: Send, workflow: str = CHECKS, **body: Any) -> httpx.Response:
    return send("POST", f"/actions/workflows/{workflow}/dispatches", **{"ref": "main"} | body)


# Starting workflows.


def test_a_run_that_a_workflow_token_started_sends_no_workflow_run(repo: GitHubRepo, send: Send) -> None:
    change(repo)
    assert dispatch(send, ref="change", inputs={"pull_request": "1"}).status_code == 204
    run = repo.run(repo.take(CHECKS))
    assert (run.conclusion, run.event.token.login, queued(repo)) == ("success", BOT, [])

    repo.run(repo.start_by_hand(CHECKS, ref="change", pull_request="1"))
    assert queued(repo) == ["comment.yml"]


def test_checks_of_a_pull_request_of_a_workflow_token_wait_for_approval(repo: GitHubRepo, send: Send) -> None:
    change(repo)
    made = send("POST", "/pulls", title="Change", body="", head="change", base="main")
    assert made.json()["user"] == made.json()["user"] | {"login": BOT, "type": "Bot"}
    (run,) = repo.runs
    assert (run.status, run.conclusion, queued(repo)) == ("completed", "action_required", [])
    with pytest.raises(LookupError, match=r"GitHub has started no run of pull-request\.yml"):
        repo.take(CHECKS)
    assert not repo.may_merge(repo.pulls[1])
    repo.approve(run)
    repo.run(run)
    assert repo.may_merge(repo.pulls[1])


def test_a_pull_request_of_an_app_is_checked(repo: GitHubRepo, send: Send) -> None:
    repo.install_app()
    change(repo)
    send("POST", "/pulls", APP_TOKEN, title="Change", body="", head="change", base="main")
    assert repo.take(CHECKS).event.token == APP


@pytest.mark.parametrize(("token", "started"), [("", []), (APP_TOKEN, ["ship.yml"])])
def test_a_merge_starts_workflows_unless_a_workflow_token_merges(
    repo: GitHubRepo, send: Send, token: str, started: list[str]
) -> None:
    repo.install_app()
    pull = opened(repo)
    repo.cancel(repo.take(CHECKS))
    merged = send("PUT", "/pulls/1/merge", token, sha=pull.head, commit_title="Change (#1)")
    assert (merged.status_code, queued(repo)) == (200, started)
    assert repo.git("log", "-1", "--format=%s", "main") == "Change (#1)"


def test_a_filter_of_paths_sees_the_first_300_files() -> None:
    def push(*paths: str) -> Event:
        return Event("push", {}, APP, "", "refs/heads/main", paths)

    many = [f"docs/{number}.md" for number in range(300)]
    assert starts(WORKFLOWS["ship.yml"], push(*many[:299], "src/model/train.py"))
    assert not starts(WORKFLOWS["ship.yml"], push(*many, "src/model/train.py"))
    assert not starts(WORKFLOWS["ship.yml"], push("docs/src.md"))


def test_a_pull_request_with_a_conflict_is_neither_checked_nor_merged(repo: GitHubRepo, send: Send) -> None:
    work = change(repo)
    other = change(repo, text="a: 3\n", branch="other")
    other.must("git", "push", "--quiet", "origin", "HEAD:main")
    pull = repo.push(work.path, 1, "change")
    assert (pull.merge, queued(repo)) == (None, [])
    refused = send("PUT", "/pulls/1/merge", sha=pull.head, commit_title="Change")
    assert (refused.status_code, refused.json()["message"]) == (405, "Pull Request is not mergeable")


def test_a_disabled_workflow_does_not_start(repo: GitHubRepo, send: Send) -> None:
    repo.github.state.disabled = {CHECKS, "new-data.yml"}
    opened(repo)
    refused = dispatch(send, "new-data.yml")
    assert refused.status_code == 422
    assert refused.json()["message"] == "Cannot trigger a 'workflow_dispatch' on a disabled workflow"
    with pytest.raises(LookupError, match=r"GitHub starts no schedule of new-data\.yml"):
        repo.start_by_schedule("new-data.yml")
    assert queued(repo) == []


def test_a_workflow_without_a_schedule_cannot_be_scheduled(repo: GitHubRepo) -> None:
    with pytest.raises(LookupError, match=r"GitHub starts no schedule of ship\.yml"):
        repo.start_by_schedule("ship.yml")


@pytest.mark.parametrize(
    ("workflow", "body", "status", "words"),
    [
        ("none.yml", {}, 404, "Not Found"),
        ("comment.yml", {}, 422, "Workflow does not have 'workflow_dispatch' trigger"),
        (CHECKS, {}, 422, "Required input 'pull_request' not provided"),
        ("ship.yml", {"inputs": {"more": "x"}}, 422, "Unexpected inputs provided: ['more']"),
        ("ship.yml", {"inputs": {"environment": "x"}}, 422, "Provided value 'x' for input 'environment' not in"),
        ("ship.yml", {"ref": "no-such-branch"}, 422, "No ref found for: no-such-branch"),
        ("ship.yml", {"ref": "a..b"}, 422, "No ref found for: a..b"),
        ("ship.yml", {"ref": "delivery/1997H2.lock"}, 422, "No ref found for: delivery/1997H2.lock"),
    ],
)
def test_a_dispatch_that_github_does_not_take_is_refused(
    repo: GitHubRepo, send: Send, workflow: str, body: dict[str, Any], status: int, words: str
) -> None:
    refused = dispatch(send, workflow, **body)
    assert (refused.status_code, words in refused.json()["message"]) == (status, True), refused.json()
    assert repo.runs == []


def test_a_dispatch_returns_its_run_on_request(send: Send) -> None:
    details = dispatch(send, "ship.yml", return_run_details=True).json()
    run = send("GET", f"/actions/runs/{details['workflow_run_id']}").json()
    assert (run["path"], run["status"], run["conclusion"]) == (".github/workflows/ship.yml", "queued", None)
    refused = send("POST", f"/actions/runs/{run['id']}/rerun")
    assert (refused.status_code, refused.json()["message"]) == (403, "This workflow is already running")


def test_the_payload_of_a_schedule_has_no_repository(repo: GitHubRepo, send: Send) -> None:
    repo.start_by_schedule("new-data.yml")
    assert send("POST", "/dispatches", event_type="new-data").status_code == 204
    scheduled, rung = repo.settle()
    if scheduled.event.name != "schedule":
        scheduled, rung = rung, scheduled
    assert "branch=[]" in scheduled.log["propose"]
    assert "branch=[main]" in rung.log["propose"]


def test_an_event_that_no_workflow_takes_starts_nothing(repo: GitHubRepo, send: Send) -> None:
    assert send("POST", "/dispatches", event_type="new-date").status_code == 204
    assert queued(repo) == []


# Concurrency and checks.


def test_one_run_of_a_concurrency_group_waits(repo: GitHubRepo) -> None:
    first, second, third = (repo.start_by_hand("ship.yml") for _ in range(3))
    assert [each.conclusion for each in (first, second, third)] == [None, "cancelled", None]
    first.status = "in_progress"
    assert repo.queued == []
    first.status = "completed"
    assert repo.queued == [third]


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_cancelled_run_keeps_its_check_on_the_commit(repo: GitHubRepo, labels_first: bool) -> None:
    """A label at opening is a separate event, before or after that of the opening, and one run cancels the other."""
    pull = opened(repo, labels=["bug"], labels_first=labels_first)
    actions = [each.event.payload["action"] for each in repo.runs]
    assert actions == (["labeled", "opened"] if labels_first else ["opened", "labeled"])
    repo.run(repo.take(CHECKS, pull))
    assert repo.required_checks(pull.head) == ["cancelled", "success"]
    assert not repo.may_merge(pull)


def test_a_rerun_replaces_the_check_of_its_run(repo: GitHubRepo, send: Send) -> None:
    pull = opened(repo)
    run = repo.take(CHECKS)
    repo.cancel(run)
    assert repo.required_checks(pull.head) == ["cancelled"]
    assert send("POST", f"/actions/runs/{run.identity}/rerun").status_code == 201
    repo.run(run)
    assert (run.attempt, repo.may_merge(pull)) == (2, True)


def test_a_run_that_was_started_by_hand_is_not_the_required_check(repo: GitHubRepo) -> None:
    pull = opened(repo)
    repo.cancel(repo.take(CHECKS))
    repo.run(repo.start_by_hand(CHECKS, ref="change", pull_request="1"))
    assert repo.required_checks(pull.head) == ["cancelled"]


def test_a_group_is_named_by_an_expression() -> None:
    group = "a-${{ github.event.pull_request.number || inputs.number || github.ref }}"
    assert render(group, {"github": {"event": {"pull_request": {"number": 7}}}}) == "a-7"
    assert render(group, {"github": {"event": {}, "ref": "main"}, "inputs": {"number": "8"}}) == "a-8"
    assert render(group, {"github": {"event": {}, "ref": "main"}, "inputs": {}}) == "a-main"
    assert render("${{ a == 'x' && b != 'y' }}", {"a": "x", "b": "z"}) == "true"
    with pytest.raises(ValueError, match="does not evaluate"):
        render("${{ format('{0}', a) }}", {})


# Tokens, secrets and outputs of a run.


def test_an_output_with_the_text_of_a_secret_is_dropped(repo: GitHubRepo) -> None:
    repo.secrets = {"PASSWORD": "acme", "EMPTY": ""}
    run = repo.run(repo.start_by_hand("ship.yml"))
    assert "image=[] tag=[sha-1]" in run.log["release"]
    repo.secrets = {"PASSWORD": "another"}
    run = repo.run(repo.start_by_hand("ship.yml"))
    assert "image=[ghcr.io/acme/houses] tag=[sha-1]" in run.log["release"]


def test_the_log_has_all_that_a_failed_step_printed(repo: GitHubRepo) -> None:
    run = repo.run(repo.start_by_hand("failing.yml"))
    assert (run.jobs, "\n9000\n" in run.log["fail"]) == ({"fail": "failure"}, True)


@pytest.mark.parametrize(("source", "secret"), [("team/houses", "is there"), ("mallory/houses", "is missing")])
def test_a_fork_has_no_secrets(repo: GitHubRepo, source: str, secret: str) -> None:
    repo.secrets = {"PASSWORD": "a password"}
    run = repo.run(repo.take(CHECKS, opened(repo, source=source)))
    assert f"secret={secret}" in run.log["pass"]


def test_a_job_may_do_what_it_declares_and_nothing_else(repo: GitHubRepo) -> None:
    run = repo.start_by_hand("ship.yml")
    tokens = job_tokens(run, WORKFLOWS["ship.yml"])
    assert tokens["build"] == Token(BOT, "Bot", {"pull-requests": "write"})
    assert tokens["release"] == Token(BOT, "Bot", {"contents": "read"})
    of_fork = repo.take(CHECKS, opened(repo, source="mallory/houses"))
    assert job_tokens(of_fork, WORKFLOWS["ship.yml"]).pop("build").permissions == {"pull-requests": "read"}


@pytest.mark.parametrize(
    ("permissions", "method", "path"),
    [
        ({"pull-requests": "write"}, "PUT", "/pulls/1/merge"),
        ({"contents": "read"}, "PUT", "/pulls/1/merge"),
        ({"pull-requests": "write"}, "GET", "/issues/1"),
        ({"issues": "write"}, "GET", "/pulls/1"),
        ({"issues": "read"}, "POST", "/issues/1/comments"),
        ({"actions": "read"}, "POST", "/actions/workflows/ship.yml/dispatches"),
        ({"actions": "write"}, "POST", "/dispatches"),
        ({"contents": "write"}, "POST", "/pulls"),
        ({"contents": "write", "issues": "write", "pull-requests": "write"}, "POST", "/rulesets"),
        ({}, "GET", "/contents/params.yaml?ref=main"),
    ],
)
def test_a_call_without_its_permission_is_refused(
    repo: GitHubRepo, send: Send, permissions: dict[str, str], method: str, path: str
) -> None:
    opened(repo)
    repo.github.state.tokens["job"] = Token(BOT, "Bot", permissions)
    refused = send(method, path, "job", body="x")
    assert (refused.status_code, refused.json()["message"]) == (403, "Resource not accessible by integration")


@pytest.mark.parametrize(
    ("permissions", "path"),
    [({"pull-requests": "write"}, "/issues/1/comments"), ({"issues": "write"}, "/issues/1/comments")],
)
def test_one_of_several_permissions_is_enough(
    repo: GitHubRepo, send: Send, permissions: dict[str, str], path: str
) -> None:
    opened(repo)
    repo.github.state.tokens["job"] = Token(BOT, "Bot", permissions)
    assert send("POST", path, "job", body="x").status_code == 201


PUSHES = """
name: Push
on: workflow_dispatch
jobs:
  push:
    runs-on: ubuntu-24.04
    permissions: {contents: %s, issues: write}
    steps:
      - run: |
          token=$(printf %%s "x-access-token:${{ github.token }}" | base64 --wrap=0)
          git clone --quiet "$FAKE_ORIGIN" clone
          cd clone
          export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.x.extraheader GIT_CONFIG_VALUE_0="Authorization: Basic $token"
          git push origin HEAD:refs/heads/pushed
"""


@pytest.mark.parametrize(
    ("access", "result", "needless"),
    [("write", "success", ["issues: write"]), ("read", "failure", ["contents: read", "issues: write"])],
)
def test_a_push_needs_a_permission_and_what_no_call_needs_is_counted(
    repo: GitHubRepo, access: str, result: str, needless: list[str]
) -> None:
    work = change(repo, ".github/workflows/push.yml", PUSHES % access)
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    run = repo.run(repo.start_by_hand("push.yml"))
    assert (run.jobs, run.needless) == ({"push": result}, {"push": needless}), run.log
    assert ("denied to github-actions[bot]" in run.log["push"]) is (access == "read")


def test_a_needed_permission_is_not_counted_as_needless() -> None:
    declared = {"contents": "write", "issues": "write", "pull-requests": "read"}
    needs = [PUSH, (("issues", "read"),), (("issues", "read"), ("pull-requests", "read"))]
    assert needless(declared, needs) == ["issues: write", "pull-requests: read"]


@pytest.mark.parametrize("path", ["/rulesets", "/rules/branches/main", "/environments"])
def test_the_free_plan_has_no_rulesets_in_a_private_repository(repo: GitHubRepo, send: Send, path: str) -> None:
    state = repo.github.state
    state.documents[path], state.private, state.plan = [], True, "free"
    refused = send("GET", path)
    words = "Upgrade to GitHub Pro or make this repository public to enable this feature."
    assert (refused.status_code, refused.json()["message"]) == (403, words)
    state.plan = "team"
    assert send("GET", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/issues/1/comments"), ("POST", "/issues"), ("PATCH", "/issues/100"), ("POST", "/pulls")],
)
def test_a_body_of_more_than_65536_characters_is_refused(repo: GitHubRepo, send: Send, method: str, path: str) -> None:
    opened(repo)
    repo.github.state.issues.append({"number": 100, "title": "x", "body": "", "labels": [], "state": "open"})
    told = {"title": "x", "head": "change", "base": "main", "labels": []}
    refused = send(method, path, **told, body="x" * 65_537)
    assert (refused.status_code, "maximum is 65536 characters" in refused.json()["message"]) == (422, True)
    assert send("POST", "/issues/1/comments", body="x" * 65_536).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/actions/secrets/NAME", {"key_id": "1"}, 422),
        ("POST", "/actions/variables", {"name": "NAME", "value": ""}, 422),
        ("POST", "/rulesets", {"name": "main", "rules": []}, 422),
        ("POST", "/labels", {"name": "x", "description": "x" * 101}, 422),
        ("POST", "/pulls", {"title": "x", "body": "", "head": "no-such-branch", "base": "main"}, 422),
        ("GET", "/pulls/7", {}, 404),
        ("GET", "/actions/runs/7", {}, 404),
        ("GET", "/no/such/path", {}, 404),
    ],
)
def test_missing_objects_and_invalid_requests_are_refused(
    send: Send, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    assert send(method, path, **body).status_code == status


def test_an_unknown_token_is_refused(send: Send) -> None:
    refused = send("GET", "/pulls/1", "another")
    assert (refused.status_code, refused.json()["message"]) == (401, "Bad credentials")

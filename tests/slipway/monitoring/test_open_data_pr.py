"""A delivery gets one pull request, which is merged automatically only if it equals the source."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pytest
from github import GithubException
from github.PullRequest import PullRequest

from demo.fakes.github_server import Failure, GitHub, State
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.actions import WorkflowRun
from slipway.integrations.git import branches, create_branch, tip
from slipway.integrations.github import connect, find_checked_run
from slipway.integrations.github_comments import CommentText
from slipway.integrations.pull_requests import open_pull
from slipway.monitoring import alert_issue
from slipway.monitoring.auto_merge import _merge_once, merge
from slipway.monitoring.open_data_pr import as_markdown, propose
from slipway.review.landing import branch_of
from tests.slipway import postgres
from tests.slipway.conftest import TODAY, Repository
from tests.slipway.postgres import Postgres
from tests.slipway.release.conftest import bare, work  # noqa: F401 (fixtures)

BRANCH = "delivery/1997H2"
NONE: Mapping[str, str] = MappingProxyType({})
pytestmark = pytest.mark.usefixtures("warmly")


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    with GitHub(State(), tmp_path).serving() as github:
        yield github


def look(github: GitHub, **variables: str) -> list[str]:
    environ = {**github.variables(), **variables}
    return propose(load_params(Path("params.yaml")), load_model(), TODAY, environ)


def test_two_runs_at_once_make_one_branch(work: Repository) -> None:  # noqa: F811
    edit = {"data.dvc": b"first\n"}
    assert create_branch(BRANCH, lambda _: edit, "First", {})
    assert not create_branch(BRANCH, lambda _: {"data.dvc": b"second\n"}, "Second", {})
    assert branches("delivery/*", {}) == [BRANCH]
    work.must("git", "fetch", "--quiet", "origin", BRANCH)
    assert work.must("git", "show", "FETCH_HEAD:data.dvc") == "first\n"


def test_a_delivery_gets_one_pull_request(work: Repository, github: GitHub) -> None:  # noqa: F811
    """If a run was killed before it opened the pull request, the next run opens it."""
    (said,) = look(github, GITHUB_TOKEN="")
    assert f"open its pull request with `gh pr create --head {BRANCH} --fill`" in said
    assert github.state.pulls == {}
    again = look(github)
    assert github.state.pulls["1"]["branch"] == BRANCH
    assert again[0].startswith("Ingest 1997H2: ")
    assert branches("delivery/*", {}) == [BRANCH, "delivery/1998H1"]  # the next delivery includes the first
    assert "Includes these deliveries, whose own pull requests are not merged:" in github.state.pulls["2"]["body"]
    assert work.must("git", "log", "--format=%s", "-1", "origin/main") == "Start\n"


HOSTILE = "@team closes #1 ![x](https://localhost/x.png) <b>"
ESCAPED = "@\u200bteam closes #\u200b1 \\!\\[x\\](https:\u200b//localhost/x.png) \\<b\\>"


def test_names_of_deliveries_and_columns_have_no_markup_in_pull_requests_and_issues() -> None:
    assert (
        as_markdown(f"Ignored column: {HOSTILE}.\n\n- 3: {HOSTILE}") == f"Ignored column: {ESCAPED}.\n\n- 3: {ESCAPED}"
    )
    alarm = alert_issue.Finding(f"decay on {HOSTILE}", alarm=True, reason=HOSTILE)
    assert alert_issue.as_markdown(alarm) == f"- **decay on {ESCAPED}**: {ESCAPED}"


def test_names_in_a_commit_message_have_no_effect_on_github(work: Repository, github: GitHub) -> None:  # noqa: F811
    assert work
    names = (
        "@team closes #1, fixes your-team/houses#12, resolves GH-7, [skip ci], [Actions Skip], skip-checks: true, "
        "closes https://github.com/your-team/houses/issues/1"
    )
    create_branch(BRANCH, lambda _: {"data.dvc": b"first\n"}, f"Ingest {names}\n\nIgnored column: {names}.\n", {})
    open_pull(BRANCH, github.variables(), as_markdown)
    pull, message = github.state.pulls["1"], tip({}, BRANCH).commit.message
    assert message.replace("\u200b", "") == f"Ingest {names}\n\nIgnored column: {names}.\n"
    acts = re.compile(r"@\w|#\d|GH-\d|issues/\d|\[(skip ci|actions skip)\]|skip-checks: *true", re.IGNORECASE)
    assert [found[0] for text in (message, pull["title"]) for found in acts.finditer(text)] == []
    assert [found[0] for found in acts.finditer(pull["body"])] == ["skip-checks: true", "issues/1"]
    assert "https:\u200b//" in pull["body"]


def test_the_text_of_a_pull_request_is_as_long_as_github_allows(work: Repository, github: GitHub) -> None:  # noqa: F811
    assert work
    create_branch(BRANCH, lambda _: {"data.dvc": b"first\n"}, "Title\n\n" + "x" * 100_000, {})
    assert open_pull(BRANCH, github.variables()).startswith("Title: ")
    assert len(github.state.pulls["1"]["body"]) == 60_001


def test_a_clone_that_differs_from_main_is_refused(work: Repository, github: GitHub) -> None:  # noqa: F811
    (work.path / "data.dvc").write_text("outs: []\n")
    with pytest.raises(CheckFailed, match=r"data\.dvc differs from main at origin"):
        look(github)


def test_an_error_of_github_is_reported_in_one_sentence(work: Repository, github: GitHub) -> None:  # noqa: F811
    assert work
    look(github, GITHUB_TOKEN="")
    with pytest.raises(InputError, match="GitHub does not list pull requests"):
        look(github, GITHUB_API_URL="https://localhost:1")


@pytest.mark.parametrize(
    "name",
    ["1997H2 final", "1997H2 (1)", "1997H2[1]", "1997H2~1", "1997H2.lock", "1997H2..", "1997H2@{1}", "übersicht"],
)
def test_a_delivery_name_that_git_refuses_becomes_a_valid_branch(name: str) -> None:
    branch = branch_of(name)
    process.run("git", "check-ref-format", "--branch", branch)
    assert re.fullmatch(r"delivery/[\w-]+-[0-9a-f]{8}", branch, re.ASCII)
    assert branch != branch_of(f"{name} ")
    assert branch_of("sales-1997.12_a") == "delivery/sales-1997.12_a"


def test_a_delivery_with_an_unusual_name_gets_one_pull_request(work: Repository, github: GitHub) -> None:  # noqa: F811
    source = work.path / "sample/source"
    (source / "1997H2.csv").rename(source / "1997H2 (final).csv")
    look(github)
    look(github)
    assert [each["branch"] for each in github.state.pulls.values()] == [
        branch_of("1997H2 (final)"),
        "delivery/1998H1",
    ]


# A database as the source.


@pytest.fixture
def database(work: Repository) -> Iterator[Postgres]:  # noqa: F811
    """A database with the sales of 1997H2 is the source."""
    sales = pd.read_csv(work.path / "sample/source/1997H2.csv")
    with postgres.running() as server:
        types = dict.fromkeys(sales.select_dtypes("number"), "double precision") | {"sale_date": "date"}
        columns = ", ".join(f"{name} {types.get(name, 'text')}" for name in sales.columns)
        server.run(f"CREATE TABLE sales ({columns})")
        insert(server, sales.astype({"sale_date": str}))
        settings = f"source: {server.address}\n  query: select * from sales\n  watermark: sale_date\n  overlap: 90d"
        work.edit("params.yaml", "  source: ", f"  {settings}\n  prefix: sql-\n  # ")
        yield server


def insert(server: Postgres, rows: "pd.DataFrame") -> None:
    values = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    server.run(f"INSERT INTO sales VALUES ({', '.join(['%s'] * len(rows.columns))})", values)


KILLED_AFTER_PUSH = """\
import os, signal
from slipway.monitoring import open_data_pr

open_data_pr.create_branch = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from slipway.cli import main
main()
"""


def test_a_delivery_of_a_database_is_taken_once_after_a_kill_and_merged(
    work: Repository,  # noqa: F811
    github: GitHub,
    database: Postgres,
    tmp_path: Path,
) -> None:
    environ = {"GITHUB_TOKEN": "", **database.environ}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_PUSH, "open-data-pr"],
        cwd=work.path,
        env=work.environment | database.environ,
        capture_output=True,
        check=False,
    )
    assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), killed.stderr
    assert work.must("git", "ls-files", "--others", "sample/remote")  # it was pushed
    assert branches("delivery/*", {}) == []
    with pytest.raises(CheckFailed, match=r"data\.dvc differs from main at origin"):
        look(github, **environ)
    work.must("git", "checkout", "--quiet", "data.dvc")  # as in the clone of the next run
    look(github, **environ)
    (branch,) = branches("delivery/*", {})
    assert branch == "delivery/sql-1997-12-31"
    work.must("git", "fetch", "--quiet", "origin", branch)
    content = work.must("git", "show", "FETCH_HEAD:data.dvc")

    newer = pd.read_csv(work.path / "sample/source/1998H1.csv", nrows=20)
    insert(database, newer)
    assert look(github, **environ) == [
        "delivery/sql-1997-12-31 is not merged; new rows are taken when it is merged or deleted"
    ]

    head = "a" * 40
    github.state.pulls["1"] = {"head": head, "from": "team/houses", "branch": branch, "title": "Ingest", "kind": "Bot"}
    github.state.pulls["1"] |= {
        "login": "github-actions[bot]",
        "files": [{"status": "modified", "filename": "data.dvc"}],
    }
    github.state.contents[f"{head}:data.dvc"] = content
    run = {"id": 42, "conclusion": "success", "head_branch": branch, "head_sha": head}
    event = {"workflow_run": run | {"head_repository": {"full_name": "team/houses"}}}
    insert(database, newer.assign(sale_date="1997-12-01", price=12_345.5))  # late rows, which the branch lacks
    with pytest.raises(CheckFailed, match="differs from the source; a person must merge it"):
        end(github, event, tmp_path, environ=database.environ)
    assert "merging" not in github.state.pulls["1"]
    database.run("DELETE FROM sales WHERE price = 12345.5")
    work.must("git", "checkout", "--quiet", "data.dvc")  # as in the clone of the next run
    work.must("dvc", "checkout", "--quiet", "--force", "data.dvc")
    assert "is merged" in end(github, event, tmp_path, environ=database.environ)


# Auto-merge.


@pytest.fixture
def proposed(work: Repository, github: GitHub) -> dict[str, Any]:  # noqa: F811
    """Return the event of a successful run for the pull request of a delivery."""
    head = "a" * 40
    github.state.pulls["1"] = {
        "head": head,
        "from": "team/houses",
        "branch": BRANCH,
        "title": "Ingest 1997H2",
        "login": "github-actions[bot]",
        "kind": "Bot",
        "files": [{"status": "modified", "filename": "data.dvc"}],
    }
    github.state.contents[f"{head}:data.dvc"] = work.must("git", "show", "HEAD:data.dvc")  # without 1997H2
    run = {"id": 42, "conclusion": "success", "head_branch": BRANCH, "head_sha": head}
    return {"workflow_run": run | {"head_repository": {"full_name": "team/houses"}}}


def end(
    github: GitHub,
    event: dict[str, Any],
    folder: Path,
    today: date = TODAY,
    environ: Mapping[str, str] = NONE,
) -> str:
    file = folder / "event.json"
    file.write_text(json.dumps(event))
    variables = {**github.variables(), "GITHUB_EVENT_PATH": str(file), "SLIPWAY_DISPATCH": "true", **environ}
    return merge(load_params(Path("params.yaml")), load_model(), today, variables)


def test_data_that_differs_from_the_source_is_not_merged(
    proposed: dict[str, Any], github: GitHub, tmp_path: Path
) -> None:
    with pytest.raises(CheckFailed, match="differs from the source; a person must merge it"):
        end(github, proposed, tmp_path)
    assert "merging" not in github.state.pulls["1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": [{"status": "modified", "filename": "params.yaml"}]}, "changes params.yaml; a person must merge it"),
        (
            {"files": [{"status": "modified", "filename": "sample/remote/files/md5/00/00"}]},
            "changes sample/remote/files/md5/00/00; a person must merge it",
        ),
        ({"login": "ada", "kind": "User"}, "was opened by ada; a person must merge it"),
        ({"head": "b" * 40}, "has newer commits"),
        ({"state": "closed"}, "has no open pull request"),
    ],
)
def test_a_pull_request_with_anything_else_is_not_merged(
    proposed: dict[str, Any], github: GitHub, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    github.state.pulls["1"] |= change
    with pytest.raises(CheckFailed, match=words):
        end(github, proposed, tmp_path)
    assert "merging" not in github.state.pulls["1"]
    assert github.state.dispatched == []


def test_a_pull_request_of_a_fork_is_not_merged(proposed: dict[str, Any], github: GitHub, tmp_path: Path) -> None:
    proposed["workflow_run"]["head_repository"]["full_name"] = "mallory/houses"
    with pytest.raises(CheckFailed, match="is in mallory/houses"):
        end(github, proposed, tmp_path)


@pytest.mark.parametrize("change", [{"conclusion": "failure"}, {"head_branch": "words"}])
def test_a_failed_run_or_another_branch_is_not_merged(
    proposed: dict[str, Any], github: GitHub, tmp_path: Path, change: dict[str, str]
) -> None:
    proposed["workflow_run"] |= change
    assert "not merged: " in end(github, proposed, tmp_path)
    assert "merging" not in github.state.pulls["1"]


def test_nothing_is_merged_if_auto_merge_is_off(
    proposed: dict[str, Any],
    github: GitHub,
    tmp_path: Path,
    work: Repository,  # noqa: F811
) -> None:
    work.edit("params.yaml", "auto_merge: true", "auto_merge: false")
    assert "not merged: ingest.auto_merge in params.yaml is false" in end(github, proposed, tmp_path)


def post(github: GitHub) -> None:
    """Post a report that shows a held model, whose data may land."""
    text = CommentText("HOLD", "a" * 40, "5" * 32, champion_stays=True)
    github.state.comment(text.complete, login="github-actions[bot]", kind="Bot", pull=1)


def test_a_held_delivery_is_merged_only_if_when_held_is_land(
    proposed: dict[str, Any],
    github: GitHub,
    tmp_path: Path,
    work: Repository,  # noqa: F811
) -> None:
    look(github, GITHUB_TOKEN="")
    work.must("git", "fetch", "--quiet", "origin", BRANCH)
    github.state.contents[f"{'a' * 40}:data.dvc"] = work.must("git", "show", "FETCH_HEAD:data.dvc")
    github.state.pulls["1"]["labels"] = ["ship-anyway"]  # added to an earlier commit
    label = {"pull": 1, "event": "labeled", "label": "ship-anyway", "login": "ada", "at": "1999-12-31T00:00:00Z"}
    github.state.label_events.append(label)
    post(github)
    assert f"not merged: the model of {BRANCH} is held, and ingest.when_held is wait" in end(github, proposed, tmp_path)
    assert "merging" not in github.state.pulls["1"]

    work.edit("params.yaml", "when_held: wait", "when_held: land")
    assert "pull request 1 is merged" in end(github, proposed, tmp_path)
    title, _, body = github.state.pulls["1"]["message"].partition("\n\n")
    assert title == "Ingest 1997H2 (#1)"
    assert body.startswith("The model of this delivery is held, so only its data is merged (ingest.when_held: land).")


def test_a_held_delivery_with_another_file_is_not_merged_even_if_when_held_is_land(
    proposed: dict[str, Any],
    github: GitHub,
    tmp_path: Path,
    work: Repository,  # noqa: F811
) -> None:
    work.edit("params.yaml", "when_held: wait", "when_held: land")
    post(github)
    github.state.pulls["1"]["files"].append({"status": "modified", "filename": "params.yaml"})
    with pytest.raises(CheckFailed, match=r"changes params\.yaml; a person must merge it"):
        end(github, proposed, tmp_path)
    github.state.pulls["1"]["files"].pop()
    github.state.pulls["1"]["changed_files"] = 3001
    with pytest.raises(CheckFailed, match="changes more files than GitHub lists; a person must merge it"):
        end(github, proposed, tmp_path)
    assert "merging" not in github.state.pulls["1"]


def pull_and_run(github: GitHub, proposed: dict[str, Any]) -> tuple[PullRequest, WorkflowRun]:
    pull = connect(github.variables()).get_pull(1)
    return pull, WorkflowRun.model_validate(proposed)


def test_a_merge_whose_response_was_lost_counts_as_done(proposed: dict[str, Any], github: GitHub) -> None:
    """GitHub has merged, the client repeats the request after the error 502, and GitHub answers 405."""
    github.state.failures.append(Failure(502, "PUT", times=1, applied=True))
    _merge_once(*pull_and_run(github, proposed))
    assert github.state.asked("PUT") == ["/repos/team/houses/pulls/1/merge"] * 2


def test_a_merge_that_github_refuses_is_an_error(proposed: dict[str, Any], github: GitHub) -> None:
    github.state.failures.append(Failure(405, "PUT"))
    with pytest.raises(GithubException):
        _merge_once(*pull_and_run(github, proposed))


def test_a_merged_delivery_starts_ship_again(proposed: dict[str, Any], github: GitHub, tmp_path: Path) -> None:
    """A rerun of the job continues where the first run could not start Ship."""
    github.state.pulls["1"] |= {"state": "closed", "merged": "c" * 40}
    github.state.disabled = {"ship.yml"}
    with pytest.raises(CheckFailed, match=r"is merged, but ship\.yml cannot be started \(422 Cannot trigger"):
        end(github, proposed, tmp_path)
    github.state.disabled = set()
    assert "pull request 1 is merged" in end(github, proposed, tmp_path)
    assert [each["workflow"] for each in github.state.dispatched] == ["ship.yml"]


def test_the_run_can_be_given_by_its_number(proposed: dict[str, Any], github: GitHub, tmp_path: Path) -> None:
    run = proposed["workflow_run"] | {"path": ".github/workflows/pull-request.yml", "status": "completed"}
    github.state.runs = {42: run, 43: run | {"id": 43, "path": ".github/workflows/ship.yml"}, 44: run | {"status": "x"}}
    (tmp_path / "dispatch.json").write_text('{"inputs": {"run": "42"}}')
    environ = github.variables() | {"GITHUB_EVENT_NAME": "workflow_dispatch"}
    environ["GITHUB_EVENT_PATH"] = str(tmp_path / "dispatch.json")
    found = find_checked_run(environ, "pull-request.yml")
    assert (found.id, found.conclusion, found.head_branch) == (42, "success", BRANCH)
    assert found.head_repository == "team/houses"
    for number, words in (
        ("43", "is not a completed run"),
        ("44", "is not a completed run"),
        ("45", r"\(404 Not Found"),
    ):
        (tmp_path / "dispatch.json").write_text(f'{{"inputs": {{"run": "{number}"}}}}')
        with pytest.raises(InputError, match=words):
            find_checked_run(environ, "pull-request.yml")

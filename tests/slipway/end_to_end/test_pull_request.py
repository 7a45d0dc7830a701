"""The real workflow files, run by act for pull requests on the fake of GitHub."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from demo.fakes.github_repo import CHECKS, REPOSITORY, GitHubRepo, PullRequest
from demo.fakes.workflow_run import Run
from slipway.review.report import Override, Report
from tests.slipway.conftest import Repository
from tests.slipway.end_to_end.conftest import serving
from tests.slipway.end_to_end.repo import check, clone, comment, propose, read_report, write_joined_log

SET_UP = ["actions/checkout", "./.github/actions/setup"]
CLOUD = "./.github/actions/cloud"
JUDGED = [*SET_UP, CLOUD, "slipway reproduce", "slipway report", "actions/upload-artifact"]
DECIDED = [*SET_UP, "actions/download-artifact", "slipway merge-check"]
POSTED = [*SET_UP, "actions/setup-node", "make cml", "actions/download-artifact", 'slipway comment "$REPORT"']


def document(repo: GitHubRepo, number: int = 7, **how: str) -> PullRequest:
    """Open a pull request that changes one page of documentation."""
    work = clone(repo, f"pull-{number}")
    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    return propose(repo, work, number, **{"branch": "words"} | how)


def nothing_was_executed(repo: GitHubRepo) -> bool:
    return not list(repo.folder.rglob("pwned"))


def test_a_held_model_needs_the_label_on_its_last_commit(repo: GitHubRepo) -> None:
    """Its report has a replay of logged requests, whose truth is known."""
    write_joined_log(repo.folder / "log")
    work = clone(repo, "worse")
    work.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    with (work.path / "params.yaml").open("a") as params:
        params.write(f"\nreplay:\n  log: {repo.folder}/log\n  feedback: none\n")
    work.commit("Fewer trees")
    pull = propose(repo, work, 7, "worse")
    held = check(repo, pull)
    assert held.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert "The model is held (mean absolute error rises by $" in held.log["pass"]
    assert "let a maintainer add the label ship-anyway" in held.log["pass"]
    comment(repo, pull)
    (body,) = repo.github.state.bodies(7)
    assert "The challenger answered 240 requests that production received from 2020-01-01 to 2020-01-12: " in body
    assert "The truth of 240 of them is known. " in body
    assert "the champion is closer (95% interval of the difference " in body

    repo.label(pull, "ship-anyway", "grace")
    labeled = repo.run(repo.take("label.yml"))
    assert (labeled.jobs, labeled.needless) == ({"rerun": "success"}, {})
    overruled = check(repo, pull)
    assert (overruled.identity, overruled.attempt) == (held.identity, 2)
    assert repo.may_merge(pull)
    assert overruled.needless == {}
    assert overruled.jobs == {"changes": "success", "model": "success", "pass": "success"}
    assert "but grace added the label ship-anyway to this commit" in overruled.log["pass"]
    assert read_report(repo, overruled).override == Override(
        by="grace", at=datetime.fromisoformat(repo.github.state.label_events[-1]["at"])
    )
    comment(repo, pull)
    (body,) = repo.github.state.bodies(7)
    assert "HOLD" in body
    assert "grace" in body
    assert "2026-11-24" in body

    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    later = propose(repo, work, 7, "worse")
    pushed = check(repo, later)
    assert pushed.jobs["pass"] == "failure"
    assert "remove it and add it again" in pushed.log["pass"]
    assert read_report(repo, pushed).override is None
    comment(repo, later)
    (body,) = repo.github.state.bodies(7)  # the comment was updated
    assert "grace" not in body


def test_a_documentation_change_runs_no_pipeline_and_posts_nothing(repo: GitHubRepo) -> None:
    pull = document(repo)
    run = check(repo, pull)
    assert run.jobs == {"changes": "success", "pass": "success"}
    assert run.ran("pass") == DECIDED
    assert "nothing that the model depends on has changed, and no other job had work" in run.log["pass"]
    posted = comment(repo, pull)
    assert posted.jobs == {"charts": "success", "comment": "success"}
    assert "has no report, so there is nothing to post" in posted.log["comment"]
    assert not repo.github.state.comments


def test_a_change_whose_tests_fail_cannot_be_merged(repo: GitHubRepo) -> None:
    work = clone(repo, "code")
    (work.path / ".ci/run").write_text("echo 'A test fails.'\nexit 1\n")
    work.commit("Break")
    run = check(repo, propose(repo, work, 7, "code"))
    assert run.jobs == {"changes": "success", "test": "failure", "pass": "failure"}
    assert "A test fails." in run.log["test"]
    assert "The job `test` failed; see its log" in run.log["pass"]


CLOUDS = {"AWS_ROLE": "arn:aws:iam::1:role/slipway", "AWS_REGION": "eu-central-1"}
CLOUDS |= {"GOOGLE_PROVIDER": "projects/1/providers/slipway", "GOOGLE_ACCOUNT": "slipway@x"}
CLOUDS |= {"AZURE_CLIENT": "0-1", "AZURE_TENANT": "0-2"}
LOGINS = ["aws model arn:aws:iam::1:role/slipway", "google model projects/1/providers/slipway", "azure model 0-1"]


@pytest.mark.parametrize(("source", "logins"), [(REPOSITORY, LOGINS), ("mallory/houses", [])])
def test_a_pipeline_that_stops_is_reported_and_only_a_branch_of_the_repository_logs_in_to_a_cloud(
    repo: GitHubRepo, source: str, logins: list[str]
) -> None:
    repo.variables |= CLOUDS
    work = clone(repo, "broken")
    work.edit("params.yaml", "max_invalid_share: 0.10", "max_invalid_share: 0.001")
    work.commit("Break")
    run = check(repo, propose(repo, work, 7, "broken", source=source))
    written = repo.artifacts / "clouds"
    assert (written.read_text().splitlines() if written.exists() else []) == logins
    assert run.jobs == {"changes": "success", "model": "failure", "pass": "failure"}
    assert run.ran("model") == (JUDGED if logins else [each for each in JUDGED if each != CLOUD])
    assert run.steps["model"]["slipway reproduce"] == "failure"  # after the login
    assert run.steps["model"]["slipway report"] == "success"
    assert read_report(repo, run).stopped
    assert "There is no verdict, because `validate` stopped (" in run.log["pass"]


def test_a_run_that_is_started_by_hand_checks_the_branch(repo: GitHubRepo) -> None:
    pull = document(repo)
    run = repo.run(repo.start_by_hand(CHECKS, ref=pull.branch, pull_request="7"))
    assert run.jobs == {"changes": "success", "pass": "success"}


def test_the_merge_queue_compares_with_the_change_ahead(repo: GitHubRepo) -> None:
    """A documentation change behind a change of the gate's rules has no pipeline to run."""
    work = clone(repo, "queue")
    work.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    work.commit("Ahead")
    ahead = work.must("git", "rev-parse", "HEAD").strip()
    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    run = repo.run(repo.queue(propose(repo, work, 7, "words"), ahead))
    assert run.jobs == {"changes": "success", "pass": "success"}


# A branch name that git allows. A shell that gets it as part of a command runs it.
HARM = "touch${IFS}$FAKE_ARTIFACTS/pwned"
HOSTILE = f"x$({HARM})`{HARM}`;{HARM}&{HARM}|${{{{github.token}}}}"
TITLE = f"x'; {HARM}; echo $({HARM}) `{HARM}`\n::set-output name=model::true\n${{{{ github.token }}}}"


@pytest.mark.parametrize("words", [HOSTILE, TITLE])
def test_the_hostile_names_are_harmful_in_a_command(words: str, tmp_path: Path) -> None:
    subprocess.run(["bash", "-c", f'echo "{words}"'], env={"PATH": "/bin:/usr/bin", "FAKE_ARTIFACTS": str(tmp_path)})
    assert (tmp_path / "pwned").exists()


@dataclass(frozen=True)
class Fork:
    """Pull request 8 of a fork, next to pull request 7 of the repository, its checks, and the run of Comment."""

    repo: GitHubRepo
    run: Run
    posted: Run

    def comment(self) -> Run:
        """Run Comment, or run it again, with what the artifact contains now."""
        if self.posted.status == "completed":
            self.repo.rerun(self.posted.identity)
        return self.repo.run(self.posted)


@pytest.fixture(scope="module")
def checked_fork(start: Repository, warm_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fork]:
    with serving(start, warm_environment, tmp_path_factory.mktemp("fork")) as repo:
        document(repo, 7)
        work = clone(repo, "fork")
        for name in (f"docs/$({HARM}).md", f"docs/\n-rf `{HARM}`.md"):
            (work.path / name).parent.mkdir()
            (work.path / name).write_text("x")
        work.commit("Words")
        pull = propose(repo, work, 8, HOSTILE, source="mallory/houses", title=TITLE, login="mallory")
        run = check(repo, pull)
        yield Fork(repo, run, repo.take("comment.yml", pull))


@pytest.fixture
def fork(checked_fork: Fork) -> Fork:
    """The fork without the artifact and the comments of the test before."""
    shutil.rmtree(checked_fork.repo.artifact(checked_fork.run).parent, ignore_errors=True)
    checked_fork.repo.github.state.comments.clear()
    checked_fork.repo.git("update-ref", "-d", "refs/heads/reports")
    return checked_fork


def test_a_fork_with_hostile_names_is_checked_like_any_other(fork: Fork) -> None:
    assert fork.run.jobs == {"changes": "success", "pass": "success"}
    assert fork.comment().jobs == {"charts": "success", "comment": "success"}
    assert not fork.repo.github.state.comments
    assert nothing_was_executed(fork.repo)


def pack(repo: GitHubRepo, run: Run, **files: bytes | Path) -> None:
    """Upload an artifact as the fork's own workflow can. A path stands for a symbolic link to it."""
    repo.artifact(run).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(repo.artifact(run), "w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                packed.addfile(member)
            else:
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))


def named(report: Report, pull: int, head: str) -> bytes:
    revision = report.revision.model_copy(update={"head": head})
    return report.model_copy(update={"pull_request": pull, "revision": revision}).model_dump_json().encode()


def not_its_own(repo: GitHubRepo, run: Run, report: Report) -> str:
    pack(repo, run, **{"report.json": named(report, 7, run.head)})
    return f"The report names pull request 7, but run {run.identity} belongs to mallory/houses, so nothing is posted."


def link(repo: GitHubRepo, run: Run, _: Report) -> str:
    secret = repo.folder / "secret.json"
    secret.write_text("a secret of the machine")
    pack(repo, run, **{"report.json": secret})
    return "report.json is missing"


def ten_megabytes(repo: GitHubRepo, run: Run, report: Report) -> str:
    pack(repo, run, **{"report.json": named(report, 8, run.head) + b" " * 10_000_000})
    return "bytes, and a report has at most"


def another_commit(repo: GitHubRepo, run: Run, report: Report) -> str:
    pack(repo, run, **{"report.json": named(report, 8, "0" * 40)})
    return f"The report is for 000000000000 but run {run.identity} is for {run.head[:12]}, so nothing is posted."


def outside(repo: GitHubRepo, run: Run, report: Report) -> str:
    pack(repo, run, **{"report.json": named(report, 8, run.head), "../../pwned": b"x", "..\\pwned": b"x"})
    return "actions/download-artifact"  # the action itself refuses the file


@pytest.mark.parametrize("attack", [not_its_own, another_commit, link, ten_megabytes, outside])
def test_a_hostile_artifact_is_not_posted(
    fork: Fork, report: Report, attack: Callable[[GitHubRepo, Run, Report], str]
) -> None:
    repo, words = fork.repo, attack(fork.repo, fork.run, report)
    posted = fork.comment()
    assert posted.jobs == {"charts": "failure", "comment": "failure"}
    assert words in " ".join(posted.log["comment"].split())
    assert "a secret of the machine" not in json.dumps(posted.log)
    assert not repo.github.state.comments
    assert nothing_was_executed(repo)
    assert "reports" not in repo.git("branch", "--list", "reports")


def test_hostile_text_in_a_report_is_escaped(fork: Fork, report: Report) -> None:
    """The report of a fork is posted on its own pull request, and names the fork."""
    repo = fork.repo
    assert report.result
    verdict = report.result.verdict.model_copy(update={"reason": f"<img src=x> [x](javascript:x) @team {TITLE}"})
    hostile = report.model_copy(update={"result": report.result.model_copy(update={"verdict": verdict})})
    pack(repo, fork.run, **{"report.json": named(hostile, 8, fork.run.head)})
    assert fork.comment().jobs == {"charts": "success", "comment": "success"}
    (body,) = repo.github.state.bodies(8)
    assert "mallory/houses" in body
    assert "<img src=x>" not in body
    assert not repo.github.state.bodies(7)
    assert nothing_was_executed(repo)

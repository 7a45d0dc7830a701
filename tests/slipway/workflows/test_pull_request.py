"""The real workflow files, run by act on pull requests to a bare `origin`."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from slipway.review.report import Override, Report
from tests.slipway.workflows.forge import WHEN, Forge, PullRequest, Run

SET_UP = ["actions/checkout", "./.github/actions/setup"]
JUDGED = [*SET_UP, "slipway reproduce", "slipway report", "actions/upload-artifact"]
DECIDED = [*SET_UP, "actions/download-artifact", "slipway merge-check"]
POSTED = [*SET_UP, "actions/setup-node", "make cml", "actions/download-artifact", 'slipway comment "$REPORT"']


def document(forge: Forge, number: int = 7, **how: str) -> PullRequest:
    """A pull request that changes a page and nothing else."""
    work = forge.clone(f"pull-{number}")
    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    return forge.propose(work, number, **{"branch": "words"} | how)


def nothing_was_executed(forge: Forge) -> bool:
    return not list(forge.folder.rglob("pwned"))


def test_a_model_that_is_held_needs_a_label_on_its_last_commit(forge: Forge) -> None:
    work = forge.clone("worse")
    work.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    work.commit("Fewer trees")
    pull = forge.propose(work, 7, "worse")
    held = forge.check(pull, "opened")
    assert held.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert "The model is held (mean absolute error rises by $" in held.log["pass"]
    assert "have a maintainer put the label ship-anyway on the pull request" in held.log["pass"]

    label = {"label": {"name": "ship-anyway"}}
    overruled = forge.check(pull, "labeled", sender="grace", **label)
    assert overruled.jobs == {"changes": "success", "model": "success", "pass": "success"}
    assert "and grace has put the label ship-anyway on this commit" in overruled.log["pass"]
    assert forge.report(overruled).override == Override(by="grace", at=datetime.fromisoformat(WHEN))
    forge.comment(overruled)
    (body,) = forge.github.state.bodies(7)
    assert "HOLD" in body
    assert "grace" in body
    assert "2026-11-24" in body

    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    pushed = forge.check(forge.propose(work, 7, "worse"), "synchronize")
    assert pushed.jobs["pass"] == "failure"
    assert "where it is on already, take it off and put it on" in pushed.log["pass"]
    assert forge.report(pushed).override is None
    forge.comment(pushed)
    (body,) = forge.github.state.bodies(7)  # the same comment
    assert "grace" not in body


def test_documentation_runs_no_pipeline_and_posts_nothing(forge: Forge) -> None:
    run = forge.check(document(forge), "opened")
    assert run.jobs == {"changes": "success", "pass": "success"}
    assert run.ran("pass") == DECIDED
    assert "nothing that the model depends on has changed, and no other job had work" in run.log["pass"]
    posted = forge.comment(run)
    assert posted.jobs == {"comment": "success"}
    assert "judged nothing, so there is nothing to post" in posted.log["comment"]
    assert not forge.github.state.comments


def test_code_that_fails_its_tests_cannot_be_merged(forge: Forge) -> None:
    work = forge.clone("code")
    (work.path / ".ci/run").write_text("echo 'A test fails.'\nexit 1\n")
    work.commit("Break")
    run = forge.check(forge.propose(work, 7, "code"))
    assert run.jobs == {"changes": "success", "test": "failure", "pass": "failure"}
    assert "A test fails." in run.log["test"]
    assert "The job `test` failed; look at its log" in run.log["pass"]


def test_a_pipeline_that_stops_is_reported_and_cannot_be_merged(forge: Forge) -> None:
    work = forge.clone("broken")
    work.edit("params.yaml", "max_invalid_share: 0.10", "max_invalid_share: 0.001")
    work.commit("Break")
    run = forge.check(forge.propose(work, 7, "broken"))
    assert run.jobs == {"changes": "success", "model": "failure", "pass": "failure"}
    assert run.ran("model") == JUDGED
    assert run.steps["model"]["slipway reproduce"] == "failure"
    assert run.steps["model"]["slipway report"] == "success"
    assert forge.report(run).stopped
    assert "There is no verdict, because `validate` stopped (" in run.log["pass"]


def test_a_run_that_is_asked_for_looks_at_the_branch(forge: Forge) -> None:
    run = forge.ask(document(forge))
    assert run.jobs == {"changes": "success", "pass": "success"}


def test_the_queue_compares_with_what_is_ahead(forge: Forge) -> None:
    """Documentation behind a change of the rules: that one has been judged already."""
    work = forge.clone("queue")
    work.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    work.commit("Ahead")
    ahead = work.must("git", "rev-parse", "HEAD").strip()
    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    run = forge.queue(forge.propose(work, 7, "words"), ahead)
    assert run.jobs == {"changes": "success", "pass": "success"}


# A name that git allows: with it, a title and a file, whoever puts it into a command runs what it says.
HARM = "touch${IFS}$FORGE_ARTIFACTS/pwned"
HOSTILE = f"x$({HARM})`{HARM}`;{HARM}&{HARM}|${{{{github.token}}}}"
TITLE = f"x'; {HARM}; echo $({HARM}) `{HARM}`\n::set-output name=model::true\n${{{{ github.token }}}}"


@pytest.mark.parametrize("words", [HOSTILE, TITLE])
def test_these_words_would_do_harm_in_a_command(words: str, tmp_path: Path) -> None:
    subprocess.run(["bash", "-c", f'echo "{words}"'], env={"PATH": "/bin:/usr/bin", "FORGE_ARTIFACTS": str(tmp_path)})
    assert (tmp_path / "pwned").exists()


@pytest.fixture
def fork(forge: Forge) -> Run:
    """A pull request of a fork, numbered 8, beside an honest one numbered 7 whose report is posted."""
    document(forge, 7)
    work = forge.clone("fork")
    for name in (f"docs/$({HARM}).md", f"docs/\n-rf `{HARM}`.md"):
        (work.path / name).parent.mkdir()
        (work.path / name).write_text("x")
    work.commit("Words")
    pull = forge.propose(work, 8, HOSTILE, source="mallory/houses", title=TITLE)
    return forge.check(pull, "opened", sender="mallory")


def test_a_fork_with_hostile_names_runs_as_any_other(forge: Forge, fork: Run) -> None:
    assert fork.jobs == {"changes": "success", "pass": "success"}
    posted = forge.comment(fork)
    assert posted.jobs == {"comment": "success"}
    assert not forge.github.state.comments
    assert nothing_was_executed(forge)


def pack(forge: Forge, run: Run, **files: bytes | Path) -> None:
    """What the fork's own workflow uploads; a path stands for a link to there."""
    forge.artifact(run).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(forge.artifact(run), "w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                packed.addfile(member)
            else:
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))


def named(report: Report, pull: int, head: str) -> bytes:
    lineage = report.lineage.model_copy(update={"head": head})
    return report.model_copy(update={"pull_request": pull, "lineage": lineage}).model_dump_json().encode()


def not_its_own(forge: Forge, run: Run, report: Report) -> str:
    pack(forge, run, **{"report.json": named(report, 7, run.pull.head)})
    return "Run 1 is of mallory/houses and pull request 7, which its report names, is not, so nothing is posted."


def link(forge: Forge, run: Run, _: Report) -> str:
    secret = forge.folder / "secret.json"
    secret.write_text("a secret of the machine")
    pack(forge, run, **{"report.json": secret})
    return "report.json is missing"


def ten_megabytes(forge: Forge, run: Run, report: Report) -> str:
    pack(forge, run, **{"report.json": named(report, 8, run.pull.head) + b" " * 10_000_000})
    return "bytes and a report at most"


def another_commit(forge: Forge, run: Run, report: Report) -> str:
    pack(forge, run, **{"report.json": named(report, 8, "0" * 40)})
    return f"The report is of 000000000000 and run 1 of {run.pull.head[:12]}, so nothing is posted."


def outside(forge: Forge, run: Run, report: Report) -> str:
    pack(forge, run, **{"report.json": named(report, 8, run.pull.head), "../../pwned": b"x", "..\\pwned": b"x"})
    return "actions/download-artifact"  # which refuses it, with words of its own


@pytest.mark.parametrize("attack", [not_its_own, another_commit, link, ten_megabytes, outside])
def test_a_hostile_artifact_is_posted_nowhere(
    forge: Forge, fork: Run, report: Report, attack: Callable[[Forge, Run, Report], str]
) -> None:
    words = attack(forge, fork, report)
    posted = forge.comment(fork)
    assert posted.jobs == {"comment": "failure"}
    assert words in " ".join(posted.log["comment"].split())
    assert "a secret of the machine" not in json.dumps(posted.log)
    assert not forge.github.state.comments
    assert nothing_was_executed(forge)
    assert "reports" not in forge.git("branch", "--list", "reports")


def test_hostile_words_are_words(forge: Forge, fork: Run, report: Report) -> None:
    """A report of a fork on its own pull request is posted there, and says whose it is."""
    assert report.judged
    verdict = report.judged.verdict.model_copy(update={"reason": f"<img src=x> [x](javascript:x) @team {TITLE}"})
    hostile = report.model_copy(update={"judged": report.judged.model_copy(update={"verdict": verdict})})
    pack(forge, fork, **{"report.json": named(hostile, 8, fork.pull.head)})
    posted = forge.comment(fork)
    assert posted.jobs == {"comment": "success"}
    (body,) = forge.github.state.bodies(8)
    assert "mallory/houses" in body
    assert "<img src=x>" not in body
    assert not forge.github.state.bodies(7)
    assert nothing_was_executed(forge)

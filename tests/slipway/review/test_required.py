"""The required check says yes to what was judged at this commit and may ship, and no to everything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import CheckFailed, InputError
from slipway.review import merge_check
from slipway.review.report import Judged, Report, Stopped
from tests.slipway.conftest import Repository
from tests.slipway.review.test_event import LABELED

Check = Callable[..., str]


def needs(*, model: str = "success", wanted: str = "true", **others: str) -> dict[str, Any]:
    """The context of a run in which the tests had work and the image had none."""
    results = {"test": "success", "image": "skipped"} | others
    outputs = {"test": "true", "model": wanted, "image": "false"}
    return {
        "changes": {"result": "success", "outputs": outputs},
        "model": {"result": model, "outputs": {}},
        **{name: {"result": result, "outputs": {}} for name, result in results.items()},
    }


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit that is checked out."""
    repository = Repository(tmp_path / "r")
    repository.path.mkdir()
    monkeypatch.chdir(repository.path)
    repository.must("git", "init", "--quiet")
    Path("README.md").write_text("# Words\n")
    repository.commit("Start")
    return repository.must("git", "rev-parse", "HEAD").strip()


@pytest.fixture
def check(head: str, tmp_path: Path) -> Check:  # noqa: ARG001
    """Check a run; without a report where none is given."""

    def run(jobs: Any, report: Report | None = None, **environ: str) -> str:
        path = tmp_path / "report.json"
        if report:
            report.write(path)
        return merge_check.check({"NEEDS": json.dumps(jobs)} | environ, path)

    return run


def judged(report: Report, head: str, verdict: str, reason: str = "error rises by $5") -> Report:
    assert report.judged
    decided = report.judged.verdict.model_copy(update={"verdict": verdict, "reason": reason})
    part: Judged = report.judged.model_copy(update={"verdict": decided})
    return report.model_copy(update={"judged": part, "lineage": report.lineage.model_copy(update={"commit": head})})


@pytest.mark.parametrize("verdict", ["ship", "first", "unchanged"])
def test_a_model_that_may_ship_may_be_merged(check: Check, report: Report, head: str, verdict: str) -> None:
    words = check(needs(), judged(report, head, verdict))
    assert words == f"May be merged: the verdict is {verdict}, and test succeeded."


def test_a_change_without_a_model_needs_no_report(check: Check) -> None:
    words = check(needs(model="skipped", wanted="false"))
    assert words == "May be merged: nothing that the model depends on has changed, and test succeeded."
    nothing = needs(model="skipped", wanted="false", test="skipped")
    nothing["changes"]["outputs"]["test"] = "false"
    assert check(nothing).endswith("and no other job had work.")


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
@pytest.mark.parametrize("job", ["changes", "test", "model"])
def test_a_job_that_had_work_and_did_not_succeed_is_refused(check: Check, job: str, result: str) -> None:
    jobs = needs()
    jobs[job]["result"] = result
    words = {"failure": "failed", "cancelled": "was cancelled", "skipped": "was skipped though it had work"}[result]
    with pytest.raises(CheckFailed, match=f"^The job `{job}` {words}; look at its log"):
        check(jobs)


@pytest.mark.parametrize("result", ["failure", "cancelled"])
def test_a_job_that_had_no_work_and_failed_is_refused(check: Check, result: str) -> None:
    with pytest.raises(CheckFailed, match=r"^The job `image`"):
        check(needs(image=result, model="skipped", wanted="false"))


@pytest.mark.parametrize("said", [{}, {"test": ""}, {"test": "False"}])
def test_a_skipped_job_of_which_changes_said_nothing_is_refused(check: Check, said: dict[str, str]) -> None:
    jobs = needs(model="skipped", wanted="false", test="skipped")
    del jobs["changes"]["outputs"]["test"]
    jobs["changes"]["outputs"] |= said
    with pytest.raises(CheckFailed, match=r"^The job `test` was skipped though it had work"):
        check(jobs)


def test_a_held_model_is_refused(check: Check, report: Report, head: str) -> None:
    with pytest.raises(
        CheckFailed, match=r"^The model is held \(error rises by \$5\); push a better one, or have a main"
    ):
        check(needs(), judged(report, head, "hold"))


def test_words_of_others_begin_no_line_of_the_log(check: Check, report: Report, head: str) -> None:
    with pytest.raises(CheckFailed) as refusal:
        check(needs(), judged(report, head, "hold", "worse\n::add-mask::x\r\n##[error]y"))
    assert "\n" not in str(refusal.value)
    assert "\r" not in str(refusal.value)


def test_the_label_lets_a_held_model_in_for_the_run_that_it_starts(
    check: Check, report: Report, head: str, tmp_path: Path
) -> None:
    event = tmp_path / "event.json"
    run = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
    event.write_text(json.dumps(LABELED))
    words = check(needs(), judged(report, head, "hold"), **run)
    assert "the model is held (error rises by $5), and ada has put the label ship-anyway on this commit" in words
    event.write_text(json.dumps(LABELED | {"action": "synchronize"}))
    with pytest.raises(CheckFailed, match="where it is on already, take it off and put it on"):
        check(needs(), judged(report, head, "hold"), **run)


def test_the_label_mends_nothing_but_a_hold(check: Check, report: Report, head: str, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps(LABELED))
    run = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
    with pytest.raises(CheckFailed, match="The job `test` failed"):
        check(needs(test="failure"), judged(report, head, "hold"), **run)
    with pytest.raises(CheckFailed, match="There is no verdict"):
        check(needs(model="failure"), stopped(report, head), **run)


def stopped(report: Report, head: str) -> Report:
    lineage = report.lineage.model_copy(update={"commit": head})
    words = Stopped(stage="validate", words="data/1997H2.csv is\ntruncated")
    return report.model_copy(update={"judged": None, "stopped": words, "lineage": lineage})


@pytest.mark.parametrize("result", ["success", "failure"])
def test_a_pipeline_that_stopped_is_refused_with_its_words(
    check: Check, report: Report, head: str, result: str
) -> None:
    with pytest.raises(
        CheckFailed, match=r"because `validate` stopped \(data/1997H2\.csv is truncated\); mend that and"
    ):
        check(needs(model=result), stopped(report, head))


def test_a_report_on_another_commit_is_refused(check: Check, report: Report) -> None:
    with pytest.raises(
        CheckFailed, match=r"^The report is on commit c0c0c0c0c0c0 and this is [0-9a-f]{12}; run the whole"
    ):
        check(needs(), judged(report, "c0" * 20, "ship"))


def test_a_model_without_a_report_is_refused(check: Check) -> None:
    with pytest.raises(InputError, match=r"report\.json is missing; `slipway report` writes it"):
        check(needs())


def test_a_report_that_is_none_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="is not as `slipway report` writes it"):
        check(needs())


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"changes": {"result": "success"}}', '{"changes": 3}'])
def test_needs_that_do_not_tell_are_refused(head: str, tmp_path: Path, text: str) -> None:  # noqa: ARG001
    with pytest.raises(
        InputError, match=r"NEEDS does not tell of the jobs `changes` and `model`; give it toJSON\(needs\)"
    ):
        merge_check.check({"NEEDS": text}, tmp_path / "report.json")

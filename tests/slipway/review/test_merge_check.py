"""The required check passes for a verdict on this commit that may ship, and fails for everything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import GitHub
from slipway.errors import CheckFailed, InputError
from slipway.review import merge_check
from slipway.review.report import PipelineResult, Report, Stopped
from tests.slipway.conftest import Repository
from tests.slipway.review.test_event import LABELED, set_label

Check = Callable[..., str]


def needs(*, model: str = "success", had_work: str = "true", **others: str) -> dict[str, Any]:
    """Return the context of a run in which the tests had work and the image had none."""
    results = {"test": "success", "image": "skipped"} | others
    outputs = {"test": "true", "model": had_work, "image": "false"}
    return {
        "changes": {"result": "success", "outputs": outputs},
        "model": {"result": model, "outputs": {}},
        **{name: {"result": result, "outputs": {}} for name, result in results.items()},
    }


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the commit that is checked out."""
    repository = Repository(tmp_path / "r")
    repository.path.mkdir()
    monkeypatch.chdir(repository.path)
    repository.must("git", "init", "--quiet")
    Path("README.md").write_text("# Words\n")
    repository.commit("Start")
    return repository.must("git", "rev-parse", "HEAD").strip()


@pytest.fixture
def check(head: str, tmp_path: Path) -> Check:  # noqa: ARG001
    """Return a function that checks a run, with or without a report."""

    def run(jobs: Any, report: Report | None = None, **environ: str) -> str:
        path = tmp_path / "report.json"
        if report:
            report.write(path)
        return merge_check.check_merge({"NEEDS": json.dumps(jobs)} | environ, path)

    return run


def with_verdict(report: Report, head: str, verdict: str, reason: str = "error rises by $5") -> Report:
    assert report.result
    decided = report.result.verdict.model_copy(update={"verdict": verdict, "reason": reason})
    part: PipelineResult = report.result.model_copy(update={"verdict": decided})
    return report.model_copy(update={"result": part, "revision": report.revision.model_copy(update={"commit": head})})


@pytest.mark.parametrize("verdict", ["ship", "first", "unchanged"])
def test_a_model_that_may_ship_can_be_merged(check: Check, report: Report, head: str, verdict: str) -> None:
    sentence = check(needs(), with_verdict(report, head, verdict))
    assert sentence == f"May be merged: the verdict is {verdict}, and test succeeded."


def test_a_change_without_a_model_needs_no_report(check: Check) -> None:
    sentence = check(needs(model="skipped", had_work="false"))
    assert sentence == "May be merged: nothing that the model depends on has changed, and test succeeded."
    nothing = needs(model="skipped", had_work="false", test="skipped")
    nothing["changes"]["outputs"]["test"] = "false"
    assert check(nothing).endswith("and no other job had work.")


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
@pytest.mark.parametrize("job", ["changes", "test", "model"])
def test_a_job_with_work_that_did_not_succeed_is_refused(check: Check, job: str, result: str) -> None:
    jobs = needs()
    jobs[job]["result"] = result
    expected = {"failure": "failed", "cancelled": "was cancelled", "skipped": "was skipped although it had work"}[
        result
    ]
    with pytest.raises(CheckFailed, match=f"^The job `{job}` {expected}; see its log"):
        check(jobs)


@pytest.mark.parametrize("result", ["failure", "cancelled"])
def test_a_failed_job_without_work_is_refused(check: Check, result: str) -> None:
    with pytest.raises(CheckFailed, match=r"^The job `image`"):
        check(needs(image=result, model="skipped", had_work="false"))


@pytest.mark.parametrize("output", [{}, {"test": ""}, {"test": "False"}])
def test_a_skipped_job_without_an_output_of_changes_is_refused(check: Check, output: dict[str, str]) -> None:
    jobs = needs(model="skipped", had_work="false", test="skipped")
    del jobs["changes"]["outputs"]["test"]
    jobs["changes"]["outputs"] |= output
    with pytest.raises(CheckFailed, match=r"^The job `test` was skipped although it had work"):
        check(jobs)


def test_a_held_model_is_refused(check: Check, report: Report, head: str) -> None:
    with pytest.raises(
        CheckFailed, match=r"^The model is held \(error rises by \$5\); push a better one, or let a maintainer"
    ):
        check(needs(), with_verdict(report, head, "hold"))


def test_untrusted_text_never_starts_a_line_of_the_log(check: Check, report: Report, head: str) -> None:
    with pytest.raises(CheckFailed) as refusal:
        check(needs(), with_verdict(report, head, "hold", "worse\n::add-mask::x\r\n##[error]y"))
    assert "\n" not in str(refusal.value)
    assert "\r" not in str(refusal.value)


def test_the_label_overrules_a_hold_for_the_commit_that_it_was_added_to(
    check: Check, report: Report, head: str, github: GitHub, tmp_path: Path
) -> None:
    event = tmp_path / "event.json"
    run = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
    run |= github.variables()
    set_label(github)
    event.write_text(json.dumps(LABELED | {"action": "opened"}))
    sentence = check(needs(), with_verdict(report, head, "hold"), **run)
    assert "the model is held (error rises by $5), but ada added the label ship-anyway to this commit" in sentence
    event.write_text(json.dumps(LABELED | {"action": "synchronize"}))
    with pytest.raises(CheckFailed, match="If the pull request has it already, remove it and add it again"):
        check(needs(), with_verdict(report, head, "hold"), **run)


def test_the_data_of_a_held_delivery_lands(check: Check, report: Report, head: str) -> None:
    held = with_verdict(report, head, "hold")
    sentence = check(needs(), held.model_copy(update={"lands": True}))
    words = (
        "the model is held (error rises by $5), so only the data is merged, the champion stays, and nothing is released"
    )
    assert sentence == f"May be merged: {words}, and test succeeded."
    with pytest.raises(CheckFailed, match="There is no verdict, because `validate` stopped"):
        check(needs(model="failure"), stopped(report, head).model_copy(update={"lands": True}))
    with pytest.raises(CheckFailed, match="The job `test` failed"):
        check(needs(test="failure"), held.model_copy(update={"lands": True}))


def test_data_that_does_not_land_is_refused_with_the_reason(check: Check, report: Report, head: str) -> None:
    waiting = with_verdict(report, head, "hold").model_copy(update={"waits": "pull request 7\nchanges params.yaml"})
    held = (
        r"^The model is held \(error rises by \$5\), and its data does not land because pull request 7 changes params"
    )
    with pytest.raises(CheckFailed, match=held):
        check(needs(), waiting)


def test_a_change_that_the_pipeline_does_not_read_is_not_held_for_the_model_of_main(
    check: Check, report: Report, head: str
) -> None:
    """As after data has landed: the challenger of main is held, and every change of params.yaml is judged."""
    held = with_verdict(report, head, "hold")
    untouched = held.model_copy(update={"changes": held.changes.model_copy(update={"model": False})})
    sentence = check(needs(), untouched)
    assert "May be merged: the model is held (error rises by $5), as on main, because this change touches" in sentence


def test_the_label_overrules_nothing_but_a_hold(check: Check, report: Report, head: str, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps(LABELED))
    run = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
    with pytest.raises(CheckFailed, match="The job `test` failed"):
        check(needs(test="failure"), with_verdict(report, head, "hold"), **run)
    with pytest.raises(CheckFailed, match="There is no verdict"):
        check(needs(model="failure"), stopped(report, head), **run)


def stopped(report: Report, head: str) -> Report:
    revision = report.revision.model_copy(update={"commit": head})
    stage = Stopped(stage="validate", reason="data/1997H2.csv is\ntruncated")
    return report.model_copy(update={"result": None, "stopped": stage, "revision": revision})


@pytest.mark.parametrize("result", ["success", "failure"])
def test_a_stopped_pipeline_is_refused_with_its_error(check: Check, report: Report, head: str, result: str) -> None:
    with pytest.raises(
        CheckFailed, match=r"because `validate` stopped \(data/1997H2\.csv is truncated\); fix that and"
    ):
        check(needs(model=result), stopped(report, head))


def test_a_report_on_another_commit_is_refused(check: Check, report: Report) -> None:
    with pytest.raises(
        CheckFailed, match=r"^The report is on commit c0c0c0c0c0c0, but HEAD is [0-9a-f]{12}; run the whole"
    ):
        check(needs(), with_verdict(report, "c0" * 20, "ship"))


def test_a_model_without_a_report_is_refused(check: Check) -> None:
    with pytest.raises(InputError, match=r"report\.json is missing; `slipway report` writes it"):
        check(needs())


def test_an_invalid_report_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="is not valid; write the report again"):
        check(needs())


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"changes": {"result": "success"}}', '{"changes": 3}'])
def test_incomplete_needs_are_refused(head: str, tmp_path: Path, text: str) -> None:  # noqa: ARG001
    with pytest.raises(InputError, match=r"NEEDS lacks the jobs `changes` and `model`; set it to toJSON\(needs\)"):
        merge_check.check_merge({"NEEDS": text}, tmp_path / "report.json")

"""The required check: whether what was judged may be merged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from slipway.artifacts import Verdict
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.review.event import LABEL, read_event
from slipway.review.layout import printable
from slipway.review.report import Report, Stopped, read_report


class _Job(BaseModel):
    result: Literal["success", "failure", "cancelled", "skipped"]
    outputs: dict[str, str] | None = None


NEEDS = TypeAdapter(dict[str, _Job])
"""The context `needs` of the workflow, as the variable NEEDS holds it."""


def check(environ: Mapping[str, str], report_path: Path) -> str:
    """Say why HEAD may be merged, in a sentence.

    Raises CheckFailed, with the sentence that says what to do, where a job failed or did not run though `changes` gave
    it work, or where the model is held or was not judged at this commit; InputError where there is no report to tell.
    """
    jobs = _needs(environ)
    wanted = jobs["changes"].outputs or {}
    others = {name: job for name, job in jobs.items() if name not in ("changes", "model")}
    _must_have_done("changes", jobs["changes"], wanted=True)
    for name, job in others.items():
        _must_have_done(name, job, wanted=_is_wanted(wanted, name))
    ran = sorted(name for name in others if _is_wanted(wanted, name))
    done = f"{' and '.join(ran)} succeeded" if ran else "no other job had work"
    if not _is_wanted(wanted, "model"):
        return f"May be merged: nothing that the model depends on has changed, and {done}."
    if jobs["model"].result == "failure" and report_path.is_file():
        _verdict(read_report(report_path))  # where it stopped says more than that the job failed
    _must_have_done("model", jobs["model"], wanted=True)
    return f"May be merged: {_judged(read_report(report_path), environ)}, and {done}."


def _needs(environ: Mapping[str, str]) -> dict[str, _Job]:
    try:
        jobs = NEEDS.validate_json(environ.get("NEEDS", ""))
    except ValidationError:
        jobs = {}
    if not {"changes", "model"} <= jobs.keys():
        raise InputError(
            "NEEDS does not tell of the jobs `changes` and `model`; give it toJSON(needs) in the workflow."
        )
    return jobs


def _is_wanted(wanted: Mapping[str, str], job: str) -> bool:
    """Whether `changes` gave work to the job; where it said nothing, the job should have run."""
    return wanted.get(job) != "false"


def _must_have_done(name: str, job: _Job, *, wanted: bool) -> None:
    if job.result == "success" or (job.result == "skipped" and not wanted):
        return
    result = {"failure": "failed", "cancelled": "was cancelled"}.get(job.result, "was skipped though it had work")
    raise CheckFailed(f"The job `{name}` {result}; look at its log, mend what it names, and push, or run it again.")


def _judged(report: Report, environ: Mapping[str, str]) -> str:
    """Why the model may be merged; raises CheckFailed where it may not."""
    head = process.run("git", "rev-parse", "HEAD")
    if report.lineage.commit != head:
        raise CheckFailed(
            f"The report is on commit {report.lineage.commit:.12} and this is {head:.12}; run the whole workflow again."
        )
    verdict = _verdict(report)
    if not report.held:
        return f"the verdict is {verdict.verdict}"
    event = read_event(environ)
    reason = printable(verdict.reason)  # a log takes some lines for commands
    if event is None or event.override is None:
        raise CheckFailed(
            f"The model is held ({reason}); push a better one, or have a maintainer put the label {LABEL} on the pull "
            "request, which counts for the commit that it is put on: where it is on already, take it off and put it on."
        )
    return f"the model is held ({reason}), and {event.override.by} has put the label {LABEL} on this commit"


def _verdict(report: Report) -> Verdict:
    if report.judged:
        return report.judged.verdict
    stopped = report.stopped or Stopped(stage="judge", words="it says nothing")
    stage, words = printable(stopped.stage), printable(stopped.words)
    raise CheckFailed(f"There is no verdict, because `{stage}` stopped ({words}); mend that and push.")

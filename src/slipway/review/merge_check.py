"""Decide whether a change may be merged. This module is the required check of a pull request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from slipway.artifacts import Verdict
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.review.event import LABEL, current_event
from slipway.review.layout import printable
from slipway.review.report import Report, Stopped, read_report


class _Job(BaseModel):
    result: Literal["success", "failure", "cancelled", "skipped"]
    outputs: dict[str, str] | None = None


NEEDS = TypeAdapter(dict[str, _Job])
"""The results of the workflow's other jobs. The workflow passes its context `needs` in the variable NEEDS."""


def check_merge(environ: Mapping[str, str], report_path: Path) -> str:
    """Return a sentence that explains why HEAD may be merged.

    Raises CheckFailed if a job failed or was skipped despite having work, if this commit has no verdict, or if the
    model is held. A held model passes if a maintainer overruled the gate, or if the change touches no file that the
    pipeline reads. A held model also passes if the data of its delivery may be merged without the model. Raises
    InputError if the report is missing or not valid.
    """
    jobs = _read_needs(environ)
    outputs = jobs["changes"].outputs or {}
    others = {name: job for name, job in jobs.items() if name not in ("changes", "model")}
    _check_job("changes", jobs["changes"], had_work=True)
    for name, job in others.items():
        _check_job(name, job, had_work=_had_work(outputs, name))
    ran = sorted(name for name in others if _had_work(outputs, name))
    succeeded = f"{' and '.join(ran)} succeeded" if ran else "no other job had work"
    if not _had_work(outputs, "model"):
        return f"May be merged: nothing that the model depends on has changed, and {succeeded}."
    if jobs["model"].result == "failure" and report_path.is_file():
        _verdict(read_report(report_path))  # raises the stage's error, which is more precise than the job's result
    _check_job("model", jobs["model"], had_work=True)
    return f"May be merged: {_check_model(read_report(report_path), environ)}, and {succeeded}."


def _read_needs(environ: Mapping[str, str]) -> dict[str, _Job]:
    try:
        jobs = NEEDS.validate_json(environ.get("NEEDS", ""))
    except ValidationError:
        jobs = {}
    if not {"changes", "model"} <= jobs.keys():
        raise InputError("NEEDS lacks the jobs `changes` and `model`; set it to toJSON(needs) in the workflow.")
    return jobs


def _had_work(outputs: Mapping[str, str], job: str) -> bool:
    """Return whether `job` had to run. Return False only if the job `changes` has the output "false" for this job."""
    return outputs.get(job) != "false"


def _check_job(name: str, job: _Job, *, had_work: bool) -> None:
    if job.result == "success" or (job.result == "skipped" and not had_work):
        return
    result = {"failure": "failed", "cancelled": "was cancelled"}.get(job.result, "was skipped although it had work")
    raise CheckFailed(f"The job `{name}` {result}; see its log, fix the cause, and push or run the job again.")


def _check_model(report: Report, environ: Mapping[str, str]) -> str:
    """Return why the verdict on the model allows the merge.

    Raise CheckFailed if the verdict does not allow the merge.
    """
    head = process.run("git", "rev-parse", "HEAD")
    if report.revision.commit != head:
        raise CheckFailed(
            f"The report is on commit {report.revision.commit:.12}, but HEAD is {head:.12}; run the whole workflow "
            "again."
        )
    verdict = _verdict(report)
    if not report.held:
        return f"the verdict is {verdict.verdict}"
    event = current_event(environ)
    held = f"the model is held ({printable(verdict.reason)})"  # GitHub interprets some lines of a log as commands
    if event and event.override:
        return f"{held}, but {event.override.by} added the label {LABEL} to this commit"
    if not report.changes.model:
        return f"{held}, as on main, because this change touches nothing that the pipeline reads"
    if report.lands:
        return f"{held}, so only the data is merged, the champion stays, and nothing is released"
    and_data = f", and its data does not land because {printable(report.waits)}" if report.waits else ""
    raise CheckFailed(
        f"T{held[1:]}{and_data}; push a better one, or let a maintainer add the label {LABEL}. The label counts only "
        "for the commit that it is added to. If the pull request has it already, remove it and add it again."
    )


def _verdict(report: Report) -> Verdict:
    if report.result:
        return report.result.verdict
    stopped = report.stopped or Stopped(stage="reproduce", reason="no reason given")
    stage, reason = printable(stopped.stage), printable(stopped.reason)
    raise CheckFailed(f"There is no verdict, because `{stage}` stopped ({reason}); fix that and push.")

"""The verbs of a pull request: changes, reproduce, report, push-charts, comment, rerun-checks, merge-check."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, from_start, output, say
from slipway.review.report import REPORT

if TYPE_CHECKING:
    from slipway.review.comment import PostResult

Base = Annotated[
    str | None,
    typer.Option(envvar="SLIPWAY_BASE", help="Commit or branch to compare with. Default: origin/main, else main."),
]
ReportFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="Directory with the report of a workflow run. Untrusted input.", callback=from_start
    ),
]


@app.command(epilog=EXIT_CODES)
def changes(base: Base = None) -> None:
    """List the jobs of the pull request's workflow, and whether each has to run.

    Reads git and dvc.yaml. In a workflow, writes `test`, `model` and `image` (true or false) to GITHUB_OUTPUT.
    """
    from slipway.review.changes import JOBS, find_changes

    found = find_changes(base)
    work = {job: bool(getattr(found, job)) for job in JOBS}
    output({job: str(has_work).lower() for job, has_work in work.items()})
    for job, has_work in work.items():
        say(job, "has work" if has_work else "no work: nothing that it depends on has changed")


@app.command(epilog=EXIT_CODES)
def reproduce(base: Base = None) -> None:
    """Re-run the pipeline from the base branch's dvc.lock, ignoring results committed in the pull request.

    Reads git and the DVC remote. Writes the outputs of the pipeline and dvc.lock, or build/stopped.json if a stage
    fails. In a workflow, writes `upload` to GITHUB_OUTPUT. `upload` is true if the bundle cannot be pushed to the DVC
    remote, so that the workflow run has to upload it. Exits 1 if there is no verdict, or if the pull request changes
    champion.dvc or metrics/release.json.
    """
    from slipway.integrations.dvc import embedded_remote
    from slipway.review.reproduce import reproduce as run

    run(base)
    output({"upload": str(embedded_remote() is not None).lower()})


@app.command(epilog=EXIT_CODES)
def report(base: Base = None) -> None:
    """Write the report that a reviewer reads.

    Reads the outputs of the pipeline, git and DVC. Writes report.json, report.md, report.html and the charts to
    build/report/. In a workflow, also reads the event, and writes the summary of the job.
    """
    from slipway.review.build_report import build_report
    from slipway.review.render import render

    folder = render(build_report(base, os.environ, lambda text: say("report", text)), os.environ)
    say("report", f"written to {folder}/report.html and report.md")


@app.command(epilog=EXIT_CODES)
def push_charts(folder: ReportFolder) -> None:
    """Push the charts of a workflow run's report to the branch `reports`, from which the comment shows them.

    Reads the file report.json in FOLDER, and GITHUB_TOKEN. The event `workflow_run`, or the input `run` of
    `workflow_dispatch`, names the workflow run. In a workflow, writes the address of the charts to GITHUB_OUTPUT as
    `charts`. Exits 1 if the report does not belong to the pull request that it names.
    """
    from slipway.review import comment

    pushed = comment.push_charts(folder, os.environ)
    output({"charts": pushed.address or ""})
    _say_posted("charts", pushed)


@app.command(epilog=EXIT_CODES)
def comment(
    folder: ReportFolder,
    charts: Annotated[
        str | None, typer.Option(envvar="SLIPWAY_CHARTS", help="Address that `slipway push-charts` returned.")
    ] = None,
) -> None:
    """Post the report of a workflow run as a comment on its pull request, or update the comment.

    Reads the file report.json in FOLDER, and GITHUB_TOKEN. The event `workflow_run`, or the input `run` of
    `workflow_dispatch`, names the workflow run. Writes the comment with CML, or with GitHub's API if CML fails. Exits 1
    if the report does not belong to the pull request that it names, or if the comment cannot be posted.
    """
    from slipway.review.comment import post

    _say_posted("comment", post(folder, os.environ, charts or None))


def _say_posted(step: str, posted: "PostResult") -> None:
    for warning in posted.warnings:
        say("warning", escape(warning))
    say(step, escape(" ".join(filter(None, (posted.sentence, posted.address)))))


@app.command(epilog=EXIT_CODES)
def rerun_checks() -> None:
    """Run the checks of a pull request again after its label `ship-anyway` has changed.

    Reads the event `pull_request` and GITHUB_TOKEN. Cancels the last run of the workflow `Pull request` if it has not
    ended, and starts that run again. Exits 1 if GitHub refuses a request, for example for a pull request from a fork.
    """
    from slipway.review.rerun_checks import rerun

    say("rerun", escape(rerun(os.environ)))


@app.command(epilog=EXIT_CODES)
def merge_check(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="REPORT", help=f"Path of the report. Default: {REPORT}.", callback=from_start),
    ] = None,
) -> None:
    """Check whether the pull request may be merged. This is the required check.

    Reads the report, the event, and the results of the other jobs (from NEEDS). Exits 1 if a job failed, if there is no
    verdict on this commit, or if the model is held. A held model passes in three cases: a maintainer added the label
    ship-anyway, ingest.when_held allows merging the data of a delivery, or the pipeline reads none of the changed
    files.
    """
    from slipway.review.merge_check import check_merge

    say("pass", escape(check_merge(os.environ, path or REPORT)))

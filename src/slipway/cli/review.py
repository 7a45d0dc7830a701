"""The verbs of a pull request."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, say
from slipway.review.report import REPORT

Base = Annotated[
    str | None,
    typer.Option(envvar="SLIPWAY_BASE", help="What the change is compared with. Default: origin/main, or main."),
]


@app.command(epilog=EXIT_CODES)
def changes(base: Base = None) -> None:
    """Say which jobs of a pull request have work to do.

    Reads git, dvc.yaml. Writes `test=true` and the like to the file that GITHUB_OUTPUT names, if there is one.
    """
    from slipway.review import changes as step

    changed = step.run(base, os.environ)
    for job in step.JOBS:
        say(job, "has work" if getattr(changed, job) else "nothing that it depends on has changed")


@app.command(epilog=EXIT_CODES)
def reproduce(base: Base = None) -> None:
    """Run the pipeline as a pull request does, whatever the change says of itself.

    Reads the stages that the base knows, and what has changed since. Writes what the pipeline writes, and dvc.lock;
    where it stops, build/stopped.json. Exits 1 if there is no verdict, or if the change is a release's (champion.dvc).
    """
    from slipway.review import reproduce as step

    step.judge(base)


@app.command(epilog=EXIT_CODES)
def report(base: Base = None) -> None:
    """Write what a reviewer decides from.

    Reads what the pipeline wrote, git, DVC; in a workflow, the event. Writes build/report/: report.json, report.md,
    report.html and the charts; in a workflow, the summary of the job too.
    """
    from slipway.review import render

    folder = render.write(base, os.environ)
    say("report", f"{folder}/report.html, and report.md beside it")


@app.command(epilog=EXIT_CODES)
def comment(
    folder: Annotated[Path, typer.Argument(help="Where the report of the run lies; nothing in it is trusted.")],
) -> None:
    """Post the report of a run on its pull request, as one comment that is updated.

    Reads report.json in the folder, the event `workflow_run`, GITHUB_TOKEN; CML posts, or else GitHub's API. Writes the
    comment, and the charts to the branch `reports`. Exits 1 if the report is not of the pull request that it names, or
    if it could not be posted.
    """
    from slipway.review.comment import post

    posted = post(folder, os.environ)
    for warning in posted.warnings:
        say("warning", escape(warning))
    say("comment", escape(" ".join(filter(None, (posted.words, posted.address)))))


@app.command(epilog=EXIT_CODES)
def merge_check(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="The report of this run.")] = REPORT,
) -> None:
    """The required check: say whether what was judged may be merged.

    Reads NEEDS (the results of the other jobs), the report, the event. Writes nothing. Exits 1, and says what to do, if
    a job failed, if there is no verdict on this commit, or if the model is held and no maintainer has overruled that.
    """
    from slipway.review.merge_check import check

    say("pass", escape(check(os.environ, path)))

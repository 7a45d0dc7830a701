"""The verbs that watch for data."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, from_start, out, read_params, say, today
from slipway.contract import load_model

if TYPE_CHECKING:
    from slipway.monitoring.ingest import Arrivals


@app.command(epilog=EXIT_CODES)
def ingest(
    name: Annotated[str | None, typer.Argument(help="The delivery; default: the oldest that is new and fit.")] = None,
) -> None:
    """Take in a delivery from the source.

    Reads ingest.source of params.yaml, any address of fsspec's. Writes the delivery to data/, whole or not at all, and
    data.dvc; the rows at fault to build/quarantine.csv. Deliveries that are not fit to be used, or that changed after
    they were taken in, are left and told of. Exits 1 or 2 if no other was taken in; 0 if there is none.
    """
    from slipway.monitoring.ingest import ingest as take_in

    arrivals = take_in(read_params(), load_model(), today(), wanted=[name] if name else [])
    _say_arrivals(arrivals)
    if arrivals.refused and not arrivals.taken:
        raise arrivals.refused[0]


@app.command(epilog=EXIT_CODES)
def decay(
    name: Annotated[str | None, typer.Argument(metavar="DELIVERY", help="Default: the newest in data/.")] = None,
) -> None:
    """Score the live model on a delivery, against what it did at its release.

    Reads data/, champion/, metrics/release.json. Writes build/decay.json. Exits 1 if it has decayed by more than
    decay.* of params.yaml allows.
    """
    from slipway.monitoring import decay as step

    found = step.run(read_params(), load_model(), today(), name)
    out.print(step.decay_table(found))
    if found.trained_on:
        say("", f"[dim]{found.trained_on:,} rows that it was trained on are left out[/]")
    say("decay", f"{'[bold red]ALARM[/]' if found.alarm else '[bold green]NO ALARM[/]'}: {escape(found.reason)}")
    if found.alarm:
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def drift(
    prometheus: Annotated[str | None, typer.Option(metavar="URL", help="Default: drift.prometheus.")] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(help="File with the output of /metrics. Repeat it for each replica.", callback=from_start),
    ] = None,
    delivery: Annotated[str | None, typer.Option(metavar="NAME", help="A delivery in data/.")] = None,
    window: Annotated[str | None, typer.Option(help="How far back Prometheus is asked: 12h, 7d.")] = None,
    token: Annotated[str | None, typer.Option(envvar="SLIPWAY_PROMETHEUS_TOKEN", help="Of Prometheus.")] = None,
) -> None:
    """Compare what the live model was asked, and answered, with its training.

    Reads champion/, and one source: Prometheus, pages of /metrics, or a delivery. Writes build/drift.json. Exits 1 if a
    feature or the prediction has moved by more than drift.* of params.yaml allows.
    """
    from slipway.monitoring import drift as step
    from slipway.monitoring.drift_sources import Named

    named = Named(prometheus, tuple(metrics or ()), delivery, window, token)
    found = step.run(read_params().drift, named, today())
    out.print(step.drift_table(found))
    say("drift", f"{'[bold red]ALARM[/]' if found.alarm else '[bold green]NO ALARM[/]'}: {escape(found.reason)}")
    if found.alarm:
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def open_data_pr() -> None:
    """Open a pull request for the oldest delivery that nobody has proposed.

    Reads main of origin, the source, GITHUB_TOKEN. Writes the DVC remote, a branch `delivery/...` and its pull request.
    Exits 1 or 2 if what waits is not fit to be taken in.
    """
    from slipway.monitoring.open_data_pr import propose as run

    for done in run(read_params(), load_model(), today(), os.environ):
        say("open-data-pr", escape(done))


@app.command(epilog=EXIT_CODES)
def follow_data_prs() -> None:
    """Start the checks of open delivery pull requests, wait for them, then start the workflow Comment.

    For repositories without a GitHub App: GitHub starts no workflow for what a workflow's own token opens. Reads
    GITHUB_TOKEN. Writes nothing here. Exits 1 if the checks cannot be started, or take too long.
    """
    from slipway.monitoring.follow_data_prs import follow

    for done in follow(os.environ):
        say("follow", escape(done))


@app.command(epilog=EXIT_CODES)
def auto_merge() -> None:
    """Merge the pull request of a delivery whose run has ended, if it is green and just what the source delivered.

    Reads the event `workflow_run`, or the input `run` of `workflow_dispatch`, the source and GITHUB_TOKEN. Writes the
    merge, and starts the workflow Ship if SLIPWAY_DISPATCH is `true`. Exits 1 if a delivery's branch has other changes.
    """
    from slipway.monitoring.auto_merge import merge as run

    say("auto-merge", escape(run(read_params(), load_model(), today(), os.environ)))


@app.command(epilog=EXIT_CODES)
def monitor() -> None:
    """Look at decay and drift of the live model, and keep one issue for its alarms.

    Reads main, the source, Prometheus where PROMETHEUS_URL or params.yaml names it. Writes the issue where GITHUB_TOKEN
    is set (opens, tells again, closes), and starts the workflow New data on an alarm. Exits 0 with an alarm too; 2 if
    something could not be looked at.
    """
    from slipway.monitoring.alert_issue import monitor as run

    for done in run(read_params(), load_model(), today(), os.environ):
        say("monitor", escape(done))


def _say_arrivals(arrivals: "Arrivals") -> None:
    for arrival in arrivals.taken:
        counts = arrival.counts
        say("ingest", f"{arrival.name} taken in: {counts.accepted:,} rows accepted, {counts.quarantined:,} quarantined")
    for error in arrivals.refused[0 if arrivals.taken else 1 :]:
        say("left", escape(str(error)))
    if not arrivals.taken and not arrivals.refused:
        say("ingest", "the source has no new delivery")

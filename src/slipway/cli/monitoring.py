"""The verbs for new data and monitoring, such as ingest, open-data-pr, decay, drift and monitor."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, engine_of, from_start, out, read_params, say, today
from slipway.contract import load_model

if TYPE_CHECKING:
    from slipway.monitoring.ingest import IngestResult


@app.command(epilog=EXIT_CODES)
def ingest(
    name: Annotated[
        str | None,
        typer.Argument(metavar="DELIVERY", help="Name of the delivery. Default: the oldest new valid delivery."),
    ] = None,
) -> None:
    """Ingest the next delivery from the source.

    Reads the source that ingest.source in params.yaml names: any address that fsspec supports, or a database if
    ingest.query is set. Writes the delivery to data/, its hash to data.dvc, and rejected rows to build/quarantine.csv.
    Lists and skips deliveries that are invalid, must be renamed, or changed after they were ingested. If it ingests
    nothing, the first skipped delivery sets the exit code: 1 for a failed check, 2 for an unusable file or file name.
    """
    from slipway.monitoring.ingest import ingest as run
    from slipway.monitoring.open_source import open_source

    params, model = read_params(), load_model()
    result = run(params, model, today(), open_source(params, model, os.environ), wanted=[name] if name else [])
    _say_ingested(result)
    if result.skipped and not result.ingested:
        raise result.skipped[0]


@app.command(epilog=EXIT_CODES)
def decay(
    name: Annotated[
        str | None, typer.Argument(metavar="DELIVERY", help="Name of the delivery. Default: the newest in data/.")
    ] = None,
) -> None:
    """Check for decay: compare the champion's loss on a delivery with its loss at its release.

    Reads data/, champion/ and metrics/release.json. Writes build/decay.json. Exits 1 if the champion has decayed by
    more than the section `decay` of params.yaml allows.
    """
    from slipway.monitoring import decay as step

    params, model = read_params(), load_model()
    found = step.run(params, model, lambda: step.delivered_rows(params, model, today()), name)
    out.print(step.decay_table(found))
    for count, what in ((found.trained_on, "trained on"), (found.judged_on, "judged on at its release")):
        if count:
            say("", f"[dim]{count:,} rows that it was {what} are left out[/]")
    say("decay", f"{'[bold red]ALARM[/]' if found.alarm else '[bold green]NO ALARM[/]'}: {escape(found.reason)}")
    if found.alarm:
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def drift(
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of Prometheus. Default: drift.prometheus.")
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(help="File with the output of /metrics. Repeat the option for each replica.", callback=from_start),
    ] = None,
    delivery: Annotated[str | None, typer.Option(metavar="NAME", help="Name of a delivery in data/.")] = None,
    log: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address of the shipped prediction log.")] = None,
    window: Annotated[
        str | None, typer.Option(help="Time range of Prometheus or the log, such as 12h. Default: drift.window.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="SLIPWAY_PROMETHEUS_TOKEN", help="Bearer token for Prometheus.")
    ] = None,
) -> None:
    """Check for drift: compare the champion's requests and predictions with its training data.

    Reads champion/ and one source: Prometheus, files with the output of /metrics, a delivery, or a prediction log.
    Writes build/drift.json. Exits 1 if a feature or the prediction has drifted by more than the section `drift` of
    params.yaml allows.
    """
    from slipway.monitoring import drift as step
    from slipway.monitoring.drift_sources import DriftSource

    source = DriftSource(prometheus, tuple(metrics or ()), delivery, window, token, log)
    found = step.run(read_params().drift, source, today())
    out.print(step.drift_table(found))
    say("drift", f"{'[bold red]ALARM[/]' if found.alarm else '[bold green]NO ALARM[/]'}: {escape(found.reason)}")
    if found.alarm:
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def open_data_pr() -> None:
    """Open a pull request for the oldest delivery that has no pull request yet.

    Reads `main` of origin, the source of deliveries and GITHUB_TOKEN. Writes the data to the DVC remote. Creates a
    branch `delivery/...` and its pull request. If it opens no pull request, the first skipped delivery sets the exit
    code: 1 for a failed check, 2 for an unusable file or file name.
    """
    from slipway.monitoring.open_data_pr import propose as run

    for done in run(read_params(), load_model(), today(), os.environ):
        say("open-data-pr", escape(done))


@app.command(epilog=EXIT_CODES)
def follow_data_prs() -> None:
    """Start the checks for each delivery's pull request, wait until they end, and then start the workflow Comment.

    Only repositories without a GitHub App need this verb. GitHub starts no workflow for a pull request that a workflow
    has opened with its own token. Reads GITHUB_TOKEN. Writes no files. Exits 1 if the checks cannot be started, or take
    too long.
    """
    from slipway.monitoring.follow_data_prs import follow

    for done in follow(os.environ):
        say("follow", escape(done))


@app.command(epilog=EXIT_CODES)
def auto_merge() -> None:
    """Merge a delivery's pull request if its checks passed and it contains exactly the files from the source.

    Reads GITHUB_TOKEN and the source of deliveries. The event `workflow_run`, or the input `run` of
    `workflow_dispatch`, names the workflow run that checked the pull request. Merges the data of a held model only if
    ingest.when_held is `land`. If SLIPWAY_DISPATCH is `true`, also starts the workflow `Ship`. Exits 1 if the pull
    request contains a change that is not part of the delivery.
    """
    from slipway.monitoring.auto_merge import merge as run

    say("auto-merge", escape(run(read_params(), load_model(), today(), os.environ)))


@app.command(epilog=EXIT_CODES)
def monitor() -> None:
    """Check the champion for decay and drift, and keep one GitHub issue for the alarms.

    Reads `main`, the source of deliveries, and Prometheus if PROMETHEUS_URL or params.yaml names it. Without
    Prometheus, detects drift in the prediction log of the section `live`, if params.yaml has that section. With
    GITHUB_TOKEN, opens, updates or closes the issue, and starts the workflow `New data` if there is an alarm. Exits 0
    even if there is an alarm, and 2 if a check could not run.
    """
    from slipway.monitoring.alert_issue import monitor as run

    params = read_params()
    for done in run(params, load_model(), today(), os.environ, engine_of(params)):
        say("monitor", escape(done))


def _say_ingested(result: "IngestResult") -> None:
    for delivery in result.ingested:
        noun = "keys" if delivery.counts.lists_keys else "rows"
        rows = f"{delivery.counts.accepted:,} {noun} accepted, {delivery.counts.quarantined:,} quarantined"
        say("ingest", f"{delivery.name} ingested: {rows}")
        for note in delivery.counts.notes:
            say("", escape(note))
    for name in result.recorded:
        say("ingest", f"{escape(name)} was in data/ already, and is now recorded in data.dvc")
    for error in result.skipped[0 if result.ingested else 1 :]:
        say("skipped", escape(str(error)))
    for file, reason in result.not_taken.items():
        say("", f"{escape(file)} is not taken, because {escape(reason)}")
    if not result.ingested and not result.skipped and not result.recorded:
        say("ingest", "the source has no new delivery")

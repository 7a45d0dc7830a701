"""The verbs for new data and monitoring, such as `slipway ingest` and `slipway drift`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import (
    EXIT_CODES,
    address_from_start,
    app,
    engine_of,
    from_start,
    out,
    read_params,
    say,
    say_reasons,
    today,
)
from slipway.contract import load_model

if TYPE_CHECKING:
    from slipway.monitoring.ingest import IngestResult


@app.command(epilog=EXIT_CODES)
def ingest(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="DELIVERY",
            help="Name of the delivery to ingest. Default: the oldest valid delivery that is not in data/ yet.",
        ),
    ] = None,
) -> None:
    """Ingest the next delivery (a batch of labelled rows) from the source.

    Reads the source at the address ingest.source of params.yaml: a folder, a bucket or, if ingest.query is set, a
    database. Writes the delivery to data/, the new hash of data/ to data.dvc, and the rejected rows to
    build/quarantine.csv. Skips and lists each delivery that is invalid, that has an invalid name, or that changed after
    it was ingested. Exits 0 if it ingests a delivery, or if there is no new delivery. If it only skips deliveries, the
    exit code is that of the first skipped delivery: 1 for a failed check, 2 for an unusable file.
    """
    from slipway.monitoring.ingest import ingest as run
    from slipway.monitoring.open_source import open_source

    params, model = read_params(), load_model()
    source = open_source(params, model, today(), os.environ)
    result = run(params, model, today(), source, wanted=[name] if name else [])
    _say_ingested(result)
    if result.skipped and not result.ingested:
        raise result.skipped[0]


@app.command(epilog=EXIT_CODES)
def decay(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="DELIVERY", help="Name of the delivery to check. Default: the newest delivery in data/."
        ),
    ] = None,
) -> None:
    """Check for decay: compare the champion's loss on a delivery with the champion's loss at its release.

    Reads data/, champion/ and metrics/release.json. Writes build/decay.json. Exits 1 if the loss has grown by more than
    the section `decay` of params.yaml allows, and 2 if the check cannot run.
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
        str | None, typer.Option(metavar="URL", help="Address of Prometheus. Default: drift.prometheus in params.yaml.")
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with the output of /metrics from one server. Repeat the option for each server.",
            callback=from_start,
        ),
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of a delivery in data/. Its rows are checked instead of requests."),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address of a prediction log from `slipway ship-log`.", callback=address_from_start
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Time range of Prometheus or the log, such as 12h for 12 hours. Default: drift.window in params.yaml."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="SLIPWAY_PROMETHEUS_TOKEN", help="Bearer token for Prometheus. Default: no token."),
    ] = None,
) -> None:
    """Check for drift: compare the champion's requests and predictions with its training data.

    Reads champion/ and one source of rows. The source is Prometheus by default. The options select another source: a
    delivery, a prediction log, or files with the output of /metrics. Writes build/drift.json. Exits 1 if a feature or
    the prediction has drifted by more than the section `drift` of params.yaml allows.
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

    Reads `main` of origin, the source of deliveries and GITHUB_TOKEN. Writes the data to the DVC remote. Pushes a
    branch `delivery/...`, and opens its pull request. Exits 0 if it opens a pull request, or if there is no new
    delivery. If it only skips deliveries, the exit code is that of the first skipped delivery: 1 for a failed check, 2
    for an unusable file.
    """
    from slipway.monitoring.open_data_pr import propose as run

    for done in run(read_params(), load_model(), today(), os.environ):
        say("open-data-pr", escape(done))


@app.command(epilog=EXIT_CODES)
def follow_data_prs() -> None:
    """Start the checks of each delivery's pull request, wait for the results, and start the workflow `Comment`.

    Only a repository without a GitHub App needs this verb. Without an App, a workflow opens the pull requests with its
    own token, and GitHub starts no checks for such pull requests. Reads GITHUB_TOKEN. Writes no files. Exits 1 if the
    checks cannot be started, or take too long.
    """
    from slipway.monitoring.follow_data_prs import follow

    for done in follow(os.environ):
        say("follow", escape(done))


@app.command(epilog=EXIT_CODES)
def auto_merge() -> None:
    """Merge a delivery's pull request if its checks passed and its data equals the data in the source.

    Reads GITHUB_TOKEN, the source of deliveries, and the GitHub event, which names the workflow run that checked the
    pull request. Does nothing if ingest.auto_merge is false, if a check failed, or if the model is held and
    ingest.when_held is `wait`. If ingest.when_held is `land`, merges the data of a held model without releasing the
    model. If SLIPWAY_DISPATCH is `true`, also starts the workflow `Ship` after a merge. Exits 1 if a person must merge
    the pull request, for example because it changes other files.
    """
    from slipway.monitoring.auto_merge import merge as run

    say("auto-merge", escape(run(read_params(), load_model(), today(), os.environ)))


@app.command(epilog=EXIT_CODES)
def monitor() -> None:
    """Check the champion for decay and drift, and report alarms in one GitHub issue.

    Reads the working directory and the source of deliveries. If params.yaml has the section `live`, also reads the
    prediction log that this section names. Detects drift with Prometheus if PROMETHEUS_URL or drift.prometheus is set,
    otherwise with the prediction log. With GITHUB_TOKEN, opens, updates or closes the issue, and starts the workflow
    `New data` if there is an alarm. Exits 0 with or without an alarm, and 2 if a check could not run.
    """
    from slipway.monitoring.alert_issue import monitor as run

    params = read_params()
    for done in run(params, load_model(), today(), os.environ, engine_of(params)):
        say("monitor", escape(done))


def _say_ingested(result: "IngestResult") -> None:
    for delivery in result.ingested:
        noun = "key" if delivery.counts.lists_keys else "row"
        rows = f"{delivery.counts.accepted:,} {noun}s accepted, {delivery.counts.quarantined:,} quarantined"
        say("ingest", escape(f"{delivery.name} ingested: {rows}"))
        say_reasons(delivery.counts.reasons, noun)
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

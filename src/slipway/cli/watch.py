"""The verbs that watch for data."""

from typing import Annotated

import typer

from slipway.cli.terminal import EXIT_CODES, app, read_params, say, today
from slipway.contract import load_model


@app.command(epilog=EXIT_CODES)
def ingest(
    name: Annotated[str | None, typer.Argument(help="The delivery; default: the oldest new one.")] = None,
) -> None:
    """Take in a delivery from the source.

    Reads ingest.source of params.yaml. Writes the delivery to data/, whole or not at all, and data.dvc. Exits 1 if the
    delivery is not fit to be used or changed after it was taken in; 0 with nothing written if there is none.
    """
    from slipway.watch.arrival import ingest as take_in

    arrival = take_in(read_params(), load_model(), today(), name=name)
    if arrival is None:
        say("ingest", "the source has no new delivery")
    else:
        counts = arrival.counts
        say("ingest", f"{arrival.name} taken in: {counts.accepted:,} rows accepted, {counts.quarantined:,} quarantined")

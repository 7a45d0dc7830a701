"""The verbs for prediction logs: `slipway ship-log`, `slipway erase-log` and `slipway join`."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.cli.terminal import (
    EXIT_CODES,
    address_from_start,
    app,
    engine_of,
    from_start,
    out,
    read_params,
    say,
    today,
)
from slipway.config import MAX_DAYS
from slipway.contract import load_model
from slipway.errors import InputError

if TYPE_CHECKING:
    from slipway.pipeline.decay import AtRelease

MAX_PAUSE = 86_400
LogAddress = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS", help="Address of a prediction log from `slipway ship-log`.", callback=address_from_start
    ),
]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="SLIPWAY_PREDICTION_LOG_SECRET",
        help="Secret that the servers use to hash keys. Needed only if a KEY column has the mark `private`.",
    ),
]


@app.command(epilog=EXIT_CODES)
def ship_log(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder into which the server writes its prediction log.", callback=from_start
        ),
    ],
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            envvar="SLIPWAY_PREDICTION_LOG_ADDRESS",
            help="Address to ship the log to, such as s3://logs/houses.",
            callback=address_from_start,
        ),
    ],
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Ship repeatedly, with this pause, until SIGTERM. Default: ship once."),
    ] = None,
    keep_days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_DAYS,
            envvar="SLIPWAY_PREDICTION_LOG_KEEP_DAYS",
            help="Number of days of the log to keep. Older days are deleted at ADDRESS. Default: keep all days.",
        ),
    ] = None,
) -> None:
    """Ship the prediction log of a server: copy it to a bucket or a folder as Parquet files, by day and bundle.

    Reads the finished log files (segments) in FOLDER, and writes a Parquet file for each segment to ADDRESS. Deletes a
    segment after its Parquet file is complete. ADDRESS can be any address that fsspec supports. Without --every, exits
    2 if the storage fails. With --every, tries again, and exits 2 only if the storage fails after SIGTERM.
    """
    from slipway.integrations.log_store import LogStore
    from slipway.monitoring.erasures import delete_old_records
    from slipway.monitoring.ship_log import delete_expired, ship

    _check_shipping(folder, every)
    stop = None if every is None else StopSignal(every)
    store, cleaned = LogStore(address), None
    while True:
        last = stop is None or stop.has_arrived
        try:
            done = ship(folder, store, lambda text: say("ship-log", escape(text)))
            if done.segments or every is None:
                say("ship-log", f"{done.rows:,} rows in {done.segments:,} segments shipped")
            if cleaned != today():
                now = store.now()  # with a fast clock of this machine, days would be deleted too early
                delete_old_records(store, now)
                for expired in delete_expired(store, keep_days, now.date()) if keep_days is not None else ():
                    say("ship-log", f"{expired} deleted")
                cleaned = today()
        except InputError as error:
            if last:
                raise
            say("ship-log", escape(str(error)))
        if stop is None or last:
            return
        stop.wait()


class StopSignal:
    """SIGTERM, after which a verb finishes its work and ends.

    The signal is put into a queue. A handler cannot set a `threading.Event`: if the signal arrives while `wait` holds
    the lock of the event, the process waits for itself and never ends.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._signals: SimpleQueue[None] = SimpleQueue()
        signal.signal(signal.SIGTERM, lambda *_: self._signals.put(None))

    @property
    def has_arrived(self) -> bool:
        return not self._signals.empty()

    def wait(self) -> None:
        """Wait for the signal, at most for `pause` seconds."""
        with suppress(Empty):
            self._signals.put(self._signals.get(timeout=self._pause))


def _check_shipping(folder: Path, every: float | None) -> None:
    if every is not None and not 0 < every <= MAX_PAUSE:
        raise InputError(f"--every is {every:g}, but it must be more than 0 and at most {MAX_PAUSE:,} seconds.")
    if every is None and not folder.is_dir():  # with --every, the server may create the folder later
        raise InputError(f"{folder} is not a folder; name the one into which the server writes its prediction log.")


@app.command(epilog=EXIT_CODES)
def erase_log(
    address: LogAddress,
    key: Annotated[
        list[str],
        typer.Argument(metavar="COLUMN=VALUE...", help="Value of each KEY column of the model, such as customer=4711."),
    ],
    secret: Secret = None,
) -> None:
    """Erase all rows with one key from a prediction log that `slipway ship-log` has shipped.

    Reads and rewrites the files that contain the key. Also records the erasure at ADDRESS, so that `slipway ship-log`
    leaves out rows with this key later. Exits 1 if some files could not be searched: they are not part of a log, or
    they were written with other KEY columns.
    """
    from slipway.integrations.log_store import LogStore
    from slipway.monitoring.erase_log import erase

    values = dict(each.partition("=")[::2] for each in key)
    if len(values) < len(key) or not all("=" in each for each in key):
        raise InputError("Write the key as COLUMN=VALUE, with each column once.")
    done = erase(LogStore(address), values, secret)
    say("erase-log", f"{done.rows:,} rows removed from {done.files:,} of {done.searched:,} files")


@app.command(epilog=EXIT_CODES)
def join(
    address: LogAddress,
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS",
            help="Address of the labels: a CSV or Parquet file, a folder of such files, a database, or a Delta Lake "
            "table.",
            callback=address_from_start,
        ),
    ],
    query: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="SQL query that returns the labels. LABELS is then the URL of a database."),
    ] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="Read LABELS as a Delta Lake table. Default: read LABELS as files.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to copy the joined rows to, such as s3://logs/joined. Default: no copy.",
            callback=address_from_start,
        ),
    ] = None,
    secret: Secret = None,
) -> None:
    """Join a prediction log with labels that arrived later, and report the live performance of each bundle.

    Reads the log, the labels, params.yaml, champion/ and data/. Writes the results to build/live.json, and the rows
    with their true values to build/joined/. Exits 1 if the champion's predictions for logged requests differ from the
    logged predictions. Also exits 1 if the champion's loss has grown by more than the section `decay` of params.yaml
    allows. With --query, reads the credentials of the database from SLIPWAY_LABELS_USER and SLIPWAY_LABELS_PASSWORD.
    """
    from slipway.bundle import load_bundle
    from slipway.config import label_problem
    from slipway.integrations.label_source import LabelSource
    from slipway.integrations.log_store import LogStore
    from slipway.monitoring import join_log as step
    from slipway.monitoring.decay import decay_table, delivered_rows
    from slipway.monitoring.live_decay import champion_at_release
    from slipway.monitoring.live_text import live_tables, sentences

    if problem := label_problem(labels, query, delta):
        raise InputError(f"{problem[0].upper()}{problem[1:]}.")
    params, model = read_params(), load_model()
    source = LabelSource(labels, query, "delta" if delta else "files", os.environ)
    bundle = load_bundle(artifacts.CHAMPION) if artifacts.CHAMPION.is_dir() else None
    champion: AtRelease | str | None = None
    try:
        if bundle:
            champion = champion_at_release(params, model, lambda: delivered_rows(params, model, today()), bundle)
    except InputError as error:
        champion = str(error)
    live = step.run(
        params,
        model,
        today(),
        LogStore(address),
        source,
        bundle=bundle,
        secret=secret,
        champion=champion,
        to=LogStore(to) if to else None,
        engine=engine_of(params),
    )
    for table in live_tables(live):
        out.print(table)
    if live.decay and live.decay.found:
        out.print(decay_table(live.decay.found))
    for sentence in sentences(live):
        say("join", escape(sentence))
    if live.alarm:
        raise typer.Exit(1)

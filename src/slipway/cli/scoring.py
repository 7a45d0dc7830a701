"""The verb that scores files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from slipway import artifacts
from slipway.cli.terminal import EXIT_CODES, address_from_start, app, engine_of, from_start, out, read_params, say

if TYPE_CHECKING:
    from slipway.scoring.results import Summary


@app.command(epilog=EXIT_CODES)
def score(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Path or URL of a CSV or Parquet file, or of a folder of such files.",
            callback=address_from_start,
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT", help="Path or URL of the folder for the results.", callback=address_from_start
        ),
    ],
    bundle: Annotated[
        Path | None, typer.Option(help=f"Directory of the bundle. Default: {artifacts.CHAMPION}.", callback=from_start)
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Input column to copy to the output. Can be repeated. Default: copy only the key."
        ),
    ] = None,
) -> None:
    """Score files of any size with the champion: predict each row as the server would.

    Reads each file of INPUT that is new, or that has changed since it was scored. Writes the predictions as Parquet to
    OUTPUT/answers/, and the invalid rows with their reasons to OUTPUT/quarantine/. Also writes OUTPUT/manifests/ and
    OUTPUT/summary.json. After an interruption, the next run continues with the remaining files. Exits 1 if a file
    could not be scored at all. Invalid rows do not change the exit code.
    """
    from slipway.scoring import score as step

    bundle = bundle or artifacts.champion_path("merge a pull request to release one, or name a bundle with --bundle")
    summary = step.run(
        bundle,
        source,
        output,
        tuple(keep or ()),
        lambda part, done: say("score", escape(f"{part}: {done}")),
        engine_of(read_params()),
    )
    out.print(_drift_table(summary))
    step.check(summary)


def _drift_table(summary: "Summary") -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for head in ("PSI", "rows", "missing"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in summary.drift:
        title = f"{'prediction of ' if each.kind == 'prediction' else ''}{each.name}"
        date = " [dim]a date[/]" if each.kind == "date" else ""
        table.add_row(escape(title) + date, f"{each.psi:.3f}", f"{each.rows:,}", f"{each.missing:,}")
    return table

"""`slipway decay`: the live model on a delivery → build/decay.json."""

from datetime import date
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from slipway import artifacts
from slipway.artifacts import Release
from slipway.bundle import load_bundle
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.decay import DeliveryDecay, Measure, decay_on
from slipway.pipeline.evaluate import check_champion
from slipway.pipeline.validate import check_deliveries
from slipway.pipeline.verdict_text import number

DECAY = Path("build/decay.json")


class NothingNew(InputError):
    """A delivery has no row by which the live model can be judged."""


def run(params: Params, model: Model, today: date, name: str | None = None) -> DeliveryDecay:
    """Score the live model on a delivery of data/: the newest, or the one named.

    Raises InputError where that cannot be done; build/decay.json is then not there, so that nobody reads an old one.
    """
    DECAY.unlink(missing_ok=True)
    release = Release.read(artifacts.RELEASE)
    if release.champion is None:
        raise InputError(f"{artifacts.RELEASE} knows of no release, so there is no live model to decay; release one.")
    bundle = load_bundle(artifacts.CHAMPION)
    deliveries = list(check_deliveries(artifacts.DATA, model, today))
    name = name or deliveries[-1].name
    if name not in {each.name for each in deliveries}:
        raise InputError(f"{artifacts.DATA}/{name}.csv does not exist; name a delivery of {artifacts.DATA}/.")
    rows = pd.concat([each.accepted for each in deliveries], ignore_index=True)
    try:
        check_champion(bundle, release.champion)
        decay = decay_on(name, rows, bundle, release, params, model)
    except CheckFailed as error:  # exit code 1 must mean an alarm
        raise InputError(str(error)) from None
    if decay is None:
        raise NothingNew(
            f"The live model was trained, or judged at its release, on every row of {name}, so it cannot be judged "
            "there; name a newer delivery."
        )
    decay.write(DECAY)
    return decay


def decay_table(decay: DeliveryDecay) -> Table:
    """The loss and the bias on the whole, over time, and in each slice, the worst first."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    outputs = list(decay.whole.biases)
    heads = ["rows", "at release", "loss", "interval", ""]
    for output in outputs:
        heads += [f"bias{f' of {output}' if len(outputs) > 1 else ''}", "interval"]
    table.add_column(decay.delivery, overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for section in ((decay.whole,), decay.periods, decay.slices):
        for part in section:
            past = part.loss.at_release
            cells = [f"{part.rows:,}", "-" if past is None else number(past), *_cells(part.loss)]
            cells.append(f"{part.loss.value / past - 1:+.1%}" if past else "")
            for output in outputs:
                cells += _cells(part.biases[output])
            table.add_row(f"{f'{part.column} ' if part.column else ''}{part.value}", *cells)
        table.add_section()
    return table


def _cells(measure: Measure) -> tuple[str, str]:
    value, interval = number(measure.value), " to ".join(map(number, measure.interval or ())) or "-"
    return (f"[red]{value}[/]", f"[red]{interval}[/]") if measure.beyond else (value, interval)

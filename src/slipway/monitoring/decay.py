"""`slipway decay`: evaluate the champion on a delivery → build/decay.json."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from slipway import artifacts
from slipway.artifacts import Release
from slipway.bundle import load_bundle
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.decay import DeliveryDecay, Measure, decay_on
from slipway.pipeline.evaluate import check_champion
from slipway.pipeline.number_text import number
from slipway.pipeline.validate import accepted_rows, check_deliveries

DECAY = Path("build/decay.json")


class NoNewRows(InputError):
    """Error for a delivery in which each row was used to train the champion or to evaluate it at its release."""


@dataclass(frozen=True)
class DeliveredRows:
    """The deliveries in data/, in the order of their names, and their accepted rows."""

    names: tuple[str, ...]
    rows: pd.DataFrame


def delivered_rows(params: Params, model: Model, today: date) -> DeliveredRows:
    """Read the deliveries in data/. Raises InputError if a delivery cannot be read."""
    parts = list(check_deliveries(artifacts.DATA, model, params.validate_, today, artifacts.CHECKED))
    return DeliveredRows(
        tuple(dict.fromkeys(each.name for each in parts if not each.is_key_list)), accepted_rows(parts)
    )


def run(params: Params, model: Model, read: Callable[[], DeliveredRows], name: str | None = None) -> DeliveryDecay:
    """Evaluate the champion on the delivery `name` in data/. The default is the newest delivery.

    The function `read` returns the deliveries. Removes an earlier build/decay.json first. Raises InputError if the
    champion cannot be evaluated.
    """
    DECAY.unlink(missing_ok=True)
    release = Release.read(artifacts.RELEASE)
    if release.champion is None:
        raise InputError("No model is live yet; merge a pull request to release one.")
    bundle = load_bundle(artifacts.champion_path("merge a pull request to release one"))
    deliveries = read()
    name = name or deliveries.names[-1]
    if name not in deliveries.names:
        raise InputError(f"{artifacts.DATA}/ has no delivery {name}; name one that is in {artifacts.DATA}/.")
    try:
        check_champion(bundle, release.champion)
        decay = decay_on(name, deliveries.rows, bundle, release, params, model)
    except CheckFailed as error:  # exit code 1 is reserved for an alarm
        raise InputError(str(error)) from None
    if decay is None:
        raise NoNewRows(
            f"The champion was trained on every row of {name}, or judged on it at its release; name a newer delivery."
        )
    decay.write(DECAY)
    return decay


def decay_table(decay: DeliveryDecay) -> Table:
    """Return a table with loss and bias for all rows, each period and each slice. The worst slice is first.

    With several classes, each row has the class with the largest bias.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    has_classes = len(decay.whole.biases) > 1
    table.add_column(escape(decay.delivery), overflow="fold", min_width=12)
    for head in ("rows", "at\nrelease", "loss", "interval", "", "bias", "interval"):
        if head == "interval" or (head == "bias" and has_classes):
            table.add_column(head, justify="right", overflow="fold", min_width=8)
        else:  # a narrow terminal must not break a number, so the other columns take several lines
            table.add_column(head, justify="right", no_wrap=True)
    for section in ((decay.whole,), decay.periods, decay.slices):
        for part in section:
            past = part.loss.at_release
            cells = [f"{part.rows:,}", "-" if past is None else number(past), *_cells(part.loss)]
            cells.append(f"{part.loss.value / past - 1:+.1%}" if past else "")
            output, bias = max(part.biases.items(), key=lambda each: (each[1].beyond, abs(each[1].value)))
            value, interval = _cells(bias)
            cells += [f"{escape(output)}\n{value}" if has_classes else value, interval]
            table.add_row(escape(f"{f'{part.column} ' if part.column else ''}{part.value}"), *cells)
        table.add_section()
    return table


def _cells(measure: Measure) -> tuple[str, str]:
    value, interval = number(measure.value), " to ".join(map(number, measure.interval or ())) or "-"
    return (f"[red]{value}[/]", f"[red]{interval}[/]") if measure.beyond else (value, interval)

"""`slipway drift`: do people ask the live model what it was trained on? → build/drift.json."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from scipy.stats import chi2

from slipway import artifacts, config
from slipway.artifacts import Artifact
from slipway.bundle import FeatureReference, Reference, Schema, load_bundle
from slipway.monitoring.drift_sources import Named, read_reference
from slipway.monitoring.metric_counts import Asked, Rows
from slipway.statistics.psi import jensen_shannon, population_stability

DRIFT = Path("build/drift.json")

Ints = NDArray[np.int64]
Kind = Literal["feature", "date", "prediction"]


class Moved(Artifact):
    """How far one feature, or the prediction, lies from the training."""

    name: str
    what: Kind
    """A date is shown and never an alarm: rows that are asked for are newer than those of the training."""
    psi: float
    noise: float
    """What the population stability index of the same distribution stays below, drawn again."""
    jensen_shannon: float
    rows_before: int
    rows: int
    missing_before: float
    missing: float
    unseen: float | None
    """The share of values that the training did not know; None for numbers."""
    alarm: bool


class Drift(Artifact):
    champion: str
    trained_on: int
    rows: int
    alarm: bool
    reason: str
    moved: tuple[Moved, ...]
    """The farthest first."""


def run(rule: config.Drift, named: Named, today: date) -> Drift:
    """Compare what the champion was asked, by the source that is named, with its training.

    Raises InputError where that cannot be done; build/drift.json is then not there, so that nobody reads an old one.
    """
    DRIFT.unlink(missing_ok=True)
    bundle = load_bundle(artifacts.CHAMPION)
    reference = read_reference(bundle.path)
    asked = named.read(rule, bundle, reference, today)
    drift = compare(bundle.hash, bundle.schema, reference, asked, rule)
    drift.write(DRIFT)
    return drift


def compare(champion: str, schema: Schema, reference: Reference, now: Asked, rule: config.Drift) -> Drift:
    """The verdict: what has moved by more than matters, and by more than the noise."""
    dates = {column.name for column in schema.columns if column.type == "date"}
    pairs: list[tuple[str, Kind, FeatureReference, Rows]] = [
        *(
            (name, "date" if name in dates else "feature", each, now.features[name])
            for name, each in reference.features.items()
        ),
        *((name, "prediction", each, now.prediction[name]) for name, each in reference.prediction.items()),
    ]
    chance = (1 - rule.confidence) / (len(pairs) - len(dates))
    most = rule.psi if now.rows >= rule.minimum_rows else np.inf
    found = [_moved(*pair, most, chance) for pair in pairs]
    trained_on = found[-1].rows_before
    found.sort(key=lambda each: (each.what == "date", -each.psi))
    return Drift(
        champion=champion,
        trained_on=trained_on,
        rows=now.rows,
        alarm=any(each.alarm for each in found),
        reason=_reason(found, now.rows, trained_on, rule),
        moved=tuple(found),
    )


def noise(before: Ints, now: Ints, chance: float) -> float:
    """What the population stability index of two samples of the same distribution exceeds by this chance.

    Of n and m rows in B bins it is 1/n + 1/m times a chi-square variable with B - 1 degrees of freedom (Yurdakul,
    Statistical Properties of Population Stability Index, Western Michigan University, 2018).
    """
    unit = sum(1 / max(int(counts.sum()), 1) for counts in (before, now))
    return unit * float(chi2.isf(chance, len(before) - 1))


def drift_table(drift: Drift) -> Table:
    """Each feature and the prediction, the farthest first."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for head in ("PSI", "noise", "JS", "rows", "missing\nthen", "\nnow", "unseen", ""):
        table.add_column(head, justify="right", no_wrap=True)
    for each in drift.moved:
        table.add_row(
            escape(_named(each).removeprefix("the ")),
            f"[red]{each.psi:.3f}[/]" if each.alarm else f"{each.psi:.3f}",
            f"{each.noise:.3f}",
            f"{each.jensen_shannon:.3f}",
            f"{each.rows:,}",
            f"{each.missing_before:.1%}",
            f"{each.missing:.1%}",
            "" if each.unseen is None else f"{each.unseen:.1%}",
            "[red]moved[/]" if each.alarm else "[dim]a date[/]" if each.what == "date" else "",
        )
    return table


def _moved(name: str, what: Kind, before: FeatureReference, now: Rows, most: float, chance: float) -> Moved:
    unseen = [] if before.values is None else [0]
    old = np.array([*before.counts, *unseen, before.missing])
    new = np.array([*now.counts, now.missing])
    rows = int(new.sum())
    psi, floor = population_stability(old, new) if rows else 0.0, noise(old, new, chance)
    return Moved(
        name=name,
        what=what,
        psi=psi,
        noise=floor,
        jensen_shannon=jensen_shannon(old, new) if rows else 0.0,
        rows_before=sum(before.counts),
        rows=sum(now.counts),
        missing_before=before.missing / int(old.sum()),
        missing=now.missing / max(rows, 1),
        unseen=now.counts[-1] / max(rows, 1) if unseen else None,
        alarm=what != "date" and psi > max(most, floor),
    )


def _reason(found: Sequence[Moved], rows: int, trained_on: int, rule: config.Drift) -> str:
    if rows < rule.minimum_rows:
        return f"{rows:,} rows are too few to say; drift.minimum_rows asks for {rule.minimum_rows:,}"
    over = f"over {rows:,} rows, against {trained_on:,} of the training"
    most = f"drift.psi allows {rule.psi:g}"
    alarms = [f"{_named(each)} (PSI {each.psi:.3f}, noise up to {each.noise:.3f})" for each in found if each.alarm]
    if alarms:
        return f"{', '.join(alarms)} moved, {over}; {most}"
    farthest = found[0]
    beyond = ", which may be noise" if farthest.psi > rule.psi else ""
    return f"the farthest, {_named(farthest)}, has moved by a PSI of {farthest.psi:.3f}{beyond}, {over}; {most}"


def _named(each: Moved) -> str:
    return f"the prediction of {each.name}" if each.what == "prediction" else each.name

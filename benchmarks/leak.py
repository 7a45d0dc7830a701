"""Measure how often the gate takes an honest improvement for a leak, and which leaks it holds.

The data sets are those that scikit-learn brings or generates, with noise as real targets have, and real sales of the
sample. On each, models are improved in honest ways: three times the training rows, ten times the trees, trees instead
of a linear model, and one more feature, for each of the eight most important ones. All that the gate ships without
`gate.suspicious` count; with it, none may be held.

The leaks are features that are added to the same data: one computed from the target, the target with noise, and an
important feature that the newest delivery mostly lacks. Noise is a share of the standard deviation of the target, or of
the labels that are drawn anew. What is held and names the feature is found. Every leak that is computed or has up to 5%
of noise has to be found, and every feature that goes missing.

Takes about five minutes on two cores.

Run it with `python -m benchmarks.leak`.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from benchmarks.scratch import REPOSITORY, clone, console, exit_with, require
from slipway import artifacts
from slipway.artifacts import Contender, Evaluation, FeatureScore, Holdout, Release, Verdict
from slipway.config import Kind, Params, Task, load_params
from slipway.pipeline.gate import judge
from slipway.pipeline.importance import permutation_importance
from slipway.pipeline.single_feature import Sample, scores_alone
from slipway.statistics.metrics import naive_prediction, row_losses, summarise

Floats = NDArray[np.float64]

ROWS = 3_000
TRAINING = 0.6
TREES = 100
MOST_IMPORTANT = 8
NOISE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
CERTAIN = 0.05
"""Noise up to which every leak has to be found."""
LACKING = 0.8
"""Share of the newest delivery that lacks a feature."""
NEWEST = 6
"""The newest of so many deliveries of equal size."""
LEAST_HONEST = 100
LEAK = "leak"


@dataclass(frozen=True)
class Data:
    """A data set in random order: the first 60% of its rows are for training."""

    name: str
    kind: Kind
    frame: pd.DataFrame
    truth: Floats

    @property
    def split(self) -> int:
        return int(TRAINING * len(self.truth))

    @property
    def classes(self) -> int:
        return int(self.truth.max()) + 1 if self.kind == "classification" else 0

    @property
    def task(self) -> Task:
        return Task(kind=self.kind, loss="log_loss" if self.kind == "classification" else "mean_absolute_error")

    def with_feature(self, name: str, values: Floats) -> "Data":
        return Data(self.name, self.kind, self.frame.assign(**{name: values.astype(np.float32)}), self.truth)


@dataclass(frozen=True)
class Recipe:
    """How a model is fitted: which of its features, how many trees (none: a linear model), and on which rows."""

    without: str | None = None
    trees: int = TREES
    rows: float = 1.0


class Fitted:
    """A model, with its answers for the holdout."""

    def __init__(self, data: Data, recipe: Recipe) -> None:
        self.data, names = data, [name for name in data.frame if name != recipe.without]
        self.frame, rows = data.frame[names], int(data.split * recipe.rows)
        with threadpool_limits(1):
            self.model = _estimator(data.kind, recipe.trees).fit(self.frame[:rows], data.truth[:rows])
        self.holdout, self.truth = self.frame[data.split :], data.truth[data.split :]

    def predict(self, frame: pd.DataFrame) -> Floats:
        with threadpool_limits(1):
            if self.data.kind == "classification":
                return np.asarray(self.model.predict_proba(frame))
            return np.asarray(self.model.predict(frame))[:, None]

    @cached_property
    def answers(self) -> Floats:
        return self.predict(self.holdout)

    @cached_property
    def importance(self) -> dict[str, float]:
        return permutation_importance(self.predict, self.holdout, self.truth, self.data.task, 0)

    @cached_property
    def alone(self) -> dict[str, float]:
        training = Sample(self.frame[: self.data.split], self.data.truth[: self.data.split])
        names = list(self.frame)
        return scores_alone(training, Sample(self.holdout, self.truth), self.data.task, self.data.classes, names)


def _estimator(kind: Kind, trees: int) -> Any:
    settings = {"max_iter": trees, "early_stopping": False, "random_state": 0}
    if kind == "classification":
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        return HistGradientBoostingClassifier(**settings) if trees else linear
    return HistGradientBoostingRegressor(**settings) if trees else make_pipeline(StandardScaler(), Ridge())


def verdict(champion: Fitted | None, challenger: Fitted, params: Params) -> Verdict:
    """Judge as the gate does, with its own statistics of each feature."""
    data, truth = challenger.data, challenger.truth
    constant = naive_prediction(data.task.loss, data.kind, data.truth[: data.split], data.classes)
    answers = {"challenger": challenger.answers, "baseline": np.repeat(constant, len(truth), axis=0)}
    if champion:
        answers["champion"] = champion.answers
    losses = {name: row_losses(data.task.loss, truth, answer) for name, answer in answers.items()}
    columns = {f"{name}_loss": loss for name, loss in losses.items()}
    for name, answer in answers.items():
        columns |= {f"{name}_{index}": answer[:, index] for index in range(answer.shape[1])}
    contenders = {
        name: Contender(
            bundle=None if name == "baseline" else name,
            bytes=None,
            loss=float(losses[name].mean()),
            metrics=summarise(data.kind, truth, answer),
        )
        for name, answer in answers.items()
    }
    newest = np.arange(len(data.truth)) % NEWEST == NEWEST - 1
    missing = [data.frame[rows].isna().mean() for rows in (~newest, newest)]
    evaluation = Evaluation(
        loss=data.task.loss,
        holdout=Holdout(rows=len(truth), first=None, last=None),
        champion=contenders.get("champion"),
        challenger=contenders["challenger"],
        baseline=contenders["baseline"],
        slices=(),
        churn=None,
        features=tuple(
            FeatureScore(
                name=name,
                champion=champion.importance.get(name) if champion else None,
                challenger=rise,
                alone=challenger.alone[name],
                missing_before=float(missing[0][name]),
                missing_now=float(missing[1][name]),
            )
            for name, rise in challenger.importance.items()
        ),
        newest_delivery="the newest delivery",
    )
    rules = params.model_copy(update={"task": data.task})
    return judge(pd.DataFrame(columns), evaluation, Release(champion=None), rules)


@dataclass(frozen=True)
class Outcome:
    """What the gate gives of one improvement or leak: whether it ships unchecked, and the sign that holds it."""

    what: str
    data: str
    ships: bool
    sign: str | None = None
    named: bool = False


def outcome(what: str, champion: Fitted | None, challenger: Fitted, params: Params, feature: str = "") -> Outcome:
    decided = verdict(champion, challenger, params)
    ships = decided.may_ship or "too good to be true" in decided.reason
    signs = decided.suspicions if ships else ()
    named = bool(signs) and signs[0].feature == feature
    return Outcome(what, challenger.data.name, ships, signs[0].reason if signs else None, named)


def honest(data: Data, params: Params) -> Iterator[Outcome]:
    """Improve a model in honest ways."""
    whole = Fitted(data, Recipe())
    yield outcome("the first model", None, whole, params)
    yield outcome("three times the rows", Fitted(data, Recipe(rows=1 / 3)), whole, params)
    yield outcome("ten times the trees", Fitted(data, Recipe(trees=TREES // 10)), whole, params)
    yield outcome("trees, not linear", Fitted(data, Recipe(trees=0)), whole, params)
    important = sorted(whole.importance, key=lambda name: -whole.importance[name])
    for name in important[:MOST_IMPORTANT]:
        yield outcome("one more feature", Fitted(data, Recipe(without=name)), whole, params, name)


def leaky(data: Data, params: Params) -> Iterator[Outcome]:
    """Add leaks to the data, and a feature that the newest delivery lacks."""
    random = np.random.default_rng(1)
    champion = Fitted(data, Recipe())
    leaks = {"computed from the target": _computed(data)}
    leaks |= {f"the target with {noise:.0%} of noise": _noisy(data, noise, random) for noise in NOISE}
    for what, values in leaks.items():
        challenger = Fitted(data.with_feature(LEAK, values), Recipe())
        yield outcome(what, champion, challenger, params, LEAK)
        yield outcome(f"{what}, first model", None, challenger, params, LEAK)
    name = max(champion.importance, key=lambda each: champion.importance[each])
    newest = np.arange(len(data.truth)) % NEWEST == NEWEST - 1
    lacking = newest & (random.random(len(newest)) < LACKING)
    without = data.with_feature(name, np.where(lacking, np.nan, data.frame[name]))
    yield outcome(
        "missing in production", Fitted(without, Recipe(without=name)), Fitted(without, Recipe()), params, name
    )


def _computed(data: Data) -> Floats:
    """A feature that is another expression of the target, and not the same number."""
    if data.kind == "classification":
        return (data.truth * 7 + 3) % (data.classes * 7)
    return -np.log(data.truth - data.truth.min() + data.truth.std())


def _noisy(data: Data, noise: float, random: np.random.Generator) -> Floats:
    rows = len(data.truth)
    if data.kind == "classification":
        return np.where(random.random(rows) < noise, random.integers(0, data.classes, rows), data.truth)
    return data.truth + noise * data.truth.std() * random.normal(size=rows)


def collections(sales: pd.DataFrame) -> Iterator[Data]:
    """The data sets. Targets have noise that no feature explains, also where scikit-learn generates them without."""
    yield _data("breast cancer", "classification", *datasets.load_breast_cancer(return_X_y=True))
    yield _data("diabetes", "regression", *datasets.load_diabetes(return_X_y=True))
    yield _data("wine", "classification", *datasets.load_wine(return_X_y=True))
    images, digits = datasets.load_digits(return_X_y=True)
    blocks = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(images), -1)
    yield _data("digits", "classification", blocks, digits)
    yield _data("house sales", "regression", sales.drop(columns="price").to_numpy(), sales["price"].to_numpy())
    for seed in range(3):
        made = {"n_samples": ROWS, "random_state": seed}
        yield _data("friedman 1", "regression", *datasets.make_friedman1(noise=3, **made))
        yield _data("friedman 2", "regression", *datasets.make_friedman2(noise=250, **made))
        yield _data("friedman 3", "regression", *datasets.make_friedman3(noise=0.2, **made))
        linear = datasets.make_regression(n_features=12, n_informative=6, noise=100, **made)
        yield _data("regression", "regression", *linear)
        features, target = datasets.make_sparse_uncorrelated(**made)
        random = np.random.default_rng(seed)
        yield _data("sparse", "regression", features, target + random.normal(0, 2, ROWS))
        informative = {"n_features": 12, "n_informative": 6, "flip_y": 0.1}
        yield _data("classification", "classification", *datasets.make_classification(**informative, **made))
        features, target = datasets.make_hastie_10_2(**made)
        yield _data("hastie", "classification", features, _flipped((target > 0).astype(float), random))
        quantiles = datasets.make_gaussian_quantiles(n_features=6, n_classes=3, **made)
        yield _data("quantiles", "classification", quantiles[0], _flipped(quantiles[1], random))


def _flipped(labels: Floats, random: np.random.Generator) -> Floats:
    """Labels of which a tenth is drawn anew."""
    return np.where(random.random(len(labels)) < 0.1, random.permutation(labels), labels)


def _data(name: str, kind: Kind, features: Floats, truth: Floats) -> Data:
    order = np.random.default_rng(0).permutation(len(truth))
    names = [f"x{index}" for index in range(features.shape[1])]
    return Data(name, kind, pd.DataFrame(features[order].astype(np.float32), columns=names), truth[order].astype(float))


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
    certain |= {f"{what}, first model" for what in certain if what != "missing in production"}
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
    rules = params.gate.model_copy(update={"floors": {}, "minimum_rows": 50})  # wine has 178 rows
    params = params.model_copy(update={"gate": rules})
    found = [*collections(_sales())]
    jobs = [
        delayed(lambda data, each=each: list(each(data, params)))(data) for each in (leaky, honest) for data in found
    ]
    outcomes = [outcome for each in Parallel(n_jobs=-1)(jobs) for outcome in each]
    improvements = {each.what for each in honest(found[2], params)}
    honest_ones = [each for each in outcomes if each.what in improvements]
    leaks = [each for each in outcomes if each.what not in improvements]
    console.print(f"\n{len(found)} data sets, {len({each.name for each in found})} different ones:\n")
    console.print(_table(honest_ones, "honest improvement", named=False))
    console.print()
    console.print(_table(leaks, "leak", named=True))
    console.print(f"\n[dim]{time.monotonic() - start:.0f} seconds[/]")
    return require(_requirements(honest_ones, leaks))


if __name__ == "__main__":
    exit_with(main)

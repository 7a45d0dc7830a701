"""Judge honest improvements and leaks on one data set with `slipway.pipeline.gate.judge`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from slipway.artifacts import Contender, Evaluation, FeatureScore, Holdout, Release, Verdict
from slipway.config import Kind, Params, Task
from slipway.pipeline.gate import judge
from slipway.pipeline.importance import permutation_importance
from slipway.pipeline.measure import Measure
from slipway.pipeline.single_feature import Sample, scores_alone
from slipway.statistics.metrics import naive_prediction, row_losses, summarise

Floats = NDArray[np.float64]

TRAINING = 0.6
TREES = 100
MOST_IMPORTANT = 5
NOISE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
LACKING = 0.8
"""Share of the newest delivery's rows in which the feature is missing."""
NEWEST = 6
"""Number of deliveries of equal size that the rows are divided into. The last one is the newest."""
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
    """How a model is fitted: its features, its number of trees (0: linear model), and its share of training rows."""

    without: str | None = None
    trees: int = TREES
    rows: float = 1.0


class Fitted:
    """A fitted model, and its predictions for the holdout."""

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
        return permutation_importance(self.predict, self.holdout, self.truth, Measure(self.data.task), 0)

    @cached_property
    def alone(self) -> dict[str, float]:
        training = Sample(self.frame[: self.data.split], self.data.truth[: self.data.split])
        names = list(self.frame)
        return scores_alone(
            training, Sample(self.holdout, self.truth), Measure(self.data.task), self.data.classes, names
        )


def _estimator(kind: Kind, trees: int) -> Any:
    settings = {"max_iter": trees, "early_stopping": False, "random_state": 0}
    if kind == "classification":
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        return HistGradientBoostingClassifier(**settings) if trees else linear
    return HistGradientBoostingRegressor(**settings) if trees else make_pipeline(StandardScaler(), Ridge())


def verdict(champion: Fitted | None, challenger: Fitted, params: Params) -> Verdict:
    """Return the gate's verdict on the challenger.

    The statistics of each feature are computed here, as in `evaluate`.
    """
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
    """The result for an improvement or leak: whether it ships without `gate.suspicious`, and the sign that holds it."""

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
    """Return a feature that is computed from the target but is not equal to it."""
    if data.kind == "classification":
        return (data.truth * 7 + 3) % (data.classes * 7)
    return -np.log(data.truth - data.truth.min() + data.truth.std())


def _noisy(data: Data, noise: float, random: np.random.Generator) -> Floats:
    rows = len(data.truth)
    if data.kind == "classification":
        return np.where(random.random(rows) < noise, random.integers(0, data.classes, rows), data.truth)
    return data.truth + noise * data.truth.std() * random.normal(size=rows)


def data_set(name: str, kind: Kind, features: Floats, truth: Floats) -> Data:
    order = np.random.default_rng(0).permutation(len(truth))
    names = [f"x{index}" for index in range(features.shape[1])]
    return Data(name, kind, pd.DataFrame(features[order].astype(np.float32), columns=names), truth[order].astype(float))


def trials(data: Data, params: Params) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes of all honest improvements and of all leaks."""
    return list(honest(data, params)), list(leaky(data, params))

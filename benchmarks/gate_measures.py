"""Measure the error rates of the gate for other losses: a quantile, costs, a loss from src/model, AUC, and weights.

Two models are equally good in expectation:

- Pinball: one model predicts a quantile that is too high, and the other a quantile that is too low. Both have the same
expected loss. - Cost: the logits of both models are wrong by the same number, with opposite signs. - Own loss: as in
`gate_simulated`, the errors of the models differ by a factor, and rows have different weights. - AUC: both models rank
by the same signal plus their own noise. On some days one model uses the signal more than the other. - Weights: absolute
errors as for the own loss. The weights are lognormal, so 4% of the rows have about a quarter of the weight, and rows of
days with a large effect have larger weights.

The day of a row shifts its truth or the errors of the models. The size of the shift is chosen so that the variance that
the day causes in a row's gain gives a design effect of 1, 5 or 30.

A random choice decides which model is the champion. This matters for the quantile loss, because its gains are skewed:
the result depends on the rare days on which many rows exceed both predictions. At a design effect of 30, the model with
the lower quantile ships in 6.1% of 2,000 trials if it is always the challenger.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from scipy.optimize import brentq
from scipy.special import expit, ndtr
from scipy.stats import norm
from sklearn.utils.parallel import Parallel, delayed

from benchmarks.gate_simulated import (
    DESIGN_EFFECTS,
    IMPROVEMENT,
    MOST_FALSE,
    Design,
    Outcome,
    days_of_rows,
    effects_of_days,
    judge_trials,
    part_of_day,
)
from benchmarks.scratch import console
from slipway.bundle import Decision
from slipway.config import Params, Task
from slipway.pipeline.measure import Measure

Floats = NDArray[np.float64]
Losses = tuple[Floats, Floats]

TRIALS = 400
BLOCKS = 60  # independent days
APART = 0.35  # distance of the first model from the best quantile
COSTS = ((0.0, 1.0), (6.0, 0.0))
LOGIT = 0.85  # mean logit of the dear class, and the threshold of both models, which is too high
CLASSIFICATION = Task(kind="classification", loss="cost", cost={})
WEIGHTED = "weighted"
CALIBRATION = (300, 300)  # days, and rows a day


def _pinball(share: float, effect: Floats, random: np.random.Generator) -> Losses:
    truth = np.sqrt(share) * effect + np.sqrt(1 - share) * random.normal(size=len(effect))
    best = float(norm.ppf(0.9))

    def expected(prediction: float) -> float:
        return float(norm.pdf(prediction) + prediction * (ndtr(prediction) - 0.9))

    high = best + APART
    low = float(brentq(lambda each: expected(each) - expected(high), best - 4 * APART, best - 1e-6))
    measure, rows = Measure(Task(kind="regression", loss="pinball_0.9")), pd.DataFrame()
    before, after = (measure.losses(truth, np.full((len(truth), 1), each), rows, None) for each in (high, low))
    return before, after


def _cost(share: float, effect: Floats, random: np.random.Generator) -> Losses:
    size = len(effect)
    logit = random.normal(size=size) + LOGIT
    truth = (random.random(size) < expit(logit)).astype(np.float64)
    apart = 2 * (np.sqrt(share) * effect + np.sqrt(1 - share) * random.normal(size=size))
    measure, decision = Measure(CLASSIFICATION, COSTS), Decision(costs=COSTS, threshold=float(expit(LOGIT)))
    found = []
    for sign in (1, -1):
        second = expit(logit + sign * apart)
        found.append(measure.losses(truth, np.column_stack([1 - second, second]), pd.DataFrame(), decision))
    return found[0], found[1]


def dear_rows(truth: Floats, answers: Floats, rows: pd.DataFrame) -> Floats:
    """Return the absolute error of each row. In one row of five, the error counts four times."""
    weighted: Floats = np.abs(answers[:, 0] - truth) * np.where(rows["dear"], 4, 1)
    return weighted


def _own(share: float, effect: Floats, random: np.random.Generator) -> Losses:
    errors, size = random.normal(size=len(effect)), len(effect)
    apart = np.sqrt(share) * effect + np.sqrt(1 - share) * random.normal(size=size)
    rows = pd.DataFrame({"dear": random.random(size) < 0.2})
    measure = Measure(Task(kind="regression", loss="own_dear_rows"), own=dear_rows)
    before, after = (
        measure.losses(np.zeros(size), (errors * np.exp(sign * 0.15 * apart))[:, None], rows, None) for sign in (1, -1)
    )
    return before, after


def _absolute(share: float, effect: Floats, random: np.random.Generator) -> Losses:
    errors, size = random.normal(size=len(effect)), len(effect)
    apart = np.sqrt(share) * effect + np.sqrt(1 - share) * random.normal(size=size)
    measure = Measure(Task(kind="regression", loss="mean_absolute_error"))
    before, after = (
        measure.losses(np.zeros(size), (errors * np.exp(sign * 0.15 * apart))[:, None], pd.DataFrame(), None)
        for sign in (1, -1)
    )
    return before, after


def _auc(share: float, effect: Floats, random: np.random.Generator) -> Losses:
    signal, size = random.normal(size=len(effect)), len(effect)
    truth = (random.random(size) < expit(5 * signal)).astype(np.float64)
    measure = Measure(Task(kind="classification", loss="one_minus_auc"))
    found = []
    for sign in (1, -1):
        slope = 1 + sign * 4 * np.sqrt(share) * effect
        second = expit(slope * signal + random.normal(size=size))
        found.append(measure.losses(truth, np.column_stack([1 - second, second]), pd.DataFrame(), None))
    return found[0], found[1]


def _weights(effect: Floats, random: np.random.Generator) -> Floats:
    return np.exp(random.normal(size=len(effect)) + 0.5 * np.abs(effect))


MEASURES: dict[str, Callable[[float, Floats, np.random.Generator], Losses]] = {
    "pinball_0.9": _pinball,
    "cost": _cost,
    "own loss": _own,
    WEIGHTED: _absolute,
    "one_minus_auc": _auc,
}


@dataclass(frozen=True)
class Judged:
    measure: str
    effect: int
    outcome: Outcome


def _share(measure: str, part: float) -> float:
    """Return the size of the day effect that causes the share `part` of the variance of a row's gain."""
    days, rows = CALIBRATION

    def part_with(share: float) -> float:
        random = np.random.default_rng(11)
        before, after = MEASURES[measure](share, np.repeat(random.normal(size=days), rows), random)
        gains = (before - after).reshape(days, rows)
        within = float(gains.var(axis=1, ddof=1).mean())
        between = float(gains.mean(axis=1).var(ddof=1)) - within / rows
        return between / (between + within)

    return 0.0 if part == 0 else float(brentq(lambda share: part_with(share) - part, 1e-6, 0.99, xtol=1e-4))


def _judged(measure: str, effect: int, params: Params) -> Judged:
    design = Design("regression", effect, 0.0, BLOCKS)
    share = _share(measure, part_of_day(design))
    random = np.random.default_rng([effect, len(measure)])

    def draw() -> tuple[NDArray[np.int64], Floats, Floats, Floats | None]:
        day = days_of_rows(design, random)
        effects = effects_of_days(design.days, 0.0, "regression", random)[day]
        first, second = MEASURES[measure](share, effects, random)
        weights = _weights(effects, random) if measure == WEIGHTED else None
        return (day, first, second, weights) if random.random() < 0.5 else (day, second, first, weights)

    return Judged(measure, effect, judge_trials(draw, random, params, TRIALS, 0))


def report(params: Params) -> dict[str, bool]:
    """Print the table. Return for each requirement whether it is met."""
    todo = [(measure, effect) for measure in MEASURES for effect in DESIGN_EFFECTS]
    found = list(Parallel(n_jobs=-1)(delayed(_judged)(measure, effect, params) for measure, effect in todo))
    table = Table(box=None, padding=(0, 2, 0, 0))
    heads = ("loss", "design\neffect", "observed", "covered\nby row", "covered,\n±2 s.e.", "equal:\nships", "by row")
    for index, head in enumerate((*heads, f"{IMPROVEMENT:.0%} better:\nships")):
        table.add_column(head, justify="right" if index else "left")
    for each in found:
        outcome = each.outcome
        table.add_row(
            each.measure,
            f"{each.effect}",
            f"{outcome.effect:.1f}",
            f"{outcome.covered_by_row:.1%}",
            f"{100 * outcome.covered:.1f} ±{200 * outcome.covered_error:.1f}%",
            f"{outcome.shipped:.1%}",
            f"{outcome.shipped_by_row:.1%}",
            f"{outcome.better_shipped:.1%}",
        )
    console.print(f"\nOther losses: simulated holdouts of {BLOCKS} days, {TRIALS:,} trials in each row:\n")
    console.print(table)
    return {
        f"{measure}: equally good models ship in at most {MOST_FALSE:.0%} of the trials ({worst:.1%})": (
            worst <= MOST_FALSE
        )
        for measure in MEASURES
        for worst in [max(each.outcome.shipped for each in found if each.measure == measure)]
    }

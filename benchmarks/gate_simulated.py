"""Measure the gate and decay on simulated holdouts and deliveries in which the errors of one day are correlated.

Two models are equally good in expectation, by symmetry:

- Regression: both models make the same error, multiplied by a factor for one model and divided by this factor for the
other. The factor depends on the day. - Classification: one model predicts too high a probability of the class, and the
other too low a probability. The frequency of the class depends on the day.

Days are independent, or bad days follow bad days (an autoregression of order 1). The design effect is the variance of
the mean, divided by the variance that it would have with independent rows. The day's share of the variance is set so
that the design effect is 1, 5 or 30. For heavy tails, rows and days are drawn from Student's t distribution with 3
degrees of freedom. To simulate an improvement, the challenger's loss is lowered by the same share on each row.

For decay, an oracle also tests the loss, but with the true variance, which is only known in a simulation. The
comparison shows how much power is lost because the variance must be estimated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import expit
from scipy.stats import norm
from sklearn.utils.parallel import Parallel, delayed

from benchmarks.scratch import console
from slipway.artifacts import Holdout, Release
from slipway.config import Params
from slipway.pipeline.columns import SLICE, TIME
from slipway.pipeline.decay import ERROR, LOSS, TRUTH, judge
from slipway.pipeline.gate import check_slices, compare
from slipway.statistics.blocks import mean_of
from slipway.statistics.metrics import row_losses

Floats = NDArray[np.float64]
Kind = Literal["regression", "heavy tails", "classification"]
Draw = Callable[[], tuple[NDArray[np.int64], Floats, Floats, Floats | None]]
"""Returns the day, both losses and the weight of each row. No weights mean equal weights."""
"""A function that draws a holdout. It returns the day of each row, and the losses of both models."""

TRIALS = 1_000
SLICED = 400  # number of trials in which slices are judged too
IMPROVEMENT = 0.03
ROWS_A_DAY = 80
WEEK = np.array([1.1, 1.1, 1.1, 1.1, 1.1, 0.75, 0.75])
SPREAD = 0.3  # standard deviation of the difference between the two models' predictions
MEMORY = 0.4
KINDS: tuple[Kind, ...] = ("regression", "heavy tails", "classification")
DESIGN_EFFECTS = (1, 5, 30)
BLOCKS = (14, 30, 60, 120)
FEW_BLOCKS = 20

DELIVERIES = 9
DECAYS = 100  # trials, each with DELIVERIES deliveries
DELIVERED, RELEASED = 30, 60  # days
DELIVERED_A_DAY = 900
DECAY = 0.10

COVERAGE = (0.93, 0.97)
MOST_FALSE, MOST_FALSE_FEW = 0.05, 0.07
LEAST_FOUND = 0.90


@dataclass(frozen=True)
class Design:
    """How the errors of a simulated holdout are correlated. `blocks` is its number of independent days."""

    kind: Kind
    effect: int
    memory: float
    blocks: int

    @property
    def days(self) -> int:
        return round(self.blocks * _together(self.memory))


@dataclass(frozen=True)
class Outcome:
    """Shares of the trials with each result. Fields that end in `_by_row` come from intervals that ignore days."""

    judged: float
    covered: float
    covered_by_row: float
    shipped: float
    shipped_by_row: float
    better_shipped: float
    slice_worse: float
    effect: float
    """The design effect that was observed in the trials."""
    judged_trials: int

    @property
    def covered_error(self) -> float:
        """The standard error of `covered`, because the number of trials is finite."""
        return float(np.sqrt(self.covered * (1 - self.covered) / self.judged_trials))


def _together(memory: float) -> float:
    """Return how many consecutive days count as one independent day."""
    return (1 + memory) / (1 - memory)


def designs() -> Iterator[Design]:
    for kind in KINDS:
        for effect in DESIGN_EFFECTS:
            for memory in (0.0, MEMORY) if effect > 1 else (0.0,):
                for blocks in BLOCKS:
                    yield Design(kind, effect, memory, blocks)


def run(params: Params) -> dict[Design, Outcome]:
    """Judge every design. The slowest designs start first, so that both cores are busy until the end."""
    todo = sorted(designs(), key=lambda design: -design.days)
    outcomes = Parallel(n_jobs=-1)(delayed(_judged)(design, params) for design in todo)
    found = dict(zip(todo, outcomes, strict=True))
    return {design: found[design] for design in designs()}


def _judged(design: Design, params: Params) -> Outcome:
    random = np.random.default_rng([KINDS.index(design.kind), design.effect, int(10 * design.memory), design.blocks])
    part = part_of_day(design)
    return judge_trials(lambda: (*_losses(design, part, random), None), random, params, TRIALS, SLICED)


def judge_trials(draw: Draw, random: np.random.Generator, params: Params, trials: int, sliced: int) -> Outcome:
    """Judge two equally good models on each of the holdouts that `draw` returns."""
    judged, covered, shipped, better, worse, row_covered, row_shipped = [], [], [], [], [], [], []
    means, variances = [], []
    for trial in range(trials):
        day, before, after, weights = draw()
        times = np.datetime64("2024-01-01") + day.astype("timedelta64[D]")
        gain = mean_of(before - after, times, weights=weights)
        low, high = compare(gain, params.gate.confidence).interval or (np.nan, np.nan)
        judged.append(gain.judgeable)
        covered.append(low <= 0 <= high)
        shipped.append(low > 0)
        improved = mean_of(before - (1 - IMPROVEMENT) * after, times, weights=weights).interval(params.gate.confidence)
        better.append(improved is not None and improved[0] > 0)
        alone = mean_of(before - after, weights=weights)
        row_low, row_high = alone.interval(params.gate.confidence)
        row_covered.append(row_low <= 0 <= row_high)
        row_shipped.append(row_low > 0)
        means.append(gain.value)
        variances.append(alone.standard_error**2)
        if trial < sliced:
            worse.append(_slice_is_worse(day, times, before, after, random, params))
    known = np.array(judged)
    return Outcome(
        judged=float(np.mean(judged)),
        covered=float(np.mean(np.array(covered)[known])),
        covered_by_row=float(np.mean(row_covered)),
        shipped=float(np.mean(shipped)),
        shipped_by_row=float(np.mean(row_shipped)),
        better_shipped=float(np.mean(better)),
        slice_worse=float(np.mean(worse)) if worse else 0.0,
        effect=float(np.var(means) / np.mean(variances)),
        judged_trials=int(known.sum()),
    )


def _quantile(confidence: float) -> float:
    """Return half the width of an interval in standard errors, if the variance is known."""
    return float(norm.ppf((1 + confidence) / 2))


def _slice_is_worse(
    day: NDArray[np.int64],
    times: NDArray[np.datetime64],
    before: Floats,
    after: Floats,
    random: np.random.Generator,
    params: Params,
) -> bool:
    """Return True if the gate, with a margin of 0, reports a slice as worse. Slices are weekdays and five places."""
    scores = pd.DataFrame({TIME: times, "champion_loss": before})
    scores[f"{SLICE}weekday"] = pd.Categorical.from_codes(day % 7, [*"0123456"])
    scores[f"{SLICE}place"] = pd.Categorical.from_codes(random.integers(0, 5, len(day)), [*"01234"])
    rules = params.gate.model_copy(update={"slices": params.gate.slices.model_copy(update={"margin": 0.0})})
    return any(part.regressed for part in check_slices(scores, before - after, rules))


def part_of_day(design: Design) -> float:
    """Return the share of a row's variance that its day must cause to give the design effect."""
    largest = ROWS_A_DAY * float((WEEK**2).mean()) - 1
    return (design.effect - 1) / largest / _together(design.memory)


def days_of_rows(design: Design, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the day of each row."""
    counts = random.poisson(ROWS_A_DAY * WEEK[np.arange(design.days) % 7])
    return np.repeat(np.arange(design.days), np.maximum(1, counts))


def effects_of_days(days: int, memory: float, kind: Kind, random: np.random.Generator) -> Floats:
    """Return the effect of each day on its rows, with a variance of 1."""
    effects = _noise(days + 50, kind, random)
    for index in range(1, len(effects)):
        effects[index] = memory * effects[index - 1] + np.sqrt(1 - memory**2) * effects[index]
    return effects[50:]


def _noise(size: int, kind: Kind, random: np.random.Generator) -> Floats:
    if kind == "heavy tails":
        return random.standard_t(3, size) / np.sqrt(3)
    return random.normal(size=size)


def _losses(design: Design, part: float, random: np.random.Generator) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the day of each row, and the loss of both models on each row."""
    day = days_of_rows(design, random)
    effect = effects_of_days(design.days, design.memory, design.kind, random)[day]
    if design.kind == "classification":
        before, after = _classified(effect, part, random)
    else:
        before, after = _predicted(effect, part, design.kind, random)
    return day, before, after


def _predicted(effect: Floats, part: float, kind: Kind, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the absolute errors of both models. A factor multiplies one model's errors and divides the other's."""
    errors = _noise(len(effect), kind, random)
    # The size of the errors differs between rows. This adds to the variance that the day does not cause.
    share = part * (3 if kind == "heavy tails" else 1) / (2 / np.pi if kind == "regression" else 12 / np.pi**2)
    apart = SPREAD / 2 * (np.sqrt(share) * effect + np.sqrt(1 - share) * random.normal(size=len(effect)))
    truth = np.zeros(len(effect))
    before, after = (
        row_losses("mean_absolute_error", truth, (errors * np.exp(sign * apart))[:, None]) for sign in (1, -1)
    )
    return before, after


def _classified(effect: Floats, part: float, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the log losses of two models. The first predicts too high probabilities, and the second too low ones."""
    logit = random.normal(0, 1.0, len(effect))
    shift = np.sqrt(part / 0.19) * effect
    truth = (random.random(len(effect)) < expit(logit + shift)).astype(np.float64)
    before, after = (expit(logit + sign * SPREAD / 2) for sign in (1, -1))
    losses = [row_losses("log_loss", truth, np.column_stack([1 - each, each])) for each in (before, after)]
    return losses[0], losses[1]


@dataclass(frozen=True)
class Alarms:
    """The share of trials in which any delivery raised an alarm, and the share of deliveries that raised an alarm."""

    kind: Kind
    effect: int
    false: float
    false_deliveries: float
    found: float
    found_deliveries: float
    found_by_oracle: float
    found_deliveries_by_oracle: float


def decays(params: Params) -> list[Alarms]:
    """Simulate a release and nine later deliveries.

    Their expected loss equals the loss at release, or is 10% higher.
    """
    todo = [(kind, effect) for kind in ("regression", "classification") for effect in DESIGN_EFFECTS]
    return list(Parallel(n_jobs=-1)(delayed(_alarms)(kind, effect, params) for kind, effect in todo))


def _alarms(kind: Kind, effect: int, params: Params) -> Alarms:
    loss = "log_loss" if kind == "classification" else "mean_absolute_error"
    task = params.task.model_copy(update={"kind": kind, "loss": loss, "unit": ""})
    params = params.model_copy(update={"task": task})
    random = np.random.default_rng([effect, len(kind)])
    alarmed: dict[float, list[bool]] = {1.0: [], 1 + DECAY: []}
    before, after, confidence = [], [], 0.0
    for _ in range(DECAYS):
        then = _scored(kind, effect, RELEASED, random)
        holdout = Holdout(rows=len(then), first=None, last=None)
        release = Release(champion="simulated", loss=loss, value=float(then[LOSS].mean()), holdout=holdout)
        before.append(then[LOSS].mean())
        for _ in range(DELIVERIES):
            now = _scored(kind, effect, DELIVERED, random)
            after.append(now[LOSS].mean())
            for worse, found in alarmed.items():
                judged = judge("simulated", now.assign(**{LOSS: worse * now[LOSS]}), then, release, params)
                found.append(judged.alarm)
                confidence = judged.whole.loss.confidence
    same, decayed = (np.reshape(each, (DECAYS, DELIVERIES)) for each in alarmed.values())
    then_means, now_means = np.array(before)[:, None], (1 + DECAY) * np.reshape(after, (DECAYS, DELIVERIES))
    allowed = 1 + params.decay.margin
    error = np.hypot(np.std(now_means), allowed * np.std(then_means))
    oracle = now_means - _quantile(confidence) * error > allowed * then_means
    return Alarms(
        kind=kind,
        effect=effect,
        false=float(same.any(axis=1).mean()),
        false_deliveries=float(same.mean()),
        found=float(decayed.any(axis=1).mean()),
        found_deliveries=float(decayed.mean()),
        found_by_oracle=float(oracle.any(axis=1).mean()),
        found_deliveries_by_oracle=float(oracle.mean()),
    )


def _scored(kind: Kind, effect: int, days: int, random: np.random.Generator) -> pd.DataFrame:
    """Return scored rows like those of `slipway.pipeline.decay.answer_for`, with errors correlated by day."""
    size = days * DELIVERED_A_DAY
    day = np.repeat(np.arange(days), DELIVERED_A_DAY)
    # Bad days follow each other. The day affects both the size of the errors and their mean.
    part = (effect - 1) / DELIVERED_A_DAY / _together(MEMORY)
    first, second = (effects_of_days(days, MEMORY, kind, random)[day] for _ in range(2))
    if kind == "classification":
        logit = random.normal(0, 1.0, size)
        answer = expit(logit)
        truth = (random.random(size) < expit(logit + np.sqrt(part / 0.19) * first)).astype(np.float64)
        errors, loss = answer - truth, row_losses("log_loss", truth, np.column_stack([1 - answer, answer]))
    else:
        truth = random.lognormal(11, 0.4, size)
        spread = np.exp(np.sqrt(part * (np.pi / 2 - 1)) * first)
        errors = 0.1 * truth.mean() * (random.normal(size=size) * spread + np.sqrt(part) * second)
        loss = np.abs(errors)
    return pd.DataFrame(
        {
            LOSS: loss,
            f"{ERROR}target": errors,
            f"{TRUTH}target": truth,
            TIME: pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D"),
        }
    )


def gate_table(outcomes: dict[Design, Outcome]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    heads = (
        "models",
        "design\neffect",
        "days",
        "indep.\ndays",
        "covered\nby row",
        "covered,\n±2 s.e.",
        "equal:\nships",
        "by row",
        f"{IMPROVEMENT:.0%} better:\nships",
        "a slice\nis worse",
        "too few\ndays",
    )
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for design, outcome in outcomes.items():
        table.add_row(
            design.kind,
            f"{outcome.effect:.1f}",
            f"{design.days}",
            f"{design.blocks}",
            f"{outcome.covered_by_row:.1%}",
            f"{100 * outcome.covered:.1f} ±{200 * outcome.covered_error:.1f}%",
            f"{outcome.shipped:.1%}",
            f"{outcome.shipped_by_row:.1%}",
            f"{outcome.better_shipped:.1%}",
            f"{outcome.slice_worse:.1%}",
            f"{1 - outcome.judged:.1%}",
        )
    return table


def decay_table(alarms: list[Alarms]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, head in enumerate(
        (
            "models",
            "design\neffect",
            f"false alarm in any\nof {DELIVERIES} deliveries",
            "in one\ndelivery",
            f"{DECAY:.0%} worse: alarm\nin any of {DELIVERIES}",
            "by\noracle",
            "share of\noracle",
            "in one\ndelivery",
            "by\noracle",
        )
    ):
        table.add_column(head, justify="right" if index else "left")
    for each in alarms:
        table.add_row(
            each.kind,
            f"{each.effect}",
            f"{each.false:.1%}",
            f"{each.false_deliveries:.1%}",
            f"{each.found:.1%}",
            f"{each.found_by_oracle:.1%}",
            f"{each.found / each.found_by_oracle:.0%}",
            f"{each.found_deliveries:.1%}",
            f"{each.found_deliveries_by_oracle:.1%}",
        )
    return table


def requirements(outcomes: dict[Design, Outcome], alarms: list[Alarms]) -> dict[str, bool]:
    """Return for each requirement whether it holds. The coverage may differ from its bounds by a sampling error."""
    many = max(each.shipped for design, each in outcomes.items() if design.blocks >= FEW_BLOCKS)
    few = max(each.shipped for design, each in outcomes.items() if design.blocks < FEW_BLOCKS)
    covered = [each.covered for each in outcomes.values()]
    slices = max(each.slice_worse for each in outcomes.values())
    false = max(each.false for each in alarms)
    found = min(each.found for each in alarms)
    return {
        f"simulated: equally good models ship in at most {MOST_FALSE:.0%} of the trials ({many:.1%}), and in at most "
        f"{MOST_FALSE_FEW:.0%} with fewer than {FEW_BLOCKS} independent days ({few:.1%})": many <= MOST_FALSE
        and few <= MOST_FALSE_FEW,
        f"simulated: {COVERAGE[0]:.0%} to {COVERAGE[1]:.0%} of the intervals contain the true difference "
        f"({min(covered):.1%} to {max(covered):.1%}, {np.mean(covered):.1%} on average), up to two standard errors": (
            all(_may_be_covered(each) for each in outcomes.values())
        ),
        f"simulated: a slice is wrongly found worse in at most {MOST_FALSE:.0%} of the trials ({slices:.1%})": (
            slices <= MOST_FALSE
        ),
        f"simulated: {DELIVERIES} deliveries without decay raise an alarm in at most {MOST_FALSE:.0%} of the trials "
        f"({false:.1%})": false <= MOST_FALSE,
        f"simulated: {DELIVERIES} deliveries with a loss {DECAY:.0%} higher raise an alarm in at least "
        f"{LEAST_FOUND:.0%} of the trials, at every design effect ({found:.1%})": found >= LEAST_FOUND,
    }


def _may_be_covered(outcome: Outcome) -> bool:
    """Return True if the coverage is at most two standard errors of the trials outside of its bounds."""
    low, high = COVERAGE
    error = 2 * outcome.covered_error
    return low - error <= outcome.covered <= high + error


def report(params: Params) -> dict[str, bool]:
    """Print both tables. Return for each requirement whether it holds."""
    outcomes, alarms = run(params), decays(params)
    console.print(f"\nSimulated holdouts with {ROWS_A_DAY} rows a day, {TRIALS:,} trials in each row:\n")
    console.print(gate_table(outcomes))
    console.print(
        f"\nDecay: a release of {RELEASED} days and {DELIVERIES} deliveries of {DELIVERED} days with "
        f"{DELIVERED_A_DAY} rows a day, {DECAYS} trials in each row:\n"
    )
    console.print(decay_table(alarms))
    return requirements(outcomes, alarms)

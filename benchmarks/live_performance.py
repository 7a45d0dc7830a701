"""Measure how often decay on requests is found: `python -m benchmarks.live_performance`.

The alarms follow the rule of `slipway join` and `slipway monitor`, with the section `decay` of params.yaml. Each trial
draws the holdout of a release and a period of joined requests. Errors on one day and on consecutive days are
correlated. In some trials, the expected loss of the period equals the expected loss of the release. In the others, the
expected loss of the period is higher: by 5%, by `decay.margin`, or by the smallest rise that the result promises to
find (`smallest_found`).

Required:

- At most 5% of the periods without decay, or with a rise within the margin, raise an alarm.
- A rise that is promised to be found is found in 90% of the periods, up to two standard errors.
- A rise of 5% is found in 90% of the periods with `ENOUGH` rows a day.

It takes about two minutes on one core.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.scratch import REPOSITORY, console, exit_with, require
from slipway import artifacts
from slipway.artifacts import Holdout, Release
from slipway.config import Params, load_params
from slipway.pipeline.columns import TIME
from slipway.pipeline.decay import ERROR, FOUND, LOSS, TRUTH, judge, smallest_found

TRIALS = 150
ROWS_A_DAY = (100, 300, 1_000, 3_000, 6_000)
ENOUGH = 6_000
DAYS, RELEASED = 30, 60
RISE = 0.05
EFFECT = 2.0
"""The design effect: the variance of the mean, divided by its variance if rows were independent."""
MEMORY = 0.3  # correlation of consecutive days
MOST_FALSE = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The median of the promised rises, and the share of trials with an alarm for each true rise."""

    promised: float
    none: float
    margin: float
    five: float
    as_promised: float


def main() -> int:
    start = time.process_time()
    params = load_params(REPOSITORY / artifacts.PARAMS)
    found = {rows: simulate(rows, params) for rows in ROWS_A_DAY}
    console.print(
        f"\nShare of {TRIALS} periods with an alarm, by the rise of the loss. A period has {DAYS} days, and the "
        f"release {RELEASED} days with as many rows. The design effect is {EFFECT:g}.\n"
    )
    console.print(table(found, params))
    console.print(f"\n[dim]{time.process_time() - start:.0f} seconds of CPU[/]")
    return require(requirements(found))


def table(found: dict[int, Outcome], params: Params) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    rises = ("no rise", f"{params.decay.margin:.0%}", f"{RISE:.0%}", "as promised")
    for head in ("rows a day", *rises, f"promised to be found with {FOUND:.0%}"):
        drawn.add_column(head, justify="right")
    for rows, each in found.items():
        shares = (each.none, each.margin, each.five, each.as_promised, each.promised)
        drawn.add_row(f"{rows:,}", *(f"{share:.1%}" for share in shares))
    return drawn


def requirements(found: dict[int, Outcome]) -> dict[str, bool]:
    false = max(max(each.none, each.margin) for each in found.values())
    least = min(each.as_promised for each in found.values())
    five = min(each.five for rows, each in found.items() if rows >= ENOUGH)
    tolerated = FOUND - 2 * np.sqrt(FOUND * (1 - FOUND) / TRIALS)
    return {
        f"without decay, at most {MOST_FALSE:.0%} of the periods raise an alarm ({false:.1%})": false <= MOST_FALSE,
        f"a promised rise is found with {FOUND:.0%} ({least:.1%} at least)": least >= tolerated,
        f"with {ENOUGH:,} rows a day, a rise of {RISE:.0%} is found with {FOUND:.0%} ({five:.1%})": five >= tolerated,
    }


def simulate(rows_a_day: int, params: Params, trials: int = TRIALS) -> Outcome:
    random = np.random.default_rng(rows_a_day)
    promised: list[float] = []
    alarms: list[list[bool]] = []
    for _ in range(trials):
        now, then, release = _draw(rows_a_day, random)
        promised.append(smallest_found(now, then, release, params) or np.nan)
        rises = (0.0, params.decay.margin, RISE, promised[-1])
        alarms.append([judge("simulated", _worse(now, rise), then, release, params).alarm for rise in rises])
    known = ~np.isnan(promised)
    none, margin, five, _ = np.mean(alarms, axis=0).tolist()
    as_promised = float(np.array(alarms)[known, 3].mean())
    return Outcome(float(np.nanmedian(promised)), none, margin, five, as_promised)


def _draw(rows_a_day: int, random: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, Release]:
    now, then = (scored(days, rows_a_day, random) for days in (DAYS, RELEASED))
    holdout = Holdout(rows=len(then), first=None, last=None)
    value = float(then[LOSS].mean())
    return now, then, Release(champion="simulated", loss="mean_absolute_error", value=value, holdout=holdout)


def _worse(rows: pd.DataFrame, rise: float) -> pd.DataFrame:
    return rows.assign(**{name: rows[name] * (1 + rise) for name in (LOSS, f"{ERROR}price")})


def scored(days: int, rows_a_day: int, random: np.random.Generator) -> pd.DataFrame:
    """Return rows like those of `answer_for`. The day affects both the size of the errors and their mean."""
    day = np.repeat(np.arange(days), rows_a_day)
    share = (EFFECT - 1) / rows_a_day * (1 - MEMORY) / (1 + MEMORY)
    size, shift = (_effects(days, random)[day] for _ in range(2))
    truth = random.lognormal(11, 0.4, len(day))
    spread = np.exp(np.sqrt(share * (np.pi / 2 - 1)) * size)
    errors = 0.1 * np.exp(11) * (random.normal(size=len(day)) * spread + np.sqrt(share) * shift)
    return pd.DataFrame(
        {
            LOSS: np.abs(errors),
            f"{ERROR}price": errors,
            f"{TRUTH}price": truth,
            TIME: (np.datetime64("2026-01-01") + day.astype("timedelta64[D]")).astype("datetime64[s]"),
        }
    )


def _effects(days: int, random: np.random.Generator) -> Floats:
    """Return the effect of each day, with a variance of 1."""
    effects = random.normal(size=days + 20)
    for index in range(1, len(effects)):
        effects[index] = MEMORY * effects[index - 1] + np.sqrt(1 - MEMORY**2) * effects[index]
    return effects[20:]


if __name__ == "__main__":
    exit_with(main)

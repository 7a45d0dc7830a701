"""Measure how often a model that is only equally good ships, if many models are judged on the same holdout.

`LOOKS` challengers are judged on one holdout, one after the other, until one ships. All are as good as the champion in
expectation. There are two ways to choose the next challenger:

- Random: each challenger differs from the champion by independent noise. This is a harder test than practice, where all
  comparisons share the noise of the champion.
- Greedy: each challenger differs by new noise from the challenger with the best result so far, as if every model that
  looks better were developed further.

The gains of the rows of one day are correlated, as in `gate_simulated`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.table import Table
from sklearn.utils.parallel import Parallel, delayed

from benchmarks.gate_simulated import (
    MOST_FALSE,
    Design,
    Floats,
    Kind,
    days_of_rows,
    effects_of_days,
    part_of_day,
)
from benchmarks.scratch import console
from slipway.config import Params
from slipway.statistics.blocks import mean_of

Way = Literal["random", "greedy"]
WAYS: tuple[Way, ...] = ("random", "greedy")
LOOKS = 60
TRIALS = 400
KINDS: tuple[Kind, ...] = ("regression", "heavy tails")
DESIGNS = [(kind, effect, blocks) for kind in KINDS for effect in (1, 5, 30) for blocks in (30, 60)]


@dataclass(frozen=True)
class Shipped:
    """The share of holdouts on which the first challenger ships (`once`), and on which any challenger ships.

    `counted` is the share with a count of looks, and `uncounted` the share without.
    """

    way: Way
    design: Design
    once: float
    uncounted: float
    counted: float


def _judged(way: Way, design: Design, params: Params) -> Shipped:
    random = np.random.default_rng([len(way), len(design.kind), design.effect, design.blocks])
    part, confidence = part_of_day(design), params.gate.confidence
    found = []
    for _ in range(TRIALS):
        day = days_of_rows(design, random)
        times = np.datetime64("2024-01-01") + day.astype("timedelta64[D]")

        def noise(day: Floats = day) -> Floats:
            effects: Floats = effects_of_days(design.days, design.memory, design.kind, random)[day]
            return np.sqrt(part) * effects + np.sqrt(1 - part) * random.normal(size=len(day))

        found.append(_ships(way, noise, times, confidence))
    once, uncounted, counted = np.mean(found, axis=0)
    return Shipped(way, design, float(once), float(uncounted), float(counted))


def _ships(
    way: Way, noise: Callable[[], Floats], times: "np.typing.NDArray[np.datetime64]", confidence: float
) -> tuple[bool, bool, bool]:
    """Return whether the first challenger ships, and whether any ships without and with a count of looks."""
    best, uncounted, counted, first = np.zeros(len(times)), False, False, False
    for look in range(1, LOOKS + 1):
        gains = noise() + best
        mean = mean_of(gains, times)
        without, with_count = ((mean.interval(confidence, looks) or (-np.inf, 0.0))[0] > 0 for looks in (1, look))
        first = first or (look == 1 and without)
        uncounted, counted = uncounted or without, counted or with_count
        if way == "greedy" and gains.mean() > best.mean():
            best = gains
    return first, uncounted, counted


def report(params: Params) -> dict[str, bool]:
    """Print the table. Return for each requirement whether it holds."""
    todo = [(way, Design(kind, effect, 0.0, blocks)) for way in WAYS for kind, effect, blocks in DESIGNS]
    found = list(Parallel(n_jobs=-1)(delayed(_judged)(way, design, params) for way, design in todo))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("next model", "losses", "design\neffect", "days", "1 look", f"{LOOKS} looks", "counted"):
        table.add_column(head, justify="left" if head in ("next model", "losses") else "right")
    for each in found:
        shares = (f"{share:.1%}" for share in (each.once, each.uncounted, each.counted))
        table.add_row(each.way, each.design.kind, f"{each.design.effect}", f"{each.design.days}", *shares)
    console.print(
        f"\nEqually good models that ship in {LOOKS} looks at one holdout, {TRIALS:,} holdouts in each row:\n"
    )
    console.print(table)
    worst = {way: max(each.counted for each in found if each.way == way) for way in WAYS}
    return {
        f"looks: after {LOOKS} {way} looks at pure noise, a model ships on at most {MOST_FALSE:.0%} of the holdouts "
        f"({share:.1%}), up to two standard errors": share - 2 * np.sqrt(share * (1 - share) / TRIALS) <= MOST_FALSE
        for way, share in worst.items()
    }

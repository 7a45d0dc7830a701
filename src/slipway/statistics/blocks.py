"""Estimates with valid intervals for rows whose errors are correlated within a day, a group, or both.

A block is a set of rows with correlated errors: a day if rows have a time, a group if groups are configured. The
variance comes from leaving out one block at a time (the cluster jackknife CV3: MacKinnon, Nielsen and Webb 2023).

A bad day is often followed by another. The number of consecutive days that count as one block is estimated from the
daily changes by autoregressions (the prewhitened variance of Andrews and Monahan 1992, with Kendall's correction of
1954 for short series). Days and groups are combined as in two-way clustering (Cameron, Gelbach and Miller 2011).

The interval is Student's t, with one degree of freedom less than there are independent blocks. Blocks of unequal size
count for fewer (Kish 1965).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.stats import t as student

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

MINIMUM_PARTS = 10
"""The smallest number of days or groups. Fewer cannot show their correlation or their variance."""
MINIMUM_BLOCKS = 4
"""The smallest number of independent blocks. It is low, because correlated days can look independent by chance."""
LARGEST_MEMORY = 0.95
"""The largest sum of autoregressive coefficients. Closer to 1, the mean of a series is not well defined."""
PARTS = 100
"""The number of parts that are left out, one at a time, for an estimate other than a mean."""


@dataclass(frozen=True)
class Estimate:
    """An estimate from some rows, with its standard error."""

    value: float
    standard_error: float
    parts: int
    """The number of days or of groups, the smaller of the two, or the number of rows if they are independent."""
    blocks: float
    """The number of independent blocks. It is below `parts` if days are correlated or parts differ in size."""

    @property
    def judgeable(self) -> bool:
        return self.parts >= MINIMUM_PARTS and self.blocks >= MINIMUM_BLOCKS

    @property
    def degrees_of_freedom(self) -> float:
        return self.blocks - 1

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return the confidence interval, or None if the rows come from too few days or groups."""
        if not self.judgeable:
            return None
        half = float(student.ppf((1 + confidence) / 2, self.degrees_of_freedom)) * self.standard_error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Mean(Estimate):
    """The mean of some rows. `days` and `groups` are their numbers, or None without times or groups."""

    rows: int
    effective_rows: float
    """The number of independent rows with the same standard error, at most `rows`."""
    days: int | None
    groups: int | None


def relative_to(now: Estimate, before: Estimate, times: float = 1.0) -> Estimate:
    """Return `now` with the standard error of its difference from `times * before` (Welch 1947)."""
    first, second = now.standard_error**2, (times * before.standard_error) ** 2
    both = first + second
    freedom = math.inf
    if both > 0:
        freedom = both**2 / (first**2 / now.degrees_of_freedom + second**2 / before.degrees_of_freedom)
    parts = min(now.parts, before.parts)
    return Estimate(value=now.value, standard_error=math.sqrt(both), parts=parts, blocks=freedom + 1)


@dataclass(frozen=True)
class _LeftOut:
    """The change of an estimate by each block, relative to leaving it out, and the number of rows of each block."""

    changes: Floats
    rows: NDArray[np.int64]


def mean_of(values: Floats, times: NDArray[np.datetime64] | None = None, groups: NDArray[Any] | None = None) -> Mean:
    """Return the mean of `values`, one per row. Rows with the same day in `times` or the same group form a block."""
    mean, rows = float(values.mean()), len(values)
    days, group = _codes_of_days(times), _codes_of_groups(groups)

    def leave_out(block: Codes | None) -> _LeftOut | None:
        if block is None:
            return None
        counts = np.bincount(block)
        sums = np.bincount(block, weights=values - mean)
        return _LeftOut(sums / np.maximum(rows - counts, 1), counts)

    independent = both = float(values.var()) / max(1, rows - 1)
    if days is not None and group is not None and (cells := leave_out(_codes(days * (group.max() + 1) + group))):
        both, _ = _variance(cells)
    by_day, by_group = leave_out(days), leave_out(group)
    variance, blocks = _combine(by_day, by_group, both, rows)
    return Mean(
        value=mean,
        standard_error=math.sqrt(variance),
        parts=_fewest(by_day, by_group, rows),
        blocks=blocks,
        rows=rows,
        effective_rows=min(1.0, independent / variance) * rows if variance > 0 else rows,
        days=None if by_day is None else len(by_day.rows),
        groups=None if by_group is None else len(by_group.rows),
    )


def estimates_of(
    figures: Callable[[NDArray[np.bool_]], dict[str, float]],
    rows: int,
    times: NDArray[np.datetime64] | None = None,
    groups: NDArray[Any] | None = None,
) -> dict[str, Estimate]:
    """Return estimates other than means, such as a median or an F1 score, each with its standard error.

    `figures` computes them from the rows of a mask. It is called once with all rows, and once without each of at most
    `PARTS` parts: consecutive days, sets of groups, or sets of rows if rows are independent.
    """
    whole = figures(np.ones(rows, dtype=bool))
    days, group = _codes_of_days(times), _codes_of_groups(groups)
    alone = np.random.default_rng(0).permutation(rows) % PARTS if (days is None) == (group is None) else None

    def leave_out(block: Codes | None) -> dict[str, _LeftOut]:
        if block is None:
            return {}
        parts = block * min(PARTS, block.max() + 1) // (block.max() + 1)
        without = [figures(parts != part) for part in range(parts.max() + 1)]
        changes = {name: np.array([whole[name] - each[name] for each in without]) for name in whole}
        return {name: _LeftOut(change, np.bincount(parts)) for name, change in changes.items()}

    by_day, by_group, by_row = leave_out(days), leave_out(group), leave_out(alone)
    found = {}
    for name, value in whole.items():
        both = _variance(by_row[name])[0] if by_row else 0.0
        parts = by_day.get(name), by_group.get(name)
        variance, blocks = _combine(*parts, both, rows)
        found[name] = Estimate(
            value=value, standard_error=math.sqrt(variance), parts=_fewest(*parts, rows), blocks=blocks
        )
    return found


def _fewest(days: _LeftOut | None, groups: _LeftOut | None, rows: int) -> int:
    return min((len(each.rows) for each in (days, groups) if each), default=rows)


def _combine(days: _LeftOut | None, groups: _LeftOut | None, both: float, rows: int) -> tuple[float, float]:
    """Return the variance of an estimate and its number of independent blocks.

    `both` is the variance by blocks of the same day and group. The sum over days and groups contains it twice.
    """
    if days and groups:
        (by_day, few), (by_group, fewer) = _variance_of_days(days), _variance(groups)
        return max(by_day + by_group - both, both), min(few, fewer)
    if days:
        return _variance_of_days(days)
    return _variance(groups) if groups else (both, float(rows))


def _variance(left_out: _LeftOut) -> tuple[float, float]:
    """Return the variance of an estimate from independent blocks, and the equivalent number of equal blocks."""
    blocks = len(left_out.rows)
    if blocks == 1:
        return math.inf, 1.0
    variance = float(np.square(left_out.changes).sum()) * (blocks - 1) / blocks
    return variance, float(left_out.rows.sum() ** 2 / np.square(left_out.rows).sum())


def _variance_of_days(left_out: _LeftOut) -> tuple[float, float]:
    variance, days = _variance(left_out)
    length = block_length(left_out.changes)
    return variance * length, max(1.0, days / length)


def block_length(series: Floats) -> float:
    """Return how many consecutive elements count as one independent element, at least 1.

    It is the variance of the mean of `series`, divided by the variance for independent elements. It is computed by
    autoregressions of order 1 to the cube root of the length, and the largest result counts.
    """
    size = len(series)
    orders = int(size ** (1 / 3))
    deviations = series - series.mean()
    covariances = np.array([deviations[lag:] @ deviations[: size - lag] for lag in range(orders + 1)])
    if size < MINIMUM_PARTS or not covariances[0] > 0:
        return 1.0
    correlations = covariances / covariances[0]

    def by_order(order: int) -> float:
        weights = solve_toeplitz(correlations[:order], correlations[1 : order + 1])
        unexplained = max(0.0, float(1 - weights @ correlations[1 : order + 1])) * (size - 1) / (size - order - 1)
        memory = float(weights.sum()) * (1 + 3 / size)  # a short series underestimates it
        return unexplained / (1 - min(memory, LARGEST_MEMORY)) ** 2

    return max(1.0, *(by_order(order) for order in range(1, orders + 1)))


def _codes_of_days(times: NDArray[np.datetime64] | None) -> Codes | None:
    """Return the number of each row's day, in the order of time. Days without rows are not counted."""
    return None if times is None else _codes(times.astype("datetime64[D]").astype(np.int64), sort=True)


def _codes_of_groups(groups: NDArray[Any] | None) -> Codes | None:
    return None if groups is None else _codes(groups)


def _codes(labels: NDArray[Any], *, sort: bool = False) -> Codes:
    codes: Codes = pd.factorize(labels, sort=sort, use_na_sentinel=False)[0]
    return codes

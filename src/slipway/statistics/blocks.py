"""Estimate values and confidence intervals from rows whose errors are correlated within a day, a group, or both.

A block is a set of rows with correlated errors: the rows of one day, or the rows of one group. The variance is computed
by leaving out one block at a time, as in the cluster jackknife CV3 (MacKinnon, Nielsen and Webb 2023).

The errors of consecutive days can also be correlated. Autoregressions estimate how many consecutive days are equivalent
to one independent block. Their input is a series with one number for each day: the change of the estimate if the day is
left out. The variance is prewhitened (Andrews and Monahan 1992), with Kendall's correction for short series (1954). The
variances by day and by group are combined as in two-way clustering (Cameron, Gelbach and Miller 2011).

The interval uses Student's t distribution. The degrees of freedom are the number of independent blocks minus one.
Blocks of unequal size are equivalent to a smaller number of blocks of equal size (Kish 1965). If several models are
compared on the same rows, Scheffé's intervals (1953) hold for all models together.

If rows have weights, the mean is the ratio of two sums: the weighted values and the weights. Leaving out a block
changes both sums (the jackknife of a ratio estimator, Wolter 2007, chapter 4). The size of a block is the sum of its
weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.stats import f as fisher
from scipy.stats import t as student

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

MINIMUM_PARTS = 10
"""Minimum number of days or groups. Correlation and variance cannot be estimated from fewer days or groups."""
MINIMUM_BLOCKS = 4
"""Minimum number of independent blocks. The limit is low, because the estimated number of blocks varies by chance."""
SHORTEST_BLOCK = 0.8
"""Minimum length of a block in days. For independent days, the true length is 1, and the estimate varies around 1. A
minimum of 1 would raise only the estimates below 1, so intervals would be too wide on average.
"""
LARGEST_MEMORY = 0.95
"""Maximum sum of the autoregressive coefficients. If the sum is near 1, the series has no well-defined mean."""
PARTS = 100
"""Maximum number of parts that rows are divided into for an estimate other than a mean.

The estimate is computed once without each part.
"""


@dataclass(frozen=True)
class Estimate:
    """A value that is estimated from rows, with its standard error."""

    value: float
    standard_error: float
    parts: int
    """The smaller of the number of days and the number of groups. If rows have no days and no groups, the number of
    rows.
    """
    blocks: float
    """The number of independent blocks. The number is below `parts` if days are correlated or if blocks differ in size.
    """

    @property
    def judgeable(self) -> bool:
        return self.parts >= MINIMUM_PARTS and self.blocks >= MINIMUM_BLOCKS

    @property
    def degrees_of_freedom(self) -> float:
        return self.blocks - 1

    def interval(self, confidence: float, looks: int = 1) -> tuple[float, float] | None:
        """Return the confidence interval, or None if the rows come from too few days or groups.

        `looks` is the number of models that are compared on the same rows. If `looks` is above 1, the result is
        Scheffé's interval (1953). It holds for all compared models at once, even if a model was chosen because of the
        results of earlier models.
        """
        if not self.judgeable:
            return None
        half = float(student.ppf((1 + confidence) / 2, self.degrees_of_freedom)) * self.standard_error
        if looks > 1:
            half = (
                math.sqrt(looks * float(fisher.ppf(confidence, looks, self.degrees_of_freedom))) * self.standard_error
            )
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Mean(Estimate):
    """The mean of a value over rows. `days` and `groups` are the numbers of distinct days and groups.

    `days` is None if rows have no time, and `groups` is None if rows have no group.
    """

    rows: int
    effective_rows: float
    """The number of independent rows whose mean would have the same standard error. The number is at most `rows`."""
    days: int | None
    groups: int | None


def relative_to(now: Estimate, before: Estimate, times: float = 1.0) -> Estimate:
    """Return the value of `now` with the standard error of the difference `now` - `times * before` (Welch 1947)."""
    first, second = now.standard_error**2, (times * before.standard_error) ** 2
    both = first + second
    freedom = math.inf
    if both > 0:
        freedom = both**2 / (first**2 / now.degrees_of_freedom + second**2 / before.degrees_of_freedom)
    parts = min(now.parts, before.parts)
    return Estimate(value=now.value, standard_error=math.sqrt(both), parts=parts, blocks=freedom + 1)


@dataclass(frozen=True)
class _LeftOut:
    """The results of leaving out one block at a time.

    Both arrays have one element for each block. An element of `changes` is the estimate from all rows minus the
    estimate without the block. An element of `sizes` is the number of rows in the block, or the sum of their weights.
    """

    changes: Floats
    sizes: NDArray[np.int64] | Floats


def mean_of(
    values: Floats,
    times: NDArray[np.datetime64] | None = None,
    groups: NDArray[Any] | None = None,
    weights: Floats | None = None,
) -> Mean:
    """Return the mean of `values`, which has one value per row. With `weights`, return the weighted mean.

    All rows with the same day form a block. All rows with the same group also form a block. Rows with the weight 0 are
    left out. If no row is left, the mean is 0 and `judgeable` is False.
    """
    if weights is not None and not (weights > 0).all():
        inside = weights > 0
        if not inside.any():
            return Mean(0.0, math.inf, parts=0, blocks=1.0, rows=0, effective_rows=0.0, days=None, groups=None)
        times, groups = (None if each is None else each[inside] for each in (times, groups))
        return mean_of(values[inside], times, groups, weights[inside])
    weights = None if weights is None else weights / weights.max()  # avoids squares that are 0 or infinite
    rows, mean = len(values), average(values, weights)
    size: float = rows if weights is None else float(weights.sum())
    days, group = _codes_of_days(times), _codes_of_groups(groups)
    distances = values - mean if weights is None else weights * (values - mean)

    def leave_out(block: Codes | None) -> _LeftOut | None:
        if block is None:
            return None
        sizes = np.bincount(block, weights)
        smallest = 1 if weights is None else np.finfo(np.float64).tiny  # only for a single block, which has no interval
        return _LeftOut(np.bincount(block, distances) / np.maximum(size - sizes, smallest), sizes)

    independent = both = float(values.var()) / max(1, rows - 1)
    like = float(rows)
    if weights is not None:
        independent = both = float(np.square(distances).sum()) / size**2 * rows / max(1, rows - 1)
        like = _equal_rows(weights)
    if days is not None and group is not None and (cells := leave_out(_codes(days * (group.max() + 1) + group))):
        both, _ = _variance(cells)
    by_day, by_group = leave_out(days), leave_out(group)
    variance, blocks = _combine(by_day, by_group, both, like)
    return Mean(
        value=mean,
        standard_error=math.sqrt(variance),
        parts=_fewest(by_day, by_group, rows),
        blocks=blocks,
        rows=rows,
        effective_rows=min(1.0, independent / variance) * like if variance > 0 else like,
        days=None if by_day is None else len(by_day.sizes),
        groups=None if by_group is None else len(by_group.sizes),
    )


def average(values: Floats, weights: Floats | None = None) -> float:
    """Return the mean of `values`, or their weighted mean. If all weights are 0, return 0."""
    if weights is None:
        return float(values.mean())
    return float(np.average(values, weights=weights)) if weights.any() else 0.0


def estimates_of(
    figures: Callable[[NDArray[np.bool_]], dict[str, float]],
    rows: int,
    times: NDArray[np.datetime64] | None = None,
    groups: NDArray[Any] | None = None,
    weights: Floats | None = None,
) -> dict[str, Estimate]:
    """Return estimates other than means, such as a median or an F1 score, each with its standard error.

    `figures` returns the estimates for the rows that a mask selects. It is called once with all rows, and then once for
    each of at most `PARTS` parts, without the rows of this part (jackknife). If rows have days, each part is a set of
    consecutive days. If rows have groups, each part is a set of groups. Random sets of rows are also used as parts if
    rows have both days and groups, or neither.

    If `figures` uses weights, `weights` contains the weight of each row. The size of a block is the sum of these
    weights.
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
        return {name: _LeftOut(change, np.bincount(parts, weights)) for name, change in changes.items()}

    by_day, by_group, by_row = leave_out(days), leave_out(group), leave_out(alone)
    like = float(rows) if weights is None else _equal_rows(weights / weights.max())
    found = {}
    for name, value in whole.items():
        both = _variance(by_row[name])[0] if by_row else 0.0
        parts = by_day.get(name), by_group.get(name)
        variance, blocks = _combine(*parts, both, like)
        found[name] = Estimate(
            value=value, standard_error=math.sqrt(variance), parts=_fewest(*parts, rows), blocks=blocks
        )
    return found


def _equal_rows(weights: Floats) -> float:
    """Return the number of rows of equal weight that are as informative as rows with these weights (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _fewest(days: _LeftOut | None, groups: _LeftOut | None, rows: int) -> int:
    return min((len(each.sizes) for each in (days, groups) if each), default=rows)


def _combine(days: _LeftOut | None, groups: _LeftOut | None, both: float, rows: float) -> tuple[float, float]:
    """Return the variance of an estimate and its number of independent blocks.

    `both` is the variance if a block consists of the rows with the same day and the same group. The variance by days
    and the variance by groups both include `both`, so `both` is subtracted once from their sum. `rows` is the number of
    rows or, if rows have weights, the equivalent number of rows of equal weight (Kish 1965).
    """
    if days and groups:
        (by_day, few), (by_group, fewer) = _variance_of_days(days), _variance(groups)
        return max(by_day + by_group - both, both), min(few, fewer)
    if days:
        return _variance_of_days(days)
    return _variance(groups) if groups else (both, rows)


def _variance(left_out: _LeftOut) -> tuple[float, float]:
    """Return the variance of an estimate for independent blocks, and the equivalent number of blocks of equal size."""
    blocks = len(left_out.sizes)
    if blocks == 1:
        return math.inf, 1.0
    variance = float(np.square(left_out.changes).sum()) * (blocks - 1) / blocks
    return variance, float(left_out.sizes.sum() ** 2 / np.square(left_out.sizes).sum())


def _variance_of_days(left_out: _LeftOut) -> tuple[float, float]:
    variance, days = _variance(left_out)
    length = block_length(left_out.changes)
    return variance * length, max(1.0, days / max(1.0, length))


def block_length(series: Floats) -> float:
    """Return how many consecutive elements are equivalent to one independent element, at least `SHORTEST_BLOCK`.

    The result is the variance of the mean of `series`, divided by the variance that the mean of independent elements
    would have. The ratio is estimated by several autoregressions: one for each order from 1 to the cube root of
    `len(series)`. The largest estimate is returned.
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
        memory = float(weights.sum()) * (1 + 3 / size)  # in short series, the estimated coefficients are too small
        return unexplained / (1 - min(memory, LARGEST_MEMORY)) ** 2

    return max(SHORTEST_BLOCK, *(by_order(order) for order in range(1, orders + 1)))


def _codes_of_days(times: NDArray[np.datetime64] | None) -> Codes | None:
    """Return for each row the position of its day among the days that have rows. The oldest day has the position 0."""
    return None if times is None else _codes(times.astype("datetime64[D]").astype(np.int64), sort=True)


def _codes_of_groups(groups: NDArray[Any] | None) -> Codes | None:
    return None if groups is None else _codes(groups)


def _codes(labels: NDArray[Any], *, sort: bool = False) -> Codes:
    codes: Codes = pd.factorize(labels, sort=sort, use_na_sentinel=False)[0]
    return codes

"""Bins of a feature or a prediction. Training, serving and drift use the same bins.

This module may import only the packages of the server.
"""

from itertools import accumulate, islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipway.bundle import FeatureReference, Reference

QUANTILES = 10
MAX_VALUES = 50
"""Maximum number of values of a categorical feature that have their own bin. It limits the number of metrics."""
OTHER = "(other)"
MISSING = "(missing)"


def decile_edges(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the upper edges of all bins except the last one. `values` must not contain missing values."""
    return np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))


def count_numbers(values: NDArray[np.floating], edges: ArrayLike) -> NDArray[np.int64]:
    """Count the values in each bin. A bin includes its upper edge. The last bin has no upper edge."""
    values = np.ascontiguousarray(values)
    # There are few edges, so comparing all values with each edge takes half the time of a binary search.
    up_to = [0, *[np.count_nonzero(values <= edge) for edge in np.asarray(edges)], len(values)]
    counts: NDArray[np.int64] = np.array(up_to[1:]) - up_to[:-1]
    return counts


def category_rows(reference: FeatureReference) -> dict[str, int]:
    """Return the number of training rows in each bin of a categorical feature.

    Each of the most frequent values has a bin. The last bin, `(other)`, contains all other values.
    """
    rows = dict(zip(reference.values or (), reference.counts, strict=True))
    total = sum(rows.values())
    rows.pop(OTHER, None)
    frequent = {*sorted(rows, key=rows.__getitem__, reverse=True)[:MAX_VALUES]}
    bins = {value: count for value, count in rows.items() if value in frequent}
    return {**bins, OTHER: total - sum(bins.values())}


def series(reference: FeatureReference) -> int:
    """Return the number of time series that /metrics has for a feature or an output, as an upper bound.

    Each bin has one series for requests and one for training rows. Missing values have two series too, and numbers have
    a count and a sum.
    """
    if reference.edges is None:
        return 2 * len(category_rows(reference)) + 2
    return 2 * (len(reference.edges) + 1) + 4


def within_series(reference: Reference, limit: int) -> Reference:
    """Return a reference whose distributions have at most `limit` time series in /metrics.

    Predictions come first, with at most half of the series, and at least one output. Features follow in their order.
    """
    prediction = _first(reference.prediction, limit // 2, at_least=1)
    left = limit - sum(map(series, prediction.values()))
    return Reference(features=_first(reference.features, left), prediction=prediction)


def _first(distributions: dict[str, FeatureReference], limit: int, at_least: int = 0) -> dict[str, FeatureReference]:
    """Return the longest start of `distributions` that has at most `limit` series, or `at_least` distributions."""
    totals = list(accumulate(map(series, distributions.values())))
    count = max(sum(total <= limit for total in totals), at_least)
    return dict(islice(distributions.items(), count))

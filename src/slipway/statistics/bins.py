"""Bins of a feature or a prediction. Training, serving and drift use the same bins.

This module may import only the packages of the server.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipway.bundle import FeatureReference

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
    frequent = {*sorted(rows, key=rows.__getitem__, reverse=True)[:MAX_VALUES]}
    bins = {value: count for value, count in rows.items() if value in frequent and value != OTHER}
    return {**bins, OTHER: sum(rows.values()) - sum(bins.values())}

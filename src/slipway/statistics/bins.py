"""Bins of a feature or a prediction, the same in training, in the server and for drift. Needs only what serving has."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipway.bundle import FeatureReference

QUANTILES = 10
MAX_VALUES = 50
"""The largest number of values of a category with their own bin, which limits the number of metrics."""
OTHER = "(other)"
MISSING = "(missing)"


def decile_edges(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the upper edges of all bins but the last. `values` has no missing value."""
    return np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))


def count_numbers(values: NDArray[np.floating], edges: ArrayLike) -> NDArray[np.int64]:
    """Count the values in each bin. A bin includes its upper edge, and the last bin is open."""
    values = np.ascontiguousarray(values)
    # Edges are few, so comparing with each of them takes half the time of a search.
    up_to = [0, *[np.count_nonzero(values <= edge) for edge in np.asarray(edges)], len(values)]
    counts: NDArray[np.int64] = np.array(up_to[1:]) - up_to[:-1]
    return counts


def category_rows(reference: FeatureReference) -> dict[str, int]:
    """Return the training rows in each bin of a category: its most frequent values, and last `(other)` for the rest."""
    rows = dict(zip(reference.values or (), reference.counts, strict=True))
    frequent = {*sorted(rows, key=rows.__getitem__, reverse=True)[:MAX_VALUES]}
    bins = {value: count for value, count in rows.items() if value in frequent and value != OTHER}
    return {**bins, OTHER: sum(rows.values()) - sum(bins.values())}

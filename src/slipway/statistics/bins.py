"""Bins of a feature or a prediction. Training, serving and drift use the same bins.

This module may import only the packages of the server.
"""

from itertools import accumulate, islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipway.bundle import FeatureReference, Reference

QUANTILES = 10
MAX_VALUES = 50
"""Maximum number of values of a categorical feature that have their own bin. It limits the number of metrics."""
COARSER = ((1, MAX_VALUES), (2, 10), (4, 4))
"""Numbers of bins to merge, and of values of a category to keep, until all features fit into the metrics."""
OTHER = "(other)"
MISSING = "(missing)"


def decile_edges(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the upper edges of all bins except the last one. `values` must not contain missing values."""
    return np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))


def array_numbers(arrays: NDArray[Any]) -> NDArray[np.float32]:
    """Return the number by which each row of the input of a column is counted.

    It is the norm of a vector [rows, length], which is NaN for a missing one, or the mean brightness of an image
    [rows, height, width, channels].
    """
    if arrays.ndim > 2:
        brightness: NDArray[np.float32] = arrays.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)
        return brightness
    norms = np.sqrt(np.square(arrays, dtype=np.float64).sum(axis=1))
    numbers: NDArray[np.float32] = np.minimum(norms, np.finfo(np.float32).max).astype(np.float32)
    return numbers


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

    Predictions come first, with at most half of the series, and at least one output. If not all features fit, they get
    fewer bins. If they still do not fit, the last features are left out.
    """
    outputs = [
        *accumulate(_output_series(each, len(reference.prediction) > 1) for each in reference.prediction.values())
    ]
    most = max(sum(total <= limit // 2 for total in outputs), 1)
    for width, values in COARSER:
        features = {name: _coarser(each, width, values) for name, each in reference.features.items()}
        totals = [*accumulate(map(series, features.values()), initial=outputs[most - 1])][1:]
        if totals[-1] <= limit:
            break
    return Reference(
        features=dict(islice(features.items(), sum(total <= limit for total in totals))),
        prediction=dict(islice(reference.prediction.items(), most)),
    )


def _coarser(reference: FeatureReference, width: int, most: int) -> FeatureReference:
    """Merge each `width` bins of numbers, or keep the bins of the `most` frequent values of a category."""
    if reference.edges is not None:
        starts = np.arange(0, len(reference.counts), width)
        counts = np.add.reduceat(np.array(reference.counts), starts)
        edges = reference.edges[width - 1 :: width][: len(counts) - 1]
        return reference.model_copy(update={"edges": edges, "counts": tuple(counts.tolist())})
    rows = category_rows(reference)
    if len(rows) <= most + 1:
        return reference
    frequent = sorted(sorted(rows, key=rows.__getitem__, reverse=True)[:most])
    kept = {value: rows[value] for value in frequent if value != OTHER}
    kept[OTHER] = sum(rows.values()) - sum(kept.values())
    return reference.model_copy(update={"values": tuple(kept), "counts": tuple(kept.values())})


def _output_series(reference: FeatureReference, is_probability: bool) -> int:
    """Return the series of an output, with those of its scale, which has fixed bins (`slipway.serving.metrics`)."""
    negative = bool(reference.edges and reference.edges[0] < 0)
    return series(reference) + (22 if is_probability else 68 if negative else 36)

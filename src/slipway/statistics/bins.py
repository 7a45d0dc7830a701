"""Divide the values of a feature or a prediction into bins. Training, serving and drift use the same bins.

This module imports only packages that the server image contains.
"""

from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipway.bundle import FeatureReference, Reference

QUANTILES = 10
MAX_VALUES = 50
"""Maximum number of values of a categorical feature that have their own bin, to limit the number of metrics."""
COARSER = ((1, MAX_VALUES), (2, 10), (4, 4))
"""Levels that reduce the number of bins, tried in this order until all features fit into /metrics.

A level has two numbers: how many adjacent bins of numbers are merged into one, and how many category values are kept.
"""
MAX_PAGE_BYTES = 150_000
SERIES_BYTES = 100
"""Upper bound for the size of one time series in /metrics in bytes, without the feature name and the category value."""
OTHER = "(other)"
MISSING = "(missing)"


def decile_edges(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the deciles of `values`, without duplicates: the upper edges of all bins except the last one.

    `values` must not contain missing values.
    """
    return np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))


def array_numbers(arrays: NDArray[Any]) -> NDArray[np.float32]:
    """Convert each vector or image to the number that determines its bin.

    For vectors [rows, length], the number is the norm, or NaN if the vector is missing. For images [rows, height,
    width, channels], the number is the mean brightness.
    """
    if arrays.ndim > 2:
        brightness: NDArray[np.float32] = arrays.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)
        return brightness
    return finite_numbers(np.sqrt(np.square(arrays, dtype=np.float64).sum(axis=1)))


def finite_numbers(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return float32 numbers. Infinite numbers become the largest finite numbers. NaN stays NaN."""
    most = np.finfo(np.float32).max
    numbers: NDArray[np.float32] = np.clip(values, -most, most).astype(np.float32)
    return numbers


def count_numbers(values: NDArray[np.floating], edges: ArrayLike) -> NDArray[np.int64]:
    """Return the number of values in each bin. A bin includes its upper edge. The last bin has no upper edge."""
    values = np.ascontiguousarray(values)
    # There are few edges, so comparing all values with each edge is twice as fast as a binary search.
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
    """Return an upper bound for the number of time series in /metrics for a feature or an output.

    Each bin has one series for requests and one for training rows. Missing values also have these two series. A numeric
    feature also has a count and a sum.
    """
    if reference.edges is None:
        return 2 * len(category_rows(reference)) + 2
    return 2 * (len(reference.edges) + 1) + 4


def within_series(reference: Reference, limit: int) -> Reference:
    """Reduce the distributions of a reference to at most `limit` time series and 150 kB in /metrics.

    Predictions get at most half of the series and half of the bytes, but at least one output is kept. If the features
    do not fit into the remaining space, each feature gets fewer bins. If the features still do not fit, the last
    features are left out.
    """
    several = len(reference.prediction) > 1
    counts = [_output_series(each, several) for each in reference.prediction.values()]
    sizes = [_bytes(name, count) for name, count in zip(reference.prediction, counts, strict=True)]
    most = max(_fitting(counts, sizes, limit // 2, MAX_PAGE_BYTES // 2), 1)
    left, left_bytes = limit - sum(counts[:most]), MAX_PAGE_BYTES - sum(sizes[:most])
    for width, values in COARSER:
        features = {name: _coarser(each, width, values) for name, each in reference.features.items()}
        counts = [*map(series, features.values())]
        sizes = [_bytes(name, series(each), each) for name, each in features.items()]
        fitting = _fitting(counts, sizes, left, left_bytes)
        if fitting == len(features):
            break
    return Reference(
        features=dict(islice(features.items(), fitting)), prediction=dict(islice(reference.prediction.items(), most))
    )


def _fitting(counts: Sequence[int], sizes: Sequence[int], limit: int, limit_bytes: int) -> int:
    """Return how many distributions, counted from the first, fit into `limit` series and `limit_bytes` bytes."""
    totals = zip(accumulate(counts), accumulate(sizes), strict=True)
    return sum(total <= limit and size <= limit_bytes for total, size in totals)


def _bytes(name: str, count: int, reference: FeatureReference | None = None) -> int:
    """Return an upper bound for the size of `count` time series of a feature or output in /metrics, in bytes."""
    values = category_rows(reference) if reference is not None and reference.edges is None else ()
    return count * (len(name.encode()) + SERIES_BYTES) + 2 * sum(len(value.encode()) for value in values)


def _coarser(reference: FeatureReference, width: int, most: int) -> FeatureReference:
    """Merge `width` adjacent numeric bins into one. For a category, keep only the `most` most frequent values."""
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
    """Return an upper bound for the number of time series of an output.

    The result includes the second histogram, with fixed bins, that `slipway.serving.metrics` adds for each output.
    """
    negative = bool(reference.edges and reference.edges[0] < 0)
    return series(reference) + (22 if is_probability else 68 if negative else 36)

"""Count rows and their predictions in the bins of the training data, in the same way as servers count requests."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.bundle import FeatureReference, Reference
from slipway.monitoring.metric_counts import BinCounts, RequestCounts
from slipway.pipeline.tensors import measured
from slipway.statistics.bins import OTHER, category_rows, count_numbers


def count_rows(frame: pd.DataFrame, outputs: Mapping[str, NDArray[np.float32]], reference: Reference) -> RequestCounts:
    """Count rows and their predictions.

    `frame` comes from the function `features`. `outputs` maps each output to its predictions. Features that are not in
    `frame` are left out. Outputs that are not in `reference` are left out too, which is possible if a model has many
    classes.
    """
    known = {name: each for name, each in reference.features.items() if name in frame}
    return RequestCounts(
        rows=len(next(iter(outputs.values()))),  # the frame has no rows if all features are left out
        features={name: _count_feature(frame[name], each) for name, each in known.items()},
        prediction={name: _count(outputs[name], each) for name, each in reference.prediction.items()},
    )


def add_counts(first: RequestCounts, second: RequestCounts) -> RequestCounts:
    """Add up the counts of two sets of rows with the same features."""
    return RequestCounts(
        rows=first.rows + second.rows,
        features={name: _add(each, second.features[name]) for name, each in first.features.items()},
        prediction={name: _add(each, second.prediction[name]) for name, each in first.prediction.items()},
    )


def _add(first: BinCounts, second: BinCounts) -> BinCounts:
    counts = tuple(a + b for a, b in zip(first.counts, second.counts, strict=True))
    return BinCounts(counts, first.missing + second.missing)


def _count_feature(values: "pd.Series[Any]", reference: FeatureReference) -> BinCounts:
    return _count(values.to_numpy() if reference.edges is None else measured(values), reference)


def _count(values: NDArray[Any], reference: FeatureReference) -> BinCounts:
    if reference.values is None:
        present = values[~np.isnan(values)]
        counts = count_numbers(present, np.array(reference.edges, dtype=np.float32))
        return BinCounts(tuple(counts.tolist()), len(values) - len(present))
    found = Counter(values.tolist())
    missing = found.pop("", 0)
    frequent = {value: found.pop(value, 0) for value in category_rows(reference) if value != OTHER}
    return BinCounts((*frequent.values(), found.total()), missing)

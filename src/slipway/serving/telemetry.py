"""What Prometheus sees: requests, and how features and predictions are distributed beside their training.

Requests only add to plain numbers, and rows wait in a buffer; bins are counted many rows at a time, when the buffer is
full or Prometheus asks. Everything sums across replicas.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from slipway.bundle import FeatureReference, Reference, Schema, Tensors

BUFFER = 4096
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Bins:
    """A histogram of numbers, with the edges of the training; it counts what is up to each edge, as Prometheus does."""

    def __init__(self, reference: FeatureReference) -> None:
        self.edges = np.array(reference.edges, dtype=np.float32)
        self.up_to = [0] * len(self.edges)
        self.rows = 0
        self.sum = 0.0
        self.missing = 0

    def add(self, values: NDArray[np.float32]) -> None:
        values = np.ascontiguousarray(values)
        total = float(values.sum(dtype=np.float64))
        if isnan(total):
            known = values[~np.isnan(values)]
            self.missing += len(values) - len(known)
            values, total = known, float(known.sum(dtype=np.float64))
        for i, edge in enumerate(
            self.edges
        ):  # faster than a search: the edges are few, and NumPy compares many at once
            self.up_to[i] += int(np.count_nonzero(values <= edge))
        self.rows += len(values)
        self.sum += total

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        return [
            *((f"{edge:.9g}", count) for edge, count in zip(self.edges, self.up_to, strict=True)),
            ("+Inf", self.rows),
        ]


class Values:
    """A count for each value of a category that the training knew, and one for all others."""

    OTHER = "(other)"

    def __init__(self, reference: FeatureReference) -> None:
        self.counts = dict.fromkeys([*(reference.values or ()), self.OTHER], 0)
        self.missing = 0

    def add(self, values: NDArray[Any]) -> None:
        for value, count in Counter(values.tolist()).items():
            if value == "":
                self.missing += count
            else:
                self.counts[value if value in self.counts else self.OTHER] += count


class Telemetry(Collector):
    """Counts, and hands the counts to Prometheus."""

    def __init__(self, schema: Schema, reference: Reference, labels: dict[str, str]) -> None:
        self.in_flight = 0
        self._labels = labels
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._total_seconds: dict[str, float] = {}
        self._numbers = {name: Bins(reference.features[name]) for name in schema.numbers}
        self._categories = {name: Values(reference.features[name]) for name in schema.categories}
        self._predictions = {name: Bins(each) for name, each in reference.prediction.items()}
        self._waiting = 0
        self._buffer: dict[str, NDArray[Any]] = {
            "numbers": np.empty((BUFFER, len(self._numbers)), dtype=np.float32),
            "categories": np.empty((BUFFER, len(self._categories)), dtype=object),
            "prediction": np.empty((BUFFER, len(self._predictions)), dtype=np.float32),
        }

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests[route, status] += 1
        if route not in self._seconds:
            self._seconds[route] = [0] * (len(SECONDS) + 1)
            self._total_seconds[route] = 0.0
        self._total_seconds[route] += seconds
        self._seconds[route][bisect_left(SECONDS, seconds)] += 1

    def scored(self, tensors: Tensors, predictions: NDArray[np.float32]) -> None:
        """Take note of rows that were answered; `tensors` may be overwritten afterwards."""
        done = 0
        while done < len(predictions):
            if self._waiting == BUFFER:
                self._count()
            rows = min(len(predictions) - done, BUFFER - self._waiting)
            place = slice(self._waiting, self._waiting + rows)
            for name, tensor in tensors.items():
                self._buffer[name][place] = tensor[done : done + rows]
            self._buffer["prediction"][place] = predictions[done : done + rows]
            self._waiting += rows
            done += rows

    def _count(self) -> None:
        groups: tuple[tuple[str, Mapping[str, Bins | Values]], ...] = (
            ("numbers", self._numbers),
            ("categories", self._categories),
            ("prediction", self._predictions),
        )
        for tensor, columns in groups:
            for i, column in enumerate(columns.values()):
                column.add(self._buffer[tensor][: self._waiting, i])
        self._waiting = 0

    def collect(self) -> Iterator[Metric]:
        self._count()
        info = InfoMetricFamily("slipway_model", "The bundle that answers.")
        info.add_metric([], self._labels)
        yield info
        yield GaugeMetricFamily("slipway_requests_in_flight", "Requests being answered now.", self.in_flight)
        requests = CounterMetricFamily("slipway_requests", "Requests answered.", labels=["route", "status"])
        for (route, status), count in self._requests.items():
            requests.add_metric([route, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("slipway_request_seconds", "From headers to answer.", labels=["route"])
        for route, counts in self._seconds.items():
            labels = [*map(str, SECONDS), "+Inf"]
            buckets = list(zip(labels, np.cumsum(counts).tolist(), strict=True))
            seconds.add_metric([route], buckets, self._total_seconds[route])
        yield seconds
        yield from self._distributions()

    def _distributions(self) -> Iterator[Metric]:
        predictions = HistogramMetricFamily(
            "slipway_prediction", "Predictions, in the bins of the training.", labels=["output"]
        )
        features = HistogramMetricFamily(
            "slipway_feature", "Numbers and dates (days since 1970), in the bins of the training.", labels=["feature"]
        )
        values = CounterMetricFamily("slipway_feature_values", "Categories, by value.", labels=["feature", "value"])
        missing = CounterMetricFamily("slipway_feature_missing", "Rows without the feature.", labels=["feature"])
        for name, bins in self._predictions.items():
            predictions.add_metric([name], bins.buckets(), bins.sum)
        for name, bins in self._numbers.items():
            features.add_metric([name], bins.buckets(), bins.sum)
            missing.add_metric([name], bins.missing)
        for name, each in self._categories.items():
            for value, count in each.counts.items():
                values.add_metric([name, value], count)
            missing.add_metric([name], each.missing)
        yield from (predictions, features, values, missing)

"""What Prometheus sees: requests, and how features and predictions are distributed beside their training.

A request only adds to lists. What waits there is counted many at a time, when it is enough or Prometheus asks.
Everything sums across replicas.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from math import isnan

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
from prometheus_client.utils import floatToGoString

from slipway.bundle import FeatureReference, Reference, Schema, Tensors

MOST_WAITING = 1024
"""Rows, or requests. To count them takes about a millisecond, for which others wait."""
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MISSING = "(missing)"
TrainingRows = list[tuple[dict[str, str], int]]
"""Which bin, and how many rows of the training it has."""


class Bins:
    """A histogram of numbers, with the edges of the training; it counts what is up to each edge, as Prometheus does."""

    def __init__(self, reference: FeatureReference) -> None:
        self.edges = np.array(reference.edges, dtype=np.float32)
        self.names = [*map(_as_prometheus_writes, self.edges.tolist()), "+Inf"]
        above = [{}, *({"above": name} for name in self.names[:-1])]
        bins = zip(above, self.names, reference.counts, strict=True)
        self.training = [(lower | {"bin": name}, rows) for lower, name, rows in bins]
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
        return list(zip(self.names, [*self.up_to, self.rows], strict=True))


def _as_prometheus_writes(edge: float) -> str:
    """Prometheus 3 writes `le="5"` anew, as `5.0`; the training rows of a bin have to have the same name."""
    edge = float(f"{edge:.9g}")
    return "-" * (edge < 0) + str(floatToGoString(abs(edge)))  # type: ignore[no-untyped-call]


class Values:
    """A count for each value of a category that the training knew, and one for all others."""

    OTHER = "(other)"

    def __init__(self, reference: FeatureReference) -> None:
        known = dict(zip(reference.values or (), reference.counts, strict=True))
        self.counts = dict.fromkeys([*known, self.OTHER], 0)
        self.missing = 0
        self.training = [({"bin": value}, known.get(value, 0)) for value in self.counts]

    def add(self, values: Iterable[str]) -> None:
        for value, count in Counter(values).items():
            if value == "":
                self.missing += count
            else:
                self.counts[value if value in self.counts else self.OTHER] += count


class Telemetry(Collector):
    """Counts, and hands the counts to Prometheus."""

    def __init__(self, schema: Schema, reference: Reference, labels: dict[str, str]) -> None:
        self.in_flight = 0
        self._labels = labels
        self._answered: list[tuple[str, int, float]] = []
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(SECONDS) + 1))
        self._total_seconds: defaultdict[str, float] = defaultdict(float)
        self._numbers = {name: Bins(reference.features[name]) for name in schema.numbers}
        self._categories = {name: Values(reference.features[name]) for name in schema.categories}
        self._predictions = {name: Bins(each) for name, each in reference.prediction.items()}
        self._training = GaugeMetricFamily("slipway_training_rows", "Rows of the training, in each bin.")
        dates = {column.name for column in schema.columns if column.type == "date"}
        features = {name: each.training for group in (self._numbers, self._categories) for name, each in group.items()}
        for name in [each for each in features if each not in dates]:  # dates move on by themselves
            missing = ({"bin": MISSING}, reference.features[name].missing)
            self._trained_on([*features[name], missing], feature=name)
        for name, each in self._predictions.items():
            self._trained_on(each.training, output=name)
        # Rows that wait to be counted. Bytes and lists, as a request adds to them faster than to arrays.
        self._rows = 0
        self._row_numbers = bytearray()
        self._row_categories: list[str] = []
        self._row_predictions: list[NDArray[np.float32]] = []

    def _trained_on(self, bins: TrainingRows, **of: str) -> None:
        for labels, rows in bins:
            self._training.add_sample(self._training.name, of | labels, rows)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._answered.append((route, status, seconds))
        if len(self._answered) >= MOST_WAITING:
            self._count_answered()

    def _count_answered(self) -> None:
        for route, status, seconds in self._answered:
            self._requests[route, status] += 1
            self._total_seconds[route] += seconds
            self._seconds[route][bisect_left(SECONDS, seconds)] += 1
        self._answered.clear()

    def scored(self, tensors: Tensors, predictions: NDArray[np.float32]) -> None:
        """Take note of rows that were answered; `tensors` may be overwritten afterwards."""
        if self._numbers:
            self._row_numbers += tensors["numbers"].tobytes()
        if self._categories:
            self._row_categories += tensors["categories"].ravel().tolist()
        self._row_predictions.append(predictions)
        self._rows += len(predictions)
        if self._rows >= MOST_WAITING:
            self._count()

    def _count(self) -> None:
        if not self._rows:
            return
        numbers = np.frombuffer(self._row_numbers, np.float32).reshape(self._rows, -1)
        for numeric, values in zip(self._numbers.values(), numbers.T, strict=True):
            numeric.add(values)
        for i, category in enumerate(self._categories.values()):
            category.add(self._row_categories[i :: len(self._categories)])
        for output, values in zip(self._predictions.values(), np.concatenate(self._row_predictions).T, strict=True):
            output.add(values)
        self._rows, self._row_numbers, self._row_categories, self._row_predictions = 0, bytearray(), [], []

    def collect(self) -> Iterator[Metric]:
        self._count_answered()
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
        yield from (predictions, features, values, missing, self._training)

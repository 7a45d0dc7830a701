"""Prometheus metrics: counts of requests, and counts of feature values and predictions in each training bin.

While a request is answered, its values are only appended to lists. The values are counted later, in batches, and at the
latest when Prometheus reads the metrics. The metrics of several replicas can be added up. Clients cannot increase the
number of time series beyond a fixed limit.
"""

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

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
from slipway.statistics.bins import MISSING, OTHER, array_numbers, category_rows, count_numbers, finite_numbers

BATCH = 1024
"""Number of rows or requests in a batch. Counting a batch delays other requests by about a millisecond."""
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TIMED = ("/predict", "/invocations", "/v2/infer", "other")
"""The routes with a histogram of request times. Probes are left out, because a histogram adds 19 time series."""
STEPS = (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
"""Preferred numbers (ISO 3, R10). Each number is about a quarter larger than the previous number."""
DECADES = 3
"""Number of powers of ten that the bins for regressions span. Predictions below this range are in the bin next to 0."""
TrainingRows = list[tuple[dict[str, str], int]]
"""The labels of each bin, and the number of training rows in the bin."""


class NumberCounts:
    """Counts of the values of one numeric feature or output, in the bins of the training data."""

    def __init__(self, reference: FeatureReference, edges: Sequence[float] | None = None) -> None:
        self._edges = np.array(reference.edges if edges is None else edges, dtype=np.float32)
        self._names = [*map(_as_prometheus_writes, self._edges.tolist()), "+Inf"]
        self._reference = reference
        self._counts = np.zeros(len(self._names), dtype=np.int64)
        self.sum = 0.0
        self.missing = 0

    @property
    def training(self) -> TrainingRows:
        """The labels of each bin of the training data, and the number of training rows in the bin."""
        above = [{}, *({"above": name} for name in self._names[:-1])]
        bins = zip(above, self._names, self._reference.counts, strict=True)
        return [(lower | {"bin": name}, rows) for lower, name, rows in bins]

    def add(self, values: NDArray[np.float32]) -> None:
        """Add values to the counts. NaN is a missing value."""
        total = float(values.sum(dtype=np.float64))
        if math.isnan(total):
            present = values[~np.isnan(values)]
            self.missing += len(values) - len(present)
            values, total = present, float(present.sum(dtype=np.float64))
        self._counts += count_numbers(values, self._edges)
        self.sum += total

    def bins(self) -> list[int]:
        """Return the count of each bin, and the number of missing values at the end."""
        return [*self._counts.tolist(), self.missing]

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper edge of each bin and its cumulative count, in the format of prometheus_client."""
        return list(zip(self._names, np.cumsum(self._counts).tolist(), strict=True))


def _places(names: Sequence[str], counted: Collection[str]) -> list[int]:
    return [i for i, name in enumerate(names) if name in counted]


def _as_prometheus_writes(edge: float) -> str:
    """Format an edge for the label `bin`.

    The text must equal the label `le`, in which Prometheus 3 writes `5` as `5.0`.
    """
    edge = float(f"{edge:.9g}")
    return "-" * (edge < 0) + str(floatToGoString(abs(edge)))  # type: ignore[no-untyped-call]


def scale(reference: FeatureReference, is_probability: bool) -> list[float]:
    """Return bin edges for predictions. Models share these edges, so that their predictions can be compared.

    The bins of the training data are not suitable, because they differ between models. The scale for a probability has
    twenty bins. The edges for a regression are round numbers (`STEPS` times powers of ten) within the range of the
    training data. Two models therefore have the same edges where their ranges overlap.
    """
    if is_probability:
        return [round(step / 20, 2) for step in range(1, 20)]
    edges = reference.edges or (1.0,)
    largest = max(map(abs, edges)) or 1.0
    top = math.floor(math.log10(largest)) + 1
    sizes = [float(f"{step}e{decade}") for decade in range(top - DECADES, top) for step in STEPS]
    sizes = [*(size for size in sizes if size <= 2 * largest), float(f"1e{top}")]
    negative = [-size for size in reversed(sizes)] if edges[0] < 0 else []
    return [*negative, 0.0, *sizes]


class CategoryCounts:
    """Counts of one categorical feature.

    Each value that is frequent in the training data has its own count. All other values share one count.
    """

    def __init__(self, reference: FeatureReference) -> None:
        training = category_rows(reference)
        self.training = [({"bin": value}, rows) for value, rows in training.items()]
        self.counts = dict.fromkeys(training, 0)
        self.missing = 0

    def add(self, values: Iterable[str]) -> None:
        """Add values to the counts. An empty text is a missing value."""
        for value, count in Counter(values).items():
            if value == "":
                self.missing += count
            else:
                self.counts[value if value in self.counts else OTHER] += count

    def bins(self) -> list[int]:
        """Return the count of each bin, and the number of missing values at the end."""
        return [*self.counts.values(), self.missing]


def _peak_memory() -> int | None:
    """Return the highest resident memory of this process in bytes, or None where Linux does not report it."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


class Metrics(Collector):
    """All metrics of one server."""

    def __init__(self, schema: Schema, reference: Reference, labels: dict[str, str]) -> None:
        self.in_flight = 0
        self._labels = labels
        self._answered: list[tuple[str, int, float]] = []
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(SECONDS) + 1))
        self._total_seconds: defaultdict[str, float] = defaultdict(float)
        counted = reference.features
        self._numbers = {name: NumberCounts(counted[name]) for name in schema.numbers if name in counted}
        names = [name for name in schema.categories if name in counted and name not in schema.texts]
        self._categories = {name: CategoryCounts(counted[name]) for name in names}
        self._texts = {name: NumberCounts(counted[name]) for name in schema.texts if name in counted}
        self._arrays = {name: NumberCounts(counted[name]) for name in schema.arrays if name in counted}
        known = self._numbers.keys() | names | self._texts.keys() | self._arrays.keys()
        self._signals = {name: NumberCounts(each) for name, each in counted.items() if name not in known}
        self._predictions = {name: NumberCounts(each) for name, each in reference.prediction.items()}
        # The positions of the counted features and outputs in the tensors. If there are very many features, some are
        # not counted.
        self._number_places = _places(schema.numbers, self._numbers)
        self._category_places = _places(schema.categories, self._categories)
        self._text_places = _places(schema.categories, self._texts)
        self._all_categories = len(self._category_places) == len(schema.categories)
        self._output_places = _places(schema.outputs, self._predictions)
        self._scales = {
            name: NumberCounts(each, scale(each, schema.classes is not None))
            for name, each in reference.prediction.items()
        }
        self._schema = schema
        self._decisions = [0] * len(schema.classes or ()) if schema.decision is not None else []
        self._training = GaugeMetricFamily("slipway_training_rows", "Training rows in each bin.")
        dates = {column.name for column in schema.columns if column.type == "date"}
        groups = (self._numbers, self._categories, self._texts, self._arrays, self._signals)
        features = {name: each.training for group in groups for name, each in group.items()}
        for name, bins in features.items():
            if name not in dates:  # the dates in requests are always newer than the training data
                missing = ({"bin": MISSING}, reference.features[name].missing)
                self._add_training([*bins, missing], feature=name)
        for name, each in self._predictions.items():
            self._add_training(each.training, output=name)
        # The rows that are not counted yet, as bytes and lists, because appending to arrays is slower.
        self._rows = 0
        self._row_numbers = bytearray()
        self._row_categories: list[str] = []
        self._row_lengths: list[int] = []
        self._row_arrays: dict[str, list[NDArray[np.float32]]] = {name: [] for name in (*self._arrays, *self._signals)}
        self._row_predictions: list[NDArray[np.float32]] = []

    def _add_training(self, bins: TrainingRows, **distribution: str) -> None:
        for labels, rows in bins:
            self._training.add_sample(self._training.name, distribution | labels, rows)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._answered.append((route, status, seconds))
        if len(self._answered) >= BATCH:
            self._count_answered()

    def _count_answered(self) -> None:
        for route, status, seconds in self._answered:
            self._requests[route, status] += 1
            if route not in TIMED:
                continue
            self._total_seconds[route] += seconds
            self._seconds[route][bisect_left(SECONDS, seconds)] += 1
        self._answered.clear()

    def predicted(
        self, tensors: Tensors, predictions: NDArray[np.float32], signals: NDArray[np.float32] | None = None
    ) -> None:
        """Count rows and their outputs. `tensors` are copied, so the caller may overwrite them afterwards."""
        if self._numbers:
            self._row_numbers += tensors["numbers"].tobytes()
        if self._categories:
            categories = tensors["categories"]
            counted = categories if self._all_categories else categories[:, self._category_places]
            self._row_categories += counted.ravel().tolist()
        if self._texts:  # only the lengths are kept, because the texts of a batch may be large
            texts = tensors["categories"][:, self._text_places]
            self._row_lengths += map(len, texts.ravel().tolist())
        if self._arrays:
            for name in self._arrays:
                self._row_arrays[name].append(array_numbers(tensors[name]))
        if signals is not None:
            for name, values in zip(self._signals, signals.T, strict=False):  # in a wide table, some are not counted
                self._row_arrays[name].append(finite_numbers(values))
        self._row_predictions.append(predictions)
        self._rows += len(predictions)
        if self._rows >= BATCH:
            self._count_rows()

    def _count_rows(self) -> None:
        if not self._rows:
            return
        numbers = np.frombuffer(self._row_numbers, np.float32).reshape(self._rows, -1)
        for number, place in zip(self._numbers.values(), self._number_places, strict=True):
            number.add(numbers[:, place])
        for i, category in enumerate(self._categories.values()):
            category.add(self._row_categories[i :: len(self._categories)])
        if self._texts:
            lengths = np.array(self._row_lengths, np.float32).reshape(self._rows, -1)
            lengths[lengths == 0] = np.nan
            for text, values in zip(self._texts.values(), lengths.T, strict=True):
                text.add(values)
        for name, array in (self._arrays | self._signals).items():
            array.add(np.concatenate(self._row_arrays[name]))
            self._row_arrays[name].clear()
        predictions = np.concatenate(self._row_predictions)
        outputs = zip(self._predictions.values(), self._scales.values(), self._output_places, strict=True)
        for output, output_scale, place in outputs:
            output.add(predictions[:, place])
            output_scale.add(predictions[:, place])
        if self._decisions:
            counts = np.bincount(self._schema.chosen(predictions), minlength=len(self._decisions)).tolist()
            self._decisions = [before + now for before, now in zip(self._decisions, counts, strict=True)]
        self._rows, self._row_numbers = 0, bytearray()
        self._row_categories, self._row_lengths, self._row_predictions = [], [], []

    def bins(self) -> dict[str, dict[str, list[int]]]:
        """Return the number of rows in each bin, by feature and by output.

        The last number of a list is the number of missing values.
        """
        self._count_rows()
        numbers = self._numbers | self._texts | self._arrays | self._signals
        return {
            "feature": {name: each.bins() for name, each in (numbers | self._categories).items()},
            "prediction": {name: each.bins() for name, each in self._predictions.items()},
        }

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. prometheus_client calls this method."""
        self._count_answered()
        self._count_rows()
        info = InfoMetricFamily("slipway_model", "The served bundle.")
        info.add_metric([], self._labels)
        yield info
        yield GaugeMetricFamily("slipway_requests_in_flight", "Requests in progress.", self.in_flight)
        if (peak := _peak_memory()) is not None:
            yield GaugeMetricFamily("slipway_peak_memory_bytes", "Highest resident memory since the start.", peak)
        requests = CounterMetricFamily("slipway_requests", "Answered requests.", labels=["route", "status"])
        for (route, status), count in self._requests.items():
            requests.add_metric([route, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("slipway_request_seconds", "Time from headers to response.", labels=["route"])
        for route, counts in self._seconds.items():
            labels = [*map(str, SECONDS), "+Inf"]
            buckets = list(zip(labels, np.cumsum(counts).tolist(), strict=True))
            seconds.add_metric([route], buckets, self._total_seconds[route])
        yield seconds
        if self._decisions:
            decisions = CounterMetricFamily("slipway_decisions", "Answers by chosen class.", labels=["output"])
            shown = zip(self._schema.classes or (), self._decisions, strict=True)
            for name, count in [each for each in shown if each[0] in self._predictions]:
                decisions.add_metric([name], count)
            yield decisions
        yield from self._distributions()

    def _distributions(self) -> Iterator[Metric]:
        predictions = HistogramMetricFamily(
            "slipway_prediction", "Predictions, in bins of the training data.", labels=["output"]
        )
        scales = HistogramMetricFamily(
            "slipway_prediction_scale", "Predictions, in bins that are the same for all models.", labels=["output"]
        )
        features = HistogramMetricFamily(
            "slipway_feature",
            "Numbers, dates (days since 1970), lengths of texts, norms of vectors, brightness of images, and signals, "
            "in bins of the training data.",
            labels=["feature"],
        )
        values = CounterMetricFamily(
            "slipway_feature_values", "Rows by value of a category.", labels=["feature", "value"]
        )
        missing = CounterMetricFamily("slipway_feature_missing", "Rows that lack the feature.", labels=["feature"])
        for name, number in self._predictions.items():
            predictions.add_metric([name], number.buckets(), number.sum)
        for name, number in self._scales.items():
            scales.add_metric([name], number.buckets(), number.sum)
        for name, number in (self._numbers | self._texts | self._arrays | self._signals).items():
            features.add_metric([name], number.buckets(), number.sum)
            missing.add_metric([name], number.missing)
        for name, category in self._categories.items():
            for value, count in category.counts.items():
                values.add_metric([name, value], count)
            missing.add_metric([name], category.missing)
        yield from (predictions, scales, features, values, missing, self._training)

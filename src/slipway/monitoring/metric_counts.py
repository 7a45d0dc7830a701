"""Read from the metrics of servers how many rows of requests are in each bin of the training data.

The counts of several replicas are added up, series by series. The sums equal the counts that one server would have for
all requests. Metrics are untrusted input, so each count is checked before use.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from slipway.bundle import FeatureReference, Reference
from slipway.statistics.bins import OTHER, category_rows

INFO = "slipway_model_info"
BUCKET, PREDICTION = "slipway_feature_bucket", "slipway_prediction_bucket"
VALUES, MISSING = "slipway_feature_values_total", "slipway_feature_missing_total"
LABELS = {BUCKET: ("feature", "le"), PREDICTION: ("output", "le"), VALUES: ("feature", "value"), MISSING: ("feature",)}
"""For each metric, the label for the feature or output, and the labels for the bin."""


class Malformed(ValueError):
    """Error for counts that cannot come from a Slipway server.

    The message starts with a verb, and the caller puts the name of the source before it.
    """


class Series(NamedTuple):
    """The identity of a counter. `of` is the name of the feature or output."""

    metric: str
    of: str
    bin: str

    def __str__(self) -> str:
        return f"{self.metric} of {self.of!r:.80}" + (f", {self.bin!r:.80}" if self.bin else "")


Counts = Counter[Series]


@dataclass(frozen=True)
class BinCounts:
    """The number of rows in each bin of one feature or output, and the number of rows without a value."""

    counts: tuple[int, ...]
    missing: int


@dataclass(frozen=True)
class RequestCounts:
    """The number of rows for which predictions were requested, in the bins of each feature and output."""

    rows: int
    features: dict[str, BinCounts]
    prediction: dict[str, BinCounts]


def read_page(text: str, bundle: str) -> Counts:
    """Read the counts from the output of /metrics.

    Raises Malformed if the text has another format, or if it comes from a server with another bundle.
    """
    counts, bundles = Counts(), []
    try:
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.name == INFO:
                bundles.append(sample.labels.get("bundle"))
            elif sample.name in LABELS:
                add(counts, sample.name, sample.labels, sample.value)
    except Malformed:
        raise
    except Exception as error:  # the parser has no exception of its own
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise Malformed(f"is not the output of /metrics ({words[:200]})") from None
    if len(bundles) != 1:
        raise Malformed(f"is not from a server of Slipway: it has {INFO} {len(bundles)} times instead of once")
    if bundles[0] != bundle:
        raise Malformed(f"is of the bundle {bundles[0]!r:.40}, but the champion is {bundle!r}")
    return counts


def add(counts: Counts, metric: str, labels: Mapping[str, str], value: float) -> None:
    """Add a series to `counts`. Raises Malformed if the series exists already, or if its value is not a count."""
    try:
        of, *bins = (labels[name] for name in LABELS[metric])
        series = Series(metric, of, _edge(float(bins[0])) if "le" in LABELS[metric] else "".join(bins))
    except (KeyError, ValueError):
        raise Malformed(f"has {metric} without the labels {', '.join(LABELS[metric])}") from None
    if series in counts:
        raise Malformed(f"has {series} twice")
    if not 0 <= value < 2**53 or value != int(value):
        raise Malformed(f"has {series} with the value {value}, which is not a count")
    counts[series] = int(value)


def increase(before: Counts, later: Iterable[Counts]) -> Counts:
    """Return how much the counts of a replica have increased since `before`.

    `later` has the replica's later counts, the oldest first. If any count has decreased, the replica has restarted, so
    all its counts have started again from zero.
    """
    total = Counts()
    for now in later:
        total.update(now)
        if all(now[series] >= count for series, count in before.items()):
            total.subtract(before)
        before = now
    return total


def request_counts(counts: Counts, reference: Reference) -> RequestCounts:
    """Sort counts into the bins of `reference`. Raises Malformed if the counts and the bins do not match exactly."""
    left = dict(counts)
    features = {name: _feature(left, name, each) for name, each in reference.features.items()}
    prediction = {
        name: BinCounts(_numbers(left, PREDICTION, name, each), 0) for name, each in reference.prediction.items()
    }
    if left:
        raise Malformed(f"has {next(iter(left))}, which the bundle does not have")
    totals = {sum(each.counts) + each.missing for each in (*features.values(), *prediction.values())}
    if len(totals) != 1:
        raise Malformed(f"counts {min(totals):,} rows for one feature and {max(totals):,} for another")
    return RequestCounts(totals.pop(), features, prediction)


def _feature(left: dict[Series, int], name: str, reference: FeatureReference) -> BinCounts:
    missing = _take(left, MISSING, name, "")
    if reference.values is None:
        return BinCounts(_numbers(left, BUCKET, name, reference), missing)
    counts = {value: _take(left, VALUES, name, value) for value in category_rows(reference)}
    for rare in reference.values:  # servers of earlier releases count every value separately
        counts[OTHER] += left.pop(Series(VALUES, name, rare), 0)
    return BinCounts(tuple(counts.values()), missing)


def _numbers(left: dict[Series, int], metric: str, name: str, reference: FeatureReference) -> tuple[int, ...]:
    up_to = [_take(left, metric, name, edge) for edge in _edges(reference)]
    counts = np.diff(up_to, prepend=0)
    if (counts < 0).any():
        raise Malformed(f"has {metric} of {name!r} with fewer rows up to a higher edge")
    return tuple(counts.tolist())


def _edges(reference: FeatureReference) -> Iterator[str]:
    """Yield the upper edges of the bins as text, rounded to single precision as on servers."""
    yield from map(_edge, np.array(reference.edges, dtype=np.float32).tolist())
    yield _edge(np.inf)


def _edge(edge: float) -> str:
    return f"{edge:.9g}"


def _take(left: dict[Series, int], metric: str, of: str, name: str) -> int:
    series = Series(metric, of, name)
    if series not in left:
        raise Malformed(f"lacks {series}")
    return left.pop(series)

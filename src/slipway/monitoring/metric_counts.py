"""What a live model was asked, as its servers count it: rows in the bins of the bundle's training.

The counts of several replicas are added series by series; the sum is what one server would have counted that was asked
all of it. Pages and answers come from outside, so each count is checked before it is used.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from slipway.bundle import FeatureReference, Reference

INFO = "slipway_model_info"
BUCKET, PREDICTION = "slipway_feature_bucket", "slipway_prediction_bucket"
VALUES, MISSING = "slipway_feature_values_total", "slipway_feature_missing_total"
LABELS = {BUCKET: ("feature", "le"), PREDICTION: ("output", "le"), VALUES: ("feature", "value"), MISSING: ("feature",)}
"""Of each metric: what is counted, and the bin."""
OTHER = "(other)"
"""The bin of the values that the training did not know."""


class Malformed(ValueError):
    """Counts that no server of Slipway would give; the message completes `FILE ...`."""


class Series(NamedTuple):
    metric: str
    of: str
    bin: str

    def __str__(self) -> str:
        return f"{self.metric} of {self.of!r:.80}" + (f", {self.bin!r:.80}" if self.bin else "")


Counts = Counter[Series]


@dataclass(frozen=True)
class Rows:
    """Of one feature: one count for each bin of its reference, one more for the unseen values of a category."""

    counts: tuple[int, ...]
    missing: int


@dataclass(frozen=True)
class Asked:
    """The rows that a model answered, and its answers."""

    rows: int
    features: dict[str, Rows]
    prediction: dict[str, Rows]


def read_page(text: str, bundle: str) -> Counts:
    """The counts of a page of /metrics. Raises Malformed where it is no such page, or that of another bundle."""
    counts, bundles = Counts(), []
    try:
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.name == INFO:
                bundles.append(sample.labels.get("bundle"))
            elif sample.name in LABELS:
                add(counts, sample.name, sample.labels, sample.value)
    except Malformed:
        raise
    except Exception as error:  # the parser raises what it stumbles over
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise Malformed(f"is no page of /metrics ({words[:200]})") from None
    if len(bundles) != 1:
        raise Malformed(f"is no page of a server of Slipway: it has {INFO} {len(bundles)} times instead of once")
    if bundles[0] != bundle:
        raise Malformed(f"is of the bundle {bundles[0]!r:.40}, and the champion is {bundle!r}")
    return counts


def add(counts: Counts, metric: str, labels: Mapping[str, str], value: float) -> None:
    """Add a series that is not there yet. Raises Malformed for a count that is none."""
    try:
        of, *bins = (labels[name] for name in LABELS[metric])
        series = Series(metric, of, _edge(float(bins[0])) if "le" in LABELS[metric] else "".join(bins))
    except (KeyError, ValueError):
        raise Malformed(f"has {metric} without the labels {', '.join(LABELS[metric])}") from None
    if series in counts:
        raise Malformed(f"has {series} twice")
    if not 0 <= value < 2**53 or value != int(value):
        raise Malformed(f"has {series} with the value {value}, which is no count")
    counts[series] = int(value)


def increase(before: Counts, seen: Iterable[Counts]) -> Counts:
    """What a replica counted since `before`, from what was seen of it, the oldest first.

    Where any count falls, the replica has started again and all of them count from zero.
    """
    total = Counts()
    for now in seen:
        total.update(now)
        if all(now[series] >= count for series, count in before.items()):
            total.subtract(before)
        before = now
    return total


def asked(counts: Counts, reference: Reference) -> Asked:
    """The counts in the bins of the reference. Raises Malformed where they are not just those."""
    left = dict(counts)
    features = {name: _rows(left, name, each) for name, each in reference.features.items()}
    prediction = {name: Rows(_bins(left, PREDICTION, name, each), 0) for name, each in reference.prediction.items()}
    if left:
        raise Malformed(f"has {next(iter(left))}, which the bundle does not have")
    totals = {sum(each.counts) + each.missing for each in (*features.values(), *prediction.values())}
    if len(totals) != 1:
        raise Malformed(f"counts {min(totals):,} rows for one feature and {max(totals):,} for another")
    return Asked(totals.pop(), features, prediction)


def _rows(left: dict[Series, int], name: str, reference: FeatureReference) -> Rows:
    missing = _take(left, MISSING, name, "")
    if reference.values is None:
        return Rows(_bins(left, BUCKET, name, reference), missing)
    known = [_take(left, VALUES, name, value) for value in reference.values]
    other = 0 if OTHER in reference.values else _take(left, VALUES, name, OTHER)
    return Rows((*known, other), missing)


def _bins(left: dict[Series, int], metric: str, name: str, reference: FeatureReference) -> tuple[int, ...]:
    up_to = [_take(left, metric, name, edge) for edge in _edges(reference)]
    counts = np.diff(up_to, prepend=0)
    if (counts < 0).any():
        raise Malformed(f"has {metric} of {name!r} with fewer rows up to a higher edge")
    return tuple(counts.tolist())


def _edges(reference: FeatureReference) -> Iterator[str]:
    """Of single precision, as a server counts; named alike however Prometheus writes them."""
    yield from map(_edge, np.array(reference.edges, dtype=np.float32).tolist())
    yield _edge(np.inf)


def _edge(edge: float) -> str:
    return f"{edge:.9g}"


def _take(left: dict[Series, int], metric: str, of: str, name: str) -> int:
    series = Series(metric, of, name)
    if series not in left:
        raise Malformed(f"lacks {series}")
    return left.pop(series)

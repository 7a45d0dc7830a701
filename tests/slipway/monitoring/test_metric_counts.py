"""Counts of replicas are added up exactly, and invalid metrics are refused."""

import re
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.bundle import Column, FeatureReference, Reference, Schema
from slipway.config import Drift
from slipway.monitoring.drift import compare
from slipway.monitoring.metric_counts import BinCounts, Counts, Malformed, Series, increase, read_page, request_counts
from slipway.monitoring.row_counts import _count
from slipway.serving.metrics import Metrics
from tests.slipway.monitoring.counted import BUNDLE, CATEGORIES, NUMBERS, REFERENCE, SCHEMA, Sent, dealt, page, server

RULE = Drift(confidence=0.99, psi=0.1, minimum_rows=200, prometheus=None, label_matchers="", window="1d")
SENT = Sent(3_000)


def one_page() -> str:
    one = server()
    SENT.to(one)
    return page(one)


PAGE = one_page()


def test_three_hundred_replicas_count_exactly_as_one_server() -> None:
    """The counts pass through the output of /metrics, and the result is equal to the last bit."""
    total = Counts()
    for replica in dealt(SENT, 300):
        total.update(read_page(page(replica), BUNDLE))
    one = read_page(PAGE, BUNDLE)
    assert total == one
    assert request_counts(total, REFERENCE) == request_counts(one, REFERENCE)
    drifts = [compare(BUNDLE, SCHEMA, REFERENCE, request_counts(each, REFERENCE), RULE) for each in (total, one)]
    assert drifts[0] == drifts[1]
    assert drifts[0].rows == 3_000


def test_each_row_is_in_the_bin_of_its_value() -> None:
    found = request_counts(read_page(PAGE, BUNDLE), REFERENCE)
    assert found.rows == 3_000
    for name, values in zip(NUMBERS, SENT.numbers.T, strict=True):
        edges = np.array([-np.inf, *REFERENCE.features[name].edges, np.inf], dtype=np.float32)  # type: ignore[misc]
        expected = [((low < values) & (values <= high)).sum() for low, high in pairwise(edges)]
        assert list(found.features[name].counts) == expected
        assert found.features[name].missing == np.isnan(values).sum()
    for name, values in zip(CATEGORIES, SENT.categories.T, strict=True):
        counted, known = Counter(values), REFERENCE.features[name].values or ()
        *known_counts, unseen = found.features[name].counts
        assert known_counts == [counted[value] for value in known]
        assert found.features[name].missing == counted[""]
        assert unseen == len(values) - sum(known_counts) - counted[""]
    assert found.prediction["size"].counts == found.prediction["other"].counts[::-1]


def test_edges_are_the_same_after_prometheus_3_rewrites_them() -> None:
    """Prometheus changes `le="0.0"` to `le="0"` and the reverse."""
    rewritten = PAGE.replace('le="0.0"', 'le="0"').replace('le="-1.5"', 'le="-1.50"')
    assert read_page(rewritten, BUNDLE) == read_page(PAGE, BUNDLE)


def test_a_server_without_requests_has_counts() -> None:
    assert request_counts(read_page(page(server()), BUNDLE), REFERENCE).rows == 0


MISSING = r'(slipway_feature_missing_total\{feature="size"\} )\S+'
ZERO = r'(slipway_feature_bucket\{feature="size",le=)"0.0"(\} )\S+'
FAULTS = {
    "another bundle": (BUNDLE, "f" * 32, f"is of the bundle '{'f' * 32}', but the champion is '{BUNDLE}'"),
    "no bundle": ("slipway_model_info{", "other_info{", "is not from a server of Slipway"),
    "not a page": ("# HELP", "<html>", "is not the output of /metrics"),
    "a fraction": (MISSING, r"\1 0.5", "0.5, which is not a count"),
    "negative": (MISSING, r"\1 -1", "-1, which is not a count"),
    "no number": (ZERO, r'\1"0.0"\2 NaN', "nan, which is not a count"),
    "beyond what is exact": (MISSING, r"\1 1e300", "which is not a count"),
    "without end": (MISSING, r"\1 1e999", "inf, which is not a count"),
    "a feature less": ('feature="colour"', 'feature="color"', "lacks slipway_feature_missing_total of 'colour'"),
    "another edge": (ZERO, r'\1"0.1"\2 0', "lacks slipway_feature_bucket of 'size', '0'"),
    "an edge that is none": (ZERO, r'\1"low"\2 0', "slipway_feature_bucket without the labels feature, le"),
    "no label": (r'missing_total\{feature="size"\}', "missing_total{}", "missing_total without the labels feature"),
    "falling": (ZERO, r'\1"0.0"\2 9999', "fewer rows up to a higher edge"),
    "more rows of one feature": (MISSING, r"\1 999", "counts 3,000 rows for one feature and 3,"),
}


@pytest.mark.parametrize(("old", "new", "words"), FAULTS.values(), ids=FAULTS)
def test_an_invalid_page_is_refused(old: str, new: str, words: str) -> None:
    changed, times = re.subn(old, new, PAGE)
    assert times
    with pytest.raises(Malformed, match=re.escape(words)):
        request_counts(read_page(changed, BUNDLE), REFERENCE)


def test_a_duplicate_series_is_refused() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("slipway_feature_values_total"))
    with pytest.raises(Malformed, match="twice"):
        read_page(f"{PAGE}{line}\n", BUNDLE)


def test_two_bundles_on_one_page_are_refused() -> None:
    with pytest.raises(Malformed, match="2 times"):
        read_page(f'{PAGE}slipway_model_info{{bundle="{"f" * 32}"}} 1\n', BUNDLE)


@settings(max_examples=300)
@given(st.data())
def test_a_random_change_of_a_page_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(PAGE)))
    put = data.draw(st.text(max_size=8) | st.sampled_from(["{", "}", '"', "\\", "\n", " ", "#", "1e999", "nan"]))
    text = PAGE[:at] + put + PAGE[at + data.draw(st.integers(0, 40)) :]
    with suppress(Malformed):
        request_counts(read_page(text, BUNDLE), REFERENCE)


MANY = tuple(f"level {i:03}" for i in range(200))
MANY_SCHEMA = Schema(
    kind="regression",
    key=(),
    target="y",
    classes=None,
    columns=(Column(name="c", type="category", required=True),),
)
MANY_REFERENCE = Reference(
    features={"c": FeatureReference(values=MANY, counts=(9,) * 60 + (5,) * 140, missing=0)},
    prediction={"y": FeatureReference(edges=(0.5,), counts=(640, 600), missing=0)},
)


def test_rare_values_of_a_category_are_one_bin_in_servers_and_in_deliveries() -> None:
    metrics = Metrics(MANY_SCHEMA, MANY_REFERENCE, {"name": "model", "bundle": BUNDLE})
    metrics.predicted({"categories": np.array([[each] for each in (*MANY, "unknown")])}, np.ones((201, 1), np.float32))
    found = request_counts(read_page(page(metrics), BUNDLE), MANY_REFERENCE)
    assert found.features["c"] == BinCounts((*[1] * 50, 151), 0)
    assert _count(np.array([*MANY, "unknown"]), MANY_REFERENCE.features["c"]) == found.features["c"]
    drift = compare(BUNDLE, MANY_SCHEMA, MANY_REFERENCE, found, RULE)
    (moved,) = (each for each in drift.moved if each.name == "c")
    assert moved.rows_before == 60 * 9 + 140 * 5
    assert moved.unseen == 151 / 201


def test_counts_of_every_value_of_a_category_are_read() -> None:
    """As those that were built before the number of bins was limited."""
    counts = Counts({Series("slipway_feature_values_total", "c", each): 1 for each in (*MANY, "(other)")})
    counts[Series("slipway_feature_missing_total", "c", "")] = 0
    counts.update({Series("slipway_prediction_bucket", "y", edge): 201 for edge in ("0.5", "inf")})
    assert request_counts(counts, MANY_REFERENCE).features["c"] == BinCounts((*[1] * 50, 151), 0)


def counts(**values: int) -> Counts:
    return Counts({Series("m", name, ""): value for name, value in values.items()})


def test_counts_before_the_window_are_subtracted() -> None:
    assert increase(counts(a=5, b=1), [counts(a=5, b=1), counts(a=9, b=1)]) == counts(a=4, b=0)
    assert increase(Counts(), [counts(a=3, b=0), counts(a=4, b=0)]) == counts(a=4, b=0)
    assert increase(counts(a=5, b=1), []) == Counts()


def test_a_restarted_replica_counts_from_zero() -> None:
    """The count of `b` does not fall, so it would not show the restart."""
    assert increase(counts(a=5, b=1), [counts(a=7, b=1), counts(a=2, b=2), counts(a=3, b=2)]) == counts(a=5, b=2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30), st.integers(1, 5))
def test_the_increase_does_not_depend_on_the_number_of_moments(rows: list[tuple[int, int]], every: int) -> None:
    seen, total = [], Counts()
    for a, b in rows:
        total = Counts(total)
        total.update(counts(a=a, b=b))
        seen.append(total)
    assert increase(Counts(), [*seen[::every], total]) == total

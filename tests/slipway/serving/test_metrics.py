"""Metrics count every row and request, for any kinds of columns and any number of rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from slipway.bundle import Column, FeatureReference, Reference, Schema
from slipway.serving.metrics import BATCH, Metrics
from slipway.serving.records import Records
from slipway.statistics.bins import category_rows, count_numbers, series, within_series

NUMBER = Column(name="size", type="number", required=True)
CATEGORY = Column(name="kind", type="category", required=True, values=("a", "b"))
EDGES = FeatureReference(edges=(1.0, 2.0), counts=(0, 0, 0), missing=0)
VALUES = FeatureReference(values=("a", "b"), counts=(0, 0), missing=0)


@pytest.mark.parametrize("columns", [(NUMBER,), (CATEGORY,), (NUMBER, CATEGORY)], ids=["number", "category", "both"])
@pytest.mark.parametrize("rows", [1, 7, BATCH + 1])
def test_every_row_is_counted_once(columns: tuple[Column, ...], rows: int) -> None:
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=columns)
    features = {each.name: EDGES if each.type == "number" else VALUES for each in columns}
    metrics = Metrics(schema, Reference(features=features, prediction={"y": EDGES}), {})
    records, row = Records(schema, 2 * BATCH), {"size": 1.5, "kind": "b"}
    sent: list[dict[str, Any]] = [{each.name: row[each.name] for each in columns}] * rows
    times = 3 * BATCH // rows
    for _ in range(times):
        metrics.predicted(records.from_rows(sent, str), np.full((rows, 1), 3, np.float32))
        metrics.answered("/predict", 200, 0.001)
    assert value(metrics, "slipway_prediction_count", output="y") == times * rows
    assert value(metrics, "slipway_prediction_bucket", output="y", le="2.0") == 0
    assert value(metrics, "slipway_requests_total", route="/predict", status="200") == times
    assert value(metrics, "slipway_request_seconds_bucket", route="/predict", le="0.001") == times
    if NUMBER in columns:
        assert value(metrics, "slipway_feature_bucket", feature="size", le="2.0") == times * rows
        assert value(metrics, "slipway_feature_bucket", feature="size", le="1.0") == 0
    if CATEGORY in columns:
        assert value(metrics, "slipway_feature_values_total", feature="kind", value="b") == times * rows


def test_training_rows_have_the_same_bins_as_requests() -> None:
    """The bins have the names that Prometheus writes. Dates have no training rows."""
    edges = FeatureReference(edges=(-1234567.0, 0.5, 5.0), counts=(4, 3, 2, 1), missing=7)
    values = FeatureReference(values=("a", "b"), counts=(6, 0), missing=0)
    day = Column(name="day", type="date", required=True)
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=(day, NUMBER, CATEGORY))
    reference = Reference(features={"day": edges, "size": edges, "kind": values}, prediction={"y": EDGES})
    metrics = Metrics(schema, reference, {})
    training = [each for each in samples(metrics) if each.name == "slipway_training_rows"]
    size = {
        each.labels["bin"]: (each.labels.get("above"), each.value) for each in training if matches_name(each, "size")
    }
    assert size == {
        "-1.234567e+06": (None, 4),
        "0.5": ("-1.234567e+06", 3),
        "5.0": ("0.5", 2),
        "+Inf": ("5.0", 1),
        "(missing)": (None, 7),
    }
    counted = {each.labels["le"] for each in samples(metrics) if each.name == "slipway_feature_bucket"}
    assert counted == set(size) - {"(missing)"}
    kind = {each.labels["bin"]: each.value for each in training if matches_name(each, "kind")}
    assert kind == {"a": 6, "b": 0, "(other)": 0, "(missing)": 0}
    assert [each.labels["bin"] for each in training if each.labels.get("output") == "y"] == ["1.0", "2.0", "+Inf"]
    assert not [each for each in training if matches_name(each, "day")]


def test_a_category_with_many_values_has_a_bounded_number_of_series() -> None:
    values = tuple(f"level {i:05}" for i in range(20_000))
    counts = (5,) * 10_000 + (9,) * 3 + (1,) * 9_997
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=(CATEGORY,))
    features = {"kind": FeatureReference(values=values, counts=counts, missing=2)}
    metrics = Metrics(schema, Reference(features=features, prediction={"y": EDGES}), {})
    metrics.predicted({"categories": np.array([["level 10001"], ["level 00046"], ["level 19999"]])}, np.ones((3, 1)))
    counted = {each.labels["value"]: each.value for each in samples(metrics) if "_values" in each.name}
    trained = {each.labels["bin"]: each.value for each in samples(metrics) if "bin" in each.labels}
    assert list(counted)[:2] == ["level 00000", "level 00001"]
    assert list(counted)[-4:] == ["level 10000", "level 10001", "level 10002", "(other)"]
    assert len(counted) == 51
    assert (counted["level 10001"], counted["level 00046"], counted["(other)"]) == (1, 1, 1)
    assert trained["(other)"] == sum(counts) - 3 * 9 - 47 * 5
    assert trained["(missing)"] == 2
    assert counted.keys() <= trained.keys()


MANY = tuple(f"level {i:05}" for i in range(20_000))
TABLES = {
    "1,024 numbers": (tuple(Column(name=f"pixel_{i}", type="number", required=True) for i in range(1_024)), None),
    "20,000 categories": (tuple(Column(name=f"code_{i}", type="category", required=True) for i in range(9)), None),
    "1,000 classes": ((NUMBER, CATEGORY), tuple(f"class {i}" for i in range(1_000))),
    "texts": (tuple(Column(name=f"text_{i}", type="text", required=True, maximum=9_000) for i in range(99)), None),
    "long names": (tuple(Column(name=f"{'n' * 900}_{i}", type="number", required=True) for i in range(1_024)), None),
    "long classes": ((NUMBER, CATEGORY), tuple(f"{'c' * 900} {i}" for i in range(1_000))),
}


@pytest.mark.parametrize(("columns", "classes"), TABLES.values(), ids=TABLES)
def test_the_metrics_are_small_for_any_schema(columns: tuple[Column, ...], classes: tuple[str, ...] | None) -> None:
    schema = Schema(
        kind="classification" if classes else "regression", key=(), target="y", classes=classes, columns=columns
    )
    deciles = FeatureReference(edges=tuple(i / 7 for i in range(9)), counts=(50,) * 10, missing=3)
    levels = FeatureReference(values=MANY, counts=(20,) * len(MANY), missing=3)
    whole = Reference(
        features={each.name: levels if each.type == "category" else deciles for each in columns},
        prediction=dict.fromkeys(classes or ("y",), deciles),
    )
    metrics = Metrics(schema, within_series(whole, 396), {"name": "model", "bundle": "0" * 32})
    rows = {"numbers": np.ones((7, len(schema.numbers)), np.float32)} if schema.numbers else {}
    names = np.full((7, len(schema.categories)), "level 00003", dtype=object)
    for route in ("/predict", "/invocations", "/v2/infer", "other", "/healthz", "/readyz", "/v2/health/live"):
        metrics.predicted(
            rows | ({"categories": names} if schema.categories else {}), np.ones((7, len(classes or "y")))
        )
        for status in (200, 422, 413, 503):
            metrics.answered(route, status, 0.001)
    registry = CollectorRegistry()
    registry.register(metrics)
    page = generate_latest(registry)
    lines = [line for line in page.splitlines() if not line.startswith(b"#")]
    assert len(lines) <= 500
    assert len(page) <= 200_000
    assert value(metrics, "slipway_prediction_count", output=(classes or ("y",))[0]) == 49
    first = columns[0]
    if first.type == "category":
        assert value(metrics, "slipway_feature_values_total", feature=first.name, value="level 00003") == 49
    else:
        assert value(metrics, "slipway_feature_count", feature=first.name) == 49


def test_the_metrics_are_small_for_categories_with_long_values() -> None:
    columns = tuple(Column(name=f"code_{i}", type="category", required=True) for i in range(9))
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=columns)
    levels = FeatureReference(values=tuple("v" * 2_000 + each for each in MANY), counts=(20,) * len(MANY), missing=3)
    whole = Reference(features={each.name: levels for each in columns}, prediction={"y": EDGES})
    registry = CollectorRegistry()
    registry.register(Metrics(schema, within_series(whole, 396), {"name": "model", "bundle": "0" * 32}))
    page = generate_latest(registry)
    assert b'feature="code_0"' in page
    assert len(page) <= 200_000


def test_a_reference_within_the_limit_is_kept_whole() -> None:
    reference = Reference(features={"size": EDGES, "kind": VALUES}, prediction={"y": EDGES})
    assert sum(map(series, (EDGES, EDGES, VALUES))) == 28
    assert within_series(reference, 64) == reference  # with 36 series of the scale of predictions
    assert list(within_series(reference, 10).prediction) == ["y"]


@pytest.mark.parametrize(("numbers", "bins", "counted"), [(14, 10, 14), (24, 5, 24), (33, 3, 33), (200, 3, 35)])
def test_features_of_a_wide_table_get_fewer_bins_before_the_last_ones_are_left_out(
    numbers: int, bins: int, counted: int
) -> None:
    deciles = FeatureReference(edges=tuple(range(9)), counts=tuple(range(10)), missing=3)
    whole = Reference(features={f"n{each}": deciles for each in range(numbers)}, prediction={"y": EDGES})
    within = within_series(whole, 396)
    assert len(within.features) == counted
    assert {len(each.counts) for each in within.features.values()} == {bins}
    assert {sum(each.counts) for each in within.features.values()} == {45}
    merged = within.features["n0"]
    assert count_numbers(np.arange(-0.5, 9), merged.edges or ()).sum() == 10
    assert len(merged.edges or ()) == bins - 1


def test_a_category_keeps_its_frequent_values_when_it_gets_fewer_bins() -> None:
    levels = FeatureReference(values=tuple("abcdefghijklmnop"), counts=tuple(range(1, 17)), missing=0)
    whole = Reference(features={f"c{each}": levels for each in range(14)}, prediction={"y": EDGES})
    within = within_series(whole, 396).features["c0"]
    assert within.values == (*"ghijklmnop", "(other)")
    assert within.counts == (*range(7, 17), 21)


def test_the_first_features_of_a_wide_table_are_counted_in_any_order_of_types() -> None:
    """The first feature is a category, but the tensors of numbers come first in the graph."""
    other = Column(name="weight", type="number", required=True)
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=(CATEGORY, other, NUMBER))
    reference = Reference(features={"kind": VALUES, "size": EDGES}, prediction={"y": EDGES})
    metrics = Metrics(schema, reference, {})
    metrics.predicted(
        {"numbers": np.array([[9, 1.5]], np.float32), "categories": np.array([["b"]], object)}, np.ones((1, 1))
    )
    assert value(metrics, "slipway_feature_bucket", feature="size", le="2.0") == 1
    assert value(metrics, "slipway_feature_values_total", feature="kind", value="b") == 1


def test_a_value_with_the_name_of_the_last_bin_is_counted_there() -> None:
    reference = FeatureReference(values=("a", "(other)"), counts=(3, 60), missing=0)
    assert category_rows(reference) == {"a": 3, "(other)": 60}


def matches_name(sample: Any, feature: str) -> bool:
    return matches(sample.labels, {"feature": feature})


def value(metrics: Metrics, name: str, **labels: str) -> float:
    (found,) = (each.value for each in samples(metrics) if each.name == name and matches(each.labels, labels))
    return float(found)


def samples(metrics: Metrics) -> Any:
    return (sample for metric in metrics.collect() for sample in metric.samples)


def matches(all_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return labels.items() <= all_labels.items()

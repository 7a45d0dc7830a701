"""A weight of each row (`task.weight`) counts in the loss, the metrics, the slices, the floors and the decay."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from slipway import bundle
from slipway.artifacts import BUNDLE, EVALUATION, SCORES, VALIDATION, Evaluation, Release, Verdict
from slipway.config import Floor, Params, SliceGate, Task, load_params
from slipway.errors import InputError
from slipway.pipeline import gate
from slipway.pipeline.columns import ANSWER, TRUTH, WEIGHT
from slipway.pipeline.decay import LOSS, answer_for
from slipway.pipeline.decay import judge as judge_decay
from slipway.pipeline.gate import check_differences, judge
from slipway.pipeline.importance import permutation_importance
from slipway.pipeline.measure import Measure, best_threshold, check_weight, row_weights
from slipway.review.intervals import metric_intervals, metric_rows
from slipway.statistics.blocks import mean_of
from slipway.statistics.metrics import naive_prediction, summarise
from tests.slipway.conftest import ROOT
from tests.slipway.pipeline.test_decay import answered, released
from tests.slipway.pipeline.test_decay import params as decay_params
from tests.slipway.pipeline.test_gate import NEVER, contest, params
from tests.slipway.pipeline.test_unusual_models import make, rows, stages  # noqa: F401

VALUE = {"value": pa.Column(float, pa.Check.ge(0))}


def example(size: int = 400, seed: int = 0) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    return random.normal(size=size), random.gamma(1, 1, size), random.integers(0, 20, size)


def test_the_standard_error_of_a_weighted_mean_is_the_jackknife_of_the_ratio() -> None:
    values, weights, group = example()
    mean = mean_of(values, groups=group, weights=weights)
    assert mean.value == pytest.approx(np.average(values, weights=weights))
    without = [np.average(values[group != each], weights=weights[group != each]) for each in range(20)]
    assert mean.standard_error == pytest.approx(math.sqrt(19 / 20 * np.square(np.array(without) - mean.value).sum()))
    sizes = np.bincount(group, weights)
    assert mean.blocks == pytest.approx(sizes.sum() ** 2 / np.square(sizes).sum())
    assert (mean.rows, mean.groups) == (400, 20)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_equal_weights_change_nothing(grouped: bool, timed: bool) -> None:
    values, _, group = example()
    day = np.datetime64("2024-01-01") + np.arange(400) // 16 * np.timedelta64(1, "D")
    blocks = {"groups": group if grouped else None, "times": day if timed else None}
    plain, weighted = mean_of(values, **blocks), mean_of(values, **blocks, weights=np.full(400, 7.0))
    for name in ("value", "standard_error", "parts", "blocks", "effective_rows", "days", "groups"):
        assert getattr(weighted, name) == pytest.approx(getattr(plain, name)), name


def test_a_few_heavy_rows_count_like_few_rows() -> None:
    values, _, _ = example(1_000)
    weights = np.where(np.arange(1_000) < 10, 1_000.0, 1.0)
    mean = mean_of(values, weights=weights)
    assert (
        mean.effective_rows == pytest.approx(weights.sum() ** 2 / np.square(weights).sum()) == pytest.approx(12, abs=1)
    )
    expected = np.sqrt((np.square(weights * (values - mean.value)).sum()) * 1_000 / 999) / weights.sum()
    assert mean.standard_error == pytest.approx(expected)
    assert mean.degrees_of_freedom < 12


@pytest.mark.parametrize("scale", [1e-300, 1e38])
def test_only_the_ratio_of_weights_counts(scale: float) -> None:
    values, weights, group = example()
    day = np.datetime64("2024-01-01") + np.arange(400) // 16 * np.timedelta64(1, "D")
    for blocks in ({}, {"groups": group}, {"times": day}, {"times": day, "groups": group}):
        found, expected = (mean_of(values, **blocks, weights=each) for each in (weights * scale, weights))
        assert (found.value, found.standard_error) == pytest.approx((expected.value, expected.standard_error))
        assert (found.blocks, found.effective_rows) == pytest.approx((expected.blocks, expected.effective_rows))


def test_rows_without_weight_are_left_out() -> None:
    values, weights, group = example()
    inside = group < 12
    weights = np.where(inside, weights, 0.0)
    assert mean_of(values, None, group, weights) == mean_of(values[inside], None, group[inside], weights[inside])
    nothing = mean_of(values, None, group, np.zeros(400))
    assert (nothing.value, nothing.judgeable, nothing.interval(0.95)) == (0.0, False, None)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_a_weight_counts_as_that_number_of_equal_rows(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    times = random.integers(1, 4, 60)
    truth, answers = random.lognormal(size=60), random.lognormal(size=(60, 1))
    probabilities, label = random.dirichlet(np.ones(classes), 60), random.integers(0, classes, 60).astype(float)
    for kind, known, given_ in (("regression", truth, answers), ("classification", label, probabilities)):
        wanted = ("recall_at_precision_0.5",) if kind == "classification" else ()
        weighted = summarise(kind, known, given_, wanted=wanted, weights=times.astype(float))  # type: ignore[arg-type]
        repeated = summarise(kind, np.repeat(known, times), np.repeat(given_, times, axis=0), wanted=wanted)  # type: ignore[arg-type]
        weighted.pop("calibration_error", None)  # its bins have equally many rows
        assert weighted == pytest.approx({name: repeated[name] for name in weighted})
    for loss in ("mean_squared_error", "mean_absolute_percentage_error", "huber_0.5", "pinball_0.9"):
        expected = naive_prediction(loss, "regression", np.repeat(truth, times), 0)
        assert naive_prediction(loss, "regression", truth, 0, times.astype(float)) == pytest.approx(expected, rel=1e-4)
    costs = ((0.0, 1.0), (3.0, 0.0))
    if classes == 2:
        expected = best_threshold(costs, np.repeat(label, times), np.repeat(probabilities, times, axis=0))
        assert best_threshold(costs, label, probabilities, times.astype(float)) == expected


def test_the_importance_of_a_feature_is_weighted() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=3_000), "b": random.normal(size=3_000)})
    first = np.arange(3_000) % 3 == 0
    truth = np.where(first, frame["a"], frame["b"])  # `a` matters in a third of the rows

    def predict(rows: pd.DataFrame) -> Any:
        sampled = first[::2]
        return np.where(sampled, rows["a"], rows["b"])[:, None]

    found = {}
    for heavy in (1.0, 100.0):
        weights = np.where(first, heavy, 1.0)
        measure = Measure(Task(kind="regression", loss="mean_absolute_error"))
        found[heavy] = permutation_importance(predict, frame, truth, measure, 0, weights=weights)
    assert found[1.0]["a"] < found[1.0]["b"]
    assert found[100.0]["a"] > found[100.0]["b"]


def weighed(heavy: float, **arguments: Any) -> tuple[pd.DataFrame, Evaluation]:
    """Return scores in which the rows of the slice `small` have the weight `heavy`, and the others the weight 1."""
    scores, evaluation = contest(**arguments)
    scores[WEIGHT] = np.where(scores["slice: size"] == "small", heavy, 1.0)

    def loss(name: str) -> float:
        return float(np.average(scores[f"{name}_loss"], weights=scores[WEIGHT]))

    for name in ("champion", "challenger"):
        contender = getattr(evaluation, name).model_copy(update={"loss": loss(name)})
        evaluation = evaluation.model_copy(update={name: contender})
    return scores, evaluation


def verdict(heavy: float, **arguments: Any) -> Verdict:
    rules = params(slices=SliceGate(minimum_rows=30, margin=0.9))
    task = rules.task.model_copy(update={"weight": "value"})
    return judge(*weighed(heavy, **arguments), NEVER, rules.model_copy(update={"task": task}))


def test_the_gate_decides_by_weights() -> None:
    for gain, slice_gain, expected in ((1.0, -10.0, ("ship", "hold")), (-1.0, 10.0, ("hold", "ship"))):
        found = verdict(1.0, gain=gain, slice_gain=slice_gain), verdict(50.0, gain=gain, slice_gain=slice_gain)
        assert tuple(each.verdict for each in found) == expected
    assert "mean absolute error weighted by value falls by" in found[1].reason
    assert found[1].comparison
    assert found[1].comparison.difference > 5


def test_a_slice_is_judged_by_the_weights_of_its_rows() -> None:
    scores, _ = contest(gain=1)
    half = np.arange(len(scores)) % 20 == 0  # half of the slice `small` gets much worse
    gains = np.where(half, -5.0, 5.0) + np.random.default_rng(1).normal(0, 0.1, len(scores))
    found = {}
    for heavy in (0.1, 10.0):
        scores[WEIGHT] = np.where(half, heavy, 1.0)
        parts = gate.check_slices(scores, gains, params().gate)
        found[heavy] = next(part.regressed for part in parts if part.value == "small")
    assert found == {0.1: False, 10.0: True}


def test_a_slice_without_weight_is_not_judged() -> None:
    scores, _ = contest(gain=1)
    scores[WEIGHT] = np.where(scores["slice: size"] == "small", 0.0, 1.0)
    parts = {part.value: part for part in gate.check_slices(scores, np.full(len(scores), -5.0), params().gate)}
    assert (parts["small"].judged, parts["small"].regressed, parts["large"].regressed) == (False, False, True)
    json.loads(parts["small"].model_dump_json())  # without NaN


def test_the_difference_between_slices_is_weighted() -> None:
    scores, evaluation = contest(gain=1)
    first = np.arange(len(scores)) % 2 == 0
    scores["challenger_loss"] = np.where(first, 100.0, 300.0)
    scores["slice: size"] = np.where(np.arange(len(scores)) % 4 < 2, "a", "b")
    scores["challenger_1"], scores[TRUTH] = scores["challenger_0"], np.where(first, 1, 0)
    scores[ANSWER] = np.where(first, 1, 0)
    scores[WEIGHT] = np.where(first & (scores["slice: size"] == "a"), 3.0, 1.0)
    for limits, expected in ((0.1, (200 - 150) / evaluation.challenger.loss), ({"positive_rate": 0.1}, 0.75 - 0.5)):
        slices = SliceGate(minimum_rows=30, margin=0.5, maximum_difference={"size": limits})
        (found,) = check_differences(scores, evaluation, params(slices=slices).gate)
        assert (found.value, found.held) == (pytest.approx(expected), False)


def test_decay_is_judged_by_weights() -> None:
    then, now = answered(seed=0), answered(small=1.8)
    for frame in (then, now):
        frame[WEIGHT] = np.where(frame["slice: size"] == "small", 20.0, 1.0)
    release = released(then).model_copy(update={"value": float(np.average(then["loss"], weights=then[WEIGHT]))})
    rules = decay_params(bias=0.5, margin=0.3)
    found = judge_decay("1994H1", now, then, release, rules)
    assert found.whole.loss.value == pytest.approx(np.average(now["loss"], weights=now[WEIGHT]))
    assert found.whole.loss.beyond
    plain = judge_decay("1994H1", now.drop(columns=WEIGHT), then.drop(columns=WEIGHT), released(then), rules)
    assert not plain.whole.loss.beyond


def linear(features: pd.DataFrame, target: Any, settings: Any, seed: int) -> Any:  # noqa: ARG001
    return LinearRegression().fit(features, target)


def test_the_pipeline_weights_the_loss_and_every_metric(stages: Callable[..., Params]) -> None:  # noqa: F811
    model = make(VALUE, fit=linear)
    data = rows(value=np.random.default_rng(3).gamma(1, 1, 200).round(2))
    data.loc[0, "value"], data.loc[1, "value"] = -1.0, np.nan
    params = stages(model, data, weight="value")
    validation = json.loads(VALIDATION.read_text())
    assert validation["quarantined"] == 2
    assert {*validation["deliveries"]["a"]["reasons"]} == {"value is less than 0", "value is missing"}
    evaluation, scores = Evaluation.read(EVALUATION), pd.read_parquet(SCORES)
    holdout, training = (pd.read_parquet(f"build/split/{name}.parquet") for name in ("holdout", "training"))
    np.testing.assert_array_equal(scores[WEIGHT], holdout["value"])
    assert evaluation.loss == "mean_absolute_error_weighted_by_value"
    errors = (scores["challenger_0"] - holdout["y"]).abs()
    expected = np.average(errors, weights=holdout["value"])
    assert evaluation.challenger.loss == evaluation.challenger.metrics["mean_absolute_error"] == pytest.approx(expected)
    median = np.quantile(training["y"], 0.5, weights=training["value"], method="inverted_cdf")
    assert evaluation.baseline.loss == pytest.approx(
        np.average((median - holdout["y"]).abs(), weights=holdout["value"])
    )
    rules = params.gate.model_copy(update={"minimum_rows": 30, "suspicious": None})
    params = params.model_copy(update={"gate": rules})
    found = gate.run(params)
    assert (found.verdict, found.loss) == ("first", "mean_absolute_error_weighted_by_value")
    assert metric_rows(scores, evaluation, found, params)[0].metric == "mean_absolute_error"
    low, high = metric_intervals(scores, params, "challenger")["mean_absolute_error"] or (0, 0)
    assert low < expected < high
    floors = {"mean_absolute_error": Floor(at_most=expected * 0.999)}
    held = gate.run(params.model_copy(update={"gate": rules.model_copy(update={"floors": floors})}))
    assert (held.verdict, "mean absolute error is " in held.reason) == ("hold", True)
    scored = answer_for(holdout, bundle.load_bundle(BUNDLE), params, model)
    np.testing.assert_allclose(scored[LOSS], errors)
    np.testing.assert_array_equal(scored[WEIGHT], holdout["value"])
    Path("metrics/release.json").write_text(
        Release(champion="x", loss="mean_absolute_error", value=1.0, holdout=evaluation.holdout).model_dump_json()
    )
    assert gate.decay(Release.read(Path("metrics/release.json")), evaluation.challenger, evaluation) is None


@pytest.mark.parametrize(
    ("column", "names", "words"),
    [
        (None, {}, "but SCHEMA has no such column"),
        (pa.Column(float, pa.Check.ge(0)), {"FEATURES": ("x", "value")}, "which src/model uses as a feature"),
        (pa.Column(float, pa.Check.ge(0)), {"KEY": ("id", "value")}, "which src/model uses as a feature, key"),
        (pa.Column(float, pa.Check.ge(0)), {"TARGET": "value"}, "key, target or time"),
        (pa.Column(float, pa.Check.ge(0), nullable=True), {}, "must be float or int and not nullable"),
        (pa.Column(str), {}, "must be float or int"),
        (pa.Column(bool), {}, "must be float or int"),
        (pa.Column(float), {}, "may be negative by src/model/schema.py; add `pa.Check.ge"),
        (pa.Column(float, pa.Check.ge(-1)), {}, "may be negative"),
        (pa.Column(float, pa.Check.le(9)), {}, "may be negative"),
    ],
)
def test_a_column_that_cannot_be_a_weight_is_refused(column: Any, names: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_weight("value", make({"value": column} if column else {}, **names))


@pytest.mark.parametrize(
    "check", [pa.Check.ge(0), pa.Check.gt(0), pa.Check.in_range(0, 9), pa.Check.isin([1, 2]), pa.Check.ge(2)]
)
def test_any_check_that_excludes_negative_numbers_allows_a_weight(check: Any) -> None:
    for dtype in (float, int, "float32", "Int64"):
        check_weight("value", make({"value": pa.Column(dtype, check)}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, np.inf], "is missing, negative or beyond single precision in 1 rows"),
        ([1.0, 1e39], "in 1 rows"),
        ([1.0, np.nan, -1.0], "in 2 rows"),
        ([0.0, 0.0], "is 0 in all 2 rows"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(values: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        row_weights(pd.DataFrame({"value": values}), "value")
    with pytest.raises(InputError, match="these rows lack the column"):
        row_weights(pd.DataFrame({"other": values}), "value")


def test_a_loss_that_compares_pairs_and_logged_requests_cannot_be_weighted() -> None:
    with pytest.raises(ValueError, match="so it cannot be weighted"):
        Task(kind="classification", loss="one_minus_auc", weight="value")
    content = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    content["task"]["weight"] = "value"
    assert Params.model_validate(content).task.loss_name == "mean_absolute_error_weighted_by_value"
    live = {"log": "s3://bucket/log", "labels": "s3://bucket/labels"}
    with pytest.raises(ValueError, match="which the requests that `live` reads do not have"):
        Params.model_validate(content | {"live": live})


def test_a_weight_is_checked_before_a_model_is_trained(stages: Callable[..., Params]) -> None:  # noqa: F811
    with pytest.raises(InputError, match="but SCHEMA has no such column"):
        stages(make(), rows(), weight="value")
    assert not BUNDLE.exists()

"""Losses and metrics, against their definitions and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from slipway.config import CLASSIFICATION_LOSSES, METRICS, REGRESSION_LOSSES, Kind, Task, loss_number
from slipway.pipeline.columns import SLICE, TRUTH
from slipway.pipeline.gate import check_slices
from slipway.statistics.blocks import mean_of
from slipway.statistics.metrics import (
    LOSSES,
    calibration_error,
    naive_prediction,
    recall_at_precision,
    roc_auc,
    row_losses,
    summarise,
)
from tests.slipway.pipeline.test_gate import RULES

VALUES = arrays(float, 12, elements=st.floats(1, 1e6))


@given(VALUES, VALUES)
def test_the_mean_of_row_losses_is_the_metric(truth: np.ndarray, answer: np.ndarray) -> None:
    summary = summarise("regression", truth, answer[:, None])
    for loss in REGRESSION_LOSSES:
        assert row_losses(loss, truth, answer[:, None]).mean() == pytest.approx(summary[loss])
    assert summary["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, answer))
    assert summary["bias"] == pytest.approx((answer - truth).mean())


def test_an_error_as_a_percentage_of_0_is_not_shown() -> None:
    """scikit-learn divides by a tiny number instead, and shows an error of 10^14 percent."""
    metrics = [{*summarise("regression", np.array(truth), np.ones((2, 1)))} for truth in ([1.0, 2.0], [0.0, 2.0])]
    assert metrics[0] - metrics[1] == {"mean_absolute_percentage_error"}


def test_classification_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 200)
    truth = random.integers(0, 3, 200).astype(float)
    summary = summarise("classification", truth, probabilities)
    assert summary["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities))
    assert summary["error_rate"] == pytest.approx(1 - sk.accuracy_score(truth, probabilities.argmax(axis=1)))
    for loss in {*CLASSIFICATION_LOSSES} & {*summary}:  # one minus AUC is compared below
        assert row_losses(loss, truth, probabilities).mean() == pytest.approx(summary[loss])


@pytest.mark.parametrize("classes", [2, 3])
def test_brier_score_agrees_with_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(classes), 200)
    truth = random.integers(0, classes, 200).astype(float)
    expected = sk.brier_score_loss(truth, probabilities[:, 1] if classes == 2 else probabilities)
    assert row_losses("brier_score", truth, probabilities).mean() == pytest.approx(expected)


def test_brier_score_of_two_classes_is_the_squared_error_of_one_probability() -> None:
    assert row_losses("brier_score", np.array([1.0]), np.array([[0.3, 0.7]]))[0] == pytest.approx(0.09)


def test_the_loss_of_a_certain_but_wrong_prediction_is_finite() -> None:
    assert np.isfinite(row_losses("log_loss", np.array([0.0]), np.array([[0.0, 1.0]]))).all()


def test_every_loss_of_the_configuration_exists() -> None:
    assert set(LOSSES) == set(REGRESSION_LOSSES) | set(CLASSIFICATION_LOSSES)


TRUTHS = arrays(float, 9, elements=st.floats(-1e3, 1e3).filter(lambda value: abs(value) > 1e-3))


@given(TRUTHS, st.floats(-1e3, 1e3), st.sampled_from(REGRESSION_LOSSES))
def test_no_other_constant_has_a_lower_loss_than_the_naive_prediction(
    truth: np.ndarray, other: float, loss: str
) -> None:
    naive = naive_prediction(loss, "regression", truth, 0)
    reference = np.full((9, 1), other)
    assert (
        row_losses(loss, truth, np.repeat(naive, 9, axis=0)).mean() <= row_losses(loss, truth, reference).mean() + 1e-6
    )


def test_the_naive_classifier_predicts_the_share_of_each_class() -> None:
    shares = naive_prediction("log_loss", "classification", np.array([0.0, 1, 1, 1]), 3)
    np.testing.assert_allclose(shares, [[0.25, 0.75, 0]])


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.9])
def test_pinball_agrees_with_scikit_learn(quantile: float) -> None:
    random = np.random.default_rng(0)
    truth, answer = random.normal(size=(2, 300))
    loss = f"pinball_{quantile:g}"
    expected = sk.mean_pinball_loss(truth, answer, alpha=quantile)
    assert row_losses(loss, truth, answer[:, None]).mean() == pytest.approx(expected)
    losses = row_losses(loss, truth, answer[:, None])
    assert summarise("regression", truth, answer[:, None], loss, losses)[loss] == pytest.approx(expected)
    assert loss not in summarise("regression", truth, answer[:, None], "mean_absolute_error")


def test_huber_is_a_parabola_near_zero_and_a_line_beyond_the_threshold() -> None:
    answers = np.array([[0.0], [1.0], [-2.0], [3.0], [-10.0]])
    assert row_losses("huber_2", np.zeros(5), answers).tolist() == [0, 0.5, 2, 4, 18]


@given(TRUTHS, st.floats(-1e3, 1e3), st.sampled_from(["pinball_0.1", "pinball_0.75", "huber_0.5", "huber_100"]))
def test_no_constant_has_a_smaller_loss_with_a_parameter_than_the_naive_prediction(
    truth: np.ndarray, other: float, loss: str
) -> None:
    naive = naive_prediction(loss, "regression", truth, 0)
    smallest, another = (
        row_losses(loss, truth, np.full((len(truth), 1), each)).mean() for each in (naive.item(), other)
    )
    assert smallest <= another * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize(
    ("loss", "parsed"),
    [
        ("pinball_0.9", ("pinball", 0.9)),
        ("huber_1000", ("huber", 1000.0)),
        ("pinball_1", None),
        ("pinball_0", None),
        ("pinball_0.90", None),
        ("pinball_nan", None),
        ("pinball_0.9x", None),
        ("huber_-1", None),
        ("huber_1e999", None),
        ("log_loss", None),
    ],
)
def test_a_parameter_of_a_loss_has_one_spelling(loss: str, parsed: tuple[str, float] | None) -> None:
    assert loss_number(loss) == parsed


def test_a_loss_with_a_parameter_needs_a_regression() -> None:
    assert Task(kind="regression", loss="pinball_0.9", unit="$").unit_of_loss == "$"
    assert Task(kind="regression", loss="huber_10", unit="$").unit_of_loss == ""
    with pytest.raises(ValueError, match="the loss of a classification is one of"):
        Task(kind="classification", loss="pinball_0.9")
    with pytest.raises(ValueError, match=r"pinball_0\.9 \(any quantile\), huber_1000"):
        Task(kind="regression", loss="pinball_2")


@pytest.mark.parametrize("classes", [2, 3])
def test_ranking_metrics_agree_with_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.ones(classes), 300).round(2)  # rounded, so that there are ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = random.integers(0, classes, 300).astype(float)
    summary = summarise("classification", truth, probabilities)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert summary["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, scores, multi_class="ovr"))
    assert summary["average_precision"] == pytest.approx(
        sk.average_precision_score(truth if classes == 2 else np.eye(3)[truth.astype(int)], scores)
    )


def test_ranking_metrics_are_defined_without_a_class() -> None:
    """A day of the holdout may have rows of one class only."""
    probabilities = np.array([[0.4, 0.6], [0.7, 0.3]])
    summary = summarise("classification", np.zeros(2), probabilities)
    assert (summary["roc_auc"], summary["average_precision"]) == (0.5, 0.0)


def test_calibration_error_is_the_gap_between_probability_and_share() -> None:
    truth = np.array([1.0, 0, 0, 0] * 100)
    for probability, gap in ((0.25, 0.0), (0.45, 0.2)):
        answers = np.tile([1 - probability, probability], (400, 1))
        assert calibration_error(truth, answers) == pytest.approx(gap, abs=0.021)
    sure = np.tile([0.9, 0.05, 0.05], (400, 1))
    assert calibration_error(np.zeros(400), sure) == pytest.approx(0.1)
    assert calibration_error(np.array([0.0, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0


def test_calibration_error_of_opposite_gaps_does_not_cancel() -> None:
    truth = np.repeat([1.0, 0.0], 100)
    answers = np.column_stack([np.repeat([0.2, 0.8], 100), np.repeat([0.8, 0.2], 100)])
    assert calibration_error(truth, answers) == pytest.approx(0.2)


def ranked(rows: int = 2_000, classes: int = 2, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth, and probabilities that are related to it and have ties."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, rows).astype(float)
    scores = np.exp(random.normal(size=(rows, classes)) + np.eye(classes)[truth.astype(int)])
    return truth, (scores / scores.sum(axis=1, keepdims=True)).round(2)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_mean_of_the_losses_of_pairs_is_one_minus_auc(classes: int) -> None:
    truth, probabilities = ranked(300, classes)
    losses = row_losses("one_minus_auc", truth, probabilities)
    assert losses.mean() == pytest.approx(1 - roc_auc(truth, probabilities))
    assert row_losses("one_minus_auc", np.zeros(4), probabilities[:4]).tolist() == [0.5] * 4


def test_the_standard_error_of_auc_is_that_of_the_jackknife_of_whole_groups() -> None:
    truth, probabilities = ranked()
    groups = np.random.default_rng(0).integers(0, 40, len(truth))
    areas = np.array([roc_auc(truth[groups != each], probabilities[groups != each]) for each in range(40)])
    exact = np.sqrt(39 / 40 * np.square(areas - areas.mean()).sum())
    found = mean_of(row_losses("one_minus_auc", truth, probabilities), groups=groups)
    assert found.standard_error == pytest.approx(exact, rel=0.02)


def test_auc_of_a_slice_compares_only_rows_of_the_slice() -> None:
    truth, probabilities = ranked()
    slices = np.where(np.arange(2_000) % 4 == 0, "few", "many")
    worse = probabilities.copy()
    worse[slices == "few"] = worse[slices == "few"][:, ::-1]  # the order is reversed
    scores = pd.DataFrame({TRUTH: truth, f"{SLICE}size": slices})
    for name, answers in (("champion", probabilities), ("challenger", worse)):
        scores[f"{name}_loss"] = row_losses("one_minus_auc", truth, answers)
        scores[[f"{name}_0", f"{name}_1"]] = answers
    gains = (scores["champion_loss"] - scores["challenger_loss"]).to_numpy()
    few, many = check_slices(scores, gains, RULES, "one_minus_auc")
    inside = slices == "few"
    assert (few.value, few.regressed, many.regressed) == ("few", True, False)
    assert few.reference_loss == pytest.approx(1 - roc_auc(truth[inside], probabilities[inside]))
    assert few.comparison.difference == pytest.approx(
        few.reference_loss - roc_auc(truth[inside], probabilities[inside])
    )
    assert many.comparison.difference == 0


@pytest.mark.parametrize("precision", [0.3, 0.6, 0.8, 0.99])
def test_recall_at_a_precision_agrees_with_the_curve_of_scikit_learn(precision: float) -> None:
    truth, probabilities = ranked(500)
    precisions, recalls, _ = sk.precision_recall_curve(truth, probabilities[:, 1])
    expected = recalls[:-1][precisions[:-1] >= precision].max(initial=0)
    assert recall_at_precision(truth, probabilities, precision) == pytest.approx(expected)
    name = f"recall_at_precision_{precision}"
    assert summarise("classification", truth, probabilities, wanted=[name])[name] == pytest.approx(expected)
    assert name not in summarise("classification", truth, probabilities)
    assert recall_at_precision(np.zeros(500), probabilities, precision) == 0


@pytest.mark.parametrize("kind", METRICS)
def test_floors_can_name_each_metric_that_is_computed(kind: Kind) -> None:
    answers = np.array([[0.5, 0.5], [0.2, 0.8]]) if kind == "classification" else np.ones((2, 1))
    assert {*summarise(kind, np.array([1.0, 1.0]), answers)} == {*METRICS[kind]}


def test_metrics_of_the_first_class_are_those_of_the_second_with_the_classes_swapped() -> None:
    truth, probabilities = ranked(500)
    wanted = ["recall_at_precision_0.8"]
    first = summarise("classification", truth, probabilities, wanted=wanted, positive=0)
    swapped = summarise("classification", 1 - truth, probabilities[:, ::-1], wanted=wanted)
    for name in ("average_precision", *wanted, "calibration_error"):
        assert first[name] == pytest.approx(swapped[name], abs=1e-3)  # bins of the calibration error have other edges
    second = summarise("classification", truth, probabilities, wanted=wanted)
    assert {name for name in first if first[name] != second[name]} >= {"average_precision", *wanted}
    for name in ("log_loss", "brier_score", "error_rate", "balanced_accuracy", "f1_macro", "roc_auc"):
        assert first[name] == second[name]

"""Losses and metrics, against their definitions and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from slipway.config import CLASSIFICATION_LOSSES, REGRESSION_LOSSES
from slipway.statistics.metrics import LOSSES, naive_prediction, row_losses, summarise

VALUES = arrays(float, 12, elements=st.floats(1, 1e6))


@given(VALUES, VALUES)
def test_the_mean_of_row_losses_is_the_metric(truth: np.ndarray, answer: np.ndarray) -> None:
    summary = summarise("regression", truth, answer[:, None])
    for loss in REGRESSION_LOSSES:
        assert row_losses(loss, truth, answer[:, None]).mean() == pytest.approx(summary[loss])
    assert summary["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, answer))
    assert summary["bias"] == pytest.approx((answer - truth).mean())


def test_classification_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 200)
    truth = random.integers(0, 3, 200).astype(float)
    summary = summarise("classification", truth, probabilities)
    assert summary["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities))
    assert summary["error_rate"] == pytest.approx(1 - sk.accuracy_score(truth, probabilities.argmax(axis=1)))
    for loss in CLASSIFICATION_LOSSES:
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

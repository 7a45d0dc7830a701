"""Decay raises an alarm for a model whose loss or bias grew, and stays quiet for one that did not change."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from slipway.artifacts import Holdout, Release
from slipway.config import Decay, Params, load_params
from slipway.pipeline.decay import DeliveryDecay, judge
from tests.slipway.conftest import ROOT

PARAMS = load_params(ROOT / "params.yaml")
RULES = Decay(confidence=0.95, margin=0.1, bias=0.01, minimum_rows=100)


def params(**rules: Any) -> Params:
    return PARAMS.model_copy(update={"decay": RULES.model_copy(update=rules)})


def answered(
    rows: int = 1000, seed: int = 1, *, scale: float = 1.0, bias: float = 0.0, small: float = 1.0
) -> pd.DataFrame:
    """Return scored rows of houses of about $80,000, with errors of about $8,000, in one slice `small` times that."""
    random = np.random.default_rng(seed)
    truth = random.lognormal(11.2, 0.4, rows)
    size = np.where(np.arange(rows) % 5 == 0, "small", "large")
    errors = random.normal(0, 10_000, rows) * scale * np.where(size == "small", small, 1.0) + bias
    days = pd.Timestamp("1994-01-01") + pd.to_timedelta(np.arange(rows) * 180 // rows, unit="D")
    return pd.DataFrame(
        {
            "loss": np.abs(errors),
            "error: price": errors,
            "truth: price": truth,
            "slice: size": size,
            "time": days,
        }
    )


def decay(now: pd.DataFrame, then: pd.DataFrame | None = None, **rules: Any) -> DeliveryDecay:
    then = answered(seed=0) if then is None else then
    return judge("1994H1", now, then, released(then), params(**rules))


def released(then: pd.DataFrame) -> Release:
    holdout = Holdout(rows=len(then), first=None, last=None)
    return Release(champion="live", loss="mean_absolute_error", value=float(then["loss"].mean()), holdout=holdout)


def test_a_loss_above_the_margin_raises_an_alarm() -> None:
    found = decay(answered(scale=1.4))
    assert found.alarm
    assert found.whole.loss.beyond
    assert found.reason.startswith("mean absolute error rose by 39.5%, from $8,")
    assert " at release to $11," in found.reason
    assert "95% interval [" in found.reason
    assert "on 1,000 sales from 1994-01-01 to 1994-06-29, and decay.margin allows 10.0%" in found.reason


def test_a_loss_within_the_margin_raises_no_alarm() -> None:
    assert not decay(answered(scale=1.4), margin=0.5).alarm
    assert not decay(answered(scale=1.08), bias=0.5).alarm


def test_predictions_that_are_too_low_raise_an_alarm_before_the_loss_does() -> None:
    found = decay(answered(bias=-4_000))
    bias = found.whole.biases["price"]
    assert (found.alarm, found.whole.loss.beyond, bias.beyond) == (True, False, True)
    assert re.search(r"answers are too low by \$3,725 \(4.8%\), 98.75% interval \[2,\d{3}, 4,\d{3}\]", found.reason)
    assert "and decay.bias allows 1.0% more than at release" in found.reason
    assert not decay(answered(bias=-4_000), bias=0.1).alarm


def test_the_reason_reports_predictions_that_are_too_high() -> None:
    assert "answers are too high by $4," in decay(answered(bias=4_400)).reason


def test_a_bias_that_existed_at_release_is_not_decay() -> None:
    assert not decay(answered(bias=-4_000), answered(seed=0, bias=-4_000)).alarm
    assert decay(answered(bias=4_000), answered(seed=0, bias=-4_000)).alarm


def test_a_slice_raises_an_alarm_although_the_whole_delivery_does_not() -> None:
    found = decay(answered(small=1.8), bias=0.1, margin=0.2)
    assert (found.alarm, found.whole.loss.beyond, found.slices[0].value) == (True, False, "small")
    assert "where size is small it rose by " in found.reason
    assert "on 200 sales" in found.reason


def test_a_slice_with_few_rows_is_reported_but_not_judged() -> None:
    found = decay(answered(small=1.8), bias=0.1, margin=0.2, minimum_rows=201)
    assert not found.alarm
    assert [part.loss.at_most is None for part in found.slices] == [False, True]


def test_a_delivery_with_few_rows_is_not_judged() -> None:
    found = decay(answered(rows=99, scale=5, bias=-20_000))
    assert not found.alarm
    assert (
        "99 sales from 1994-01-01 to 1994-06-28 are too few to judge; decay.minimum_rows asks for 100" in found.reason
    )


def test_without_the_rows_of_the_release_only_the_whole_delivery_is_judged() -> None:
    release = released(answered(seed=0))
    found = judge("1994H1", answered(small=3), None, release, params())
    assert found.whole.loss.beyond
    assert not any(part.loss.beyond for part in found.slices)
    assert found.slices[0].loss.at_release is None


def test_few_rows_at_release_widen_the_interval() -> None:
    now = answered().drop(columns="time")
    larger, smaller = (answered(rows=rows, seed=0).drop(columns="time") for rows in (100_000, 250))
    many, few = (decay(now, then, margin=0).whole.loss.interval for then in (larger, smaller))
    assert np.ptp(few) == pytest.approx(np.ptp(many) * np.sqrt(1 + 1000 / 250), rel=0.1)
    release = released(smaller)
    unknown = judge("1994H1", now, None, release, params(margin=0)).whole.loss.interval
    assert np.ptp(unknown) == pytest.approx(np.ptp(few), rel=0.1)


def test_a_model_without_decay_raises_an_alarm_in_at_most_5_percent_of_trials() -> None:
    """Without a margin, loss, bias and slices together keep the configured confidence."""
    strict = {"margin": 0.0, "bias": 0.0, "minimum_rows": 50}
    trials = [(answered(400, seed).drop(columns="time"), answered(600, 1000 + seed)) for seed in range(60)]
    assert sum(decay(*trial, **strict).alarm for trial in trials) <= 5
    assert not any(decay(*trial).alarm for trial in trials[:20])


def test_half_of_the_false_alarms_are_allowed_for_the_loss_and_a_quarter_each_for_biases_and_slices() -> None:
    """The interval of a loss has two ends, and only the lower one can raise an alarm."""
    found = decay(answered())
    assert len(found.slices) == 2
    allowed = [(1 - found.whole.loss.confidence) / 2, 1 - found.whole.biases["price"].confidence]
    assert allowed == pytest.approx([0.025, 0.0125])
    assert sum((1 - part.loss.confidence) / 2 for part in found.slices) == pytest.approx(0.0125)


def test_each_row_is_in_exactly_one_period() -> None:
    found = decay(answered())
    assert [part.value for part in found.periods][:2] == ["1994-01-01", "1994-01-31"]
    assert len(found.periods) == 6
    assert sum(part.rows for part in found.periods) == 1000
    one_day = answered().assign(time=pd.Timestamp("1994-01-01 10:00"))
    assert [part.rows for part in decay(one_day).periods] == [1000]
    assert decay(answered().drop(columns="time")).periods == ()


def test_rows_of_a_group_are_not_counted_as_independent() -> None:
    """Four rows with the same error carry little more information than one."""
    now = answered(300).drop(columns="time")
    grouped = now.loc[now.index.repeat(4)].reset_index(drop=True)
    ends = [
        np.ptp(decay(grouped.assign(group=group), answered(100_000, 0)).whole.loss.interval)
        for group in (np.arange(1200) // 4, np.arange(1200))
    ]
    assert ends[0] == pytest.approx(2 * ends[1], rel=0.2)
    few = decay(grouped.assign(group=np.arange(1200) // 150))
    assert "come from 8 groups, too few to judge; 10 are needed" in few.reason
    assert not few.alarm


def weather(days: int, seed: int, *, storm: float = 0.0) -> pd.DataFrame:
    """Return fifty scored rows for each day, all with larger errors on a bad day."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), 50)
    bad = random.lognormal(0, 0.6, days) * (1 + storm)
    errors = random.normal(0, 10_000, days * 50) * bad[day]
    return pd.DataFrame(
        {
            "loss": np.abs(errors),
            "error: price": errors,
            "truth: price": np.full(days * 50, 80_000.0),
            "time": pd.Timestamp("1994-01-01") + pd.to_timedelta(day, unit="D"),
        }
    )


def test_rows_of_a_day_are_not_counted_as_independent() -> None:
    """Without a margin, counting rows as independent reports decay between two random months in many trials."""
    pairs = [(weather(30, seed), weather(30, 1000 + seed)) for seed in range(40)]
    by_row = [(now.drop(columns="time"), then.drop(columns="time")) for now, then in pairs]
    strict = {"margin": 0.0, "bias": 0.5}
    assert sum(decay(*pair, **strict).alarm for pair in pairs) <= 2
    assert sum(decay(*pair, **strict).alarm for pair in by_row) >= 10
    assert all(decay(weather(30, seed, storm=3.0), weather(30, 1000 + seed)).alarm for seed in range(10))


def test_the_reason_reports_a_loss_that_fell() -> None:
    found = decay(answered(scale=0.8, bias=-2_500))
    assert found.alarm
    assert re.match(r"mean absolute error fell by 1\d\.\d%, from \$8,\d{3} at release to \$6,\d{3}, ", found.reason)
    assert "; answers are too low by $2," in found.reason


def test_the_reason_states_the_number_of_independent_rows() -> None:
    assert re.search(r"; 1,500 sales in 30 days count like \d\d independent ones$", decay(weather(30, 0)).reason)


def classified(rows: int = 2000, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Return scored rows of a class with a share of 0.3, whose probabilities are too high by `shift`."""
    random = np.random.default_rng(seed)
    probability = random.beta(3, 7, rows)
    truth = (random.random(rows) < probability).astype(float)
    answer = np.clip(probability + shift, 0.001, 0.999)
    loss = -np.log(np.where(truth == 1, answer, 1 - answer))
    return pd.DataFrame({"loss": loss, "error: bad": answer - truth, "truth: bad": truth})


def test_a_unit_that_is_a_word_follows_the_loss_and_the_bias() -> None:
    task, then = PARAMS.task.model_copy(update={"unit": "bikes"}), answered(seed=0)
    rules = params(margin=1.0).model_copy(update={"task": task})
    reason = judge("next", answered(bias=4_000), then, released(then), rules).reason
    assert re.search(r" from [\d,]+ bikes at release to [\d,]+ bikes, ", reason)
    assert re.search(r"; answers are too high by [\d,]+ bikes \(", reason)


def test_a_classification_with_biased_probabilities_raises_an_alarm() -> None:
    task = PARAMS.task.model_copy(update={"kind": "classification", "loss": "log_loss", "unit": ""})
    rules = params(bias=0.02).model_copy(update={"task": task})
    then = classified(seed=0)
    quiet, alarm = (judge("next", classified(shift=by), then, released(then), rules) for by in (0.0, 0.1))
    assert (quiet.alarm, alarm.alarm) == (False, True)
    assert (
        "probabilities of bad are too high by 9.722 points (0.4022 where 0.305 is true), 98.75% interval ["
        in alarm.reason
    )
    assert "and decay.bias allows 2 points more than at release" in alarm.reason
    assert quiet.reason.startswith("log loss ")


def test_the_allowed_bias_of_a_probability_is_absolute() -> None:
    """One percent of a share of 0.3 would be 0.3 points, which is within the noise."""
    task = PARAMS.task.model_copy(update={"kind": "classification", "loss": "log_loss", "unit": ""})
    rules = params(bias=0.02, margin=1.0).model_copy(update={"task": task})
    then = classified(50_000, seed=0)
    near, far = (judge("next", classified(50_000, shift=by), then, released(then), rules) for by in (0.015, 0.03))
    assert (near.alarm, far.alarm) == (False, True)

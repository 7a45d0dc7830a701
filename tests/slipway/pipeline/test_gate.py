"""The gate ships only a better model. Each reason for a hold has a test in which the gate holds a model."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.artifacts import VERDICT, Contender, Evaluation, Holdout, Release, Verdict
from slipway.config import Floor, Gate, Params, SliceGate, load_params
from slipway.errors import InputError
from slipway.pipeline.columns import ANSWER, TRUTH, WEIGHT
from slipway.pipeline.gate import check_differences, compare, judge
from slipway.statistics.blocks import mean_of
from tests.slipway.conftest import ROOT, Result

RULES = Gate(
    confidence=0.95,
    margin=0,
    minimum_rows=100,
    equality_tolerance=1e-6,
    floors={},
    slices=SliceGate(minimum_rows=30, margin=0.0),
)
PARAMS = load_params(ROOT / "params.yaml")
NEVER = Release(champion=None)


def params(**rules: Any) -> Params:
    return PARAMS.model_copy(update={"gate": RULES.model_copy(update=rules)})


def contest(
    gain: float = 0.0,
    noise: float = 1.0,
    rows: int = 1000,
    *,
    champion: str | None = "old",
    challenger: str = "new",
    baseline: float = 1000.0,
    slice_gain: float | None = None,
) -> tuple[pd.DataFrame, Evaluation]:
    """Return the scores of two models with losses of about 100 that differ by `gain`, or `slice_gain` in `small`."""
    random = np.random.default_rng(7)
    losses = random.gamma(4, 25, rows)
    gains = gain + random.normal(0, noise, rows) - 0.0
    gains += gain - gains.mean()
    small = np.arange(rows) % 10 == 0
    if slice_gain is not None:
        gains[small] += slice_gain - gains[small].mean()
        gains[~small] += (gain * rows - gains[small].sum()) / (~small).sum() - gains[~small].mean()
    columns: dict[str, Any] = {
        "challenger_loss": losses - gains,
        "challenger_0": losses - gains,
        "baseline_loss": np.full(rows, baseline),
        "baseline_0": np.full(rows, baseline),
        "slice: size": np.where(small, "small", "large"),
    }
    if champion:
        columns |= {"champion_loss": losses, "champion_0": losses}
    scores = pd.DataFrame(columns)

    def contender(name: str, bundle: str | None) -> Contender:
        loss = float(scores[f"{name}_loss"].mean())
        return Contender(bundle=bundle, bytes=1, loss=loss, metrics={"mean_absolute_error": loss, "r_squared": 0.5})

    return scores, Evaluation(
        loss="mean_absolute_error",
        holdout=Holdout(rows=rows, first=None, last=None),
        champion=contender("champion", champion) if champion else None,
        challenger=contender("challenger", challenger),
        baseline=contender("baseline", None),
        slices=(),
        churn=None,
    )


def verdict(rules: dict[str, Any] | None = None, **arguments: Any) -> Verdict:
    return judge(*contest(**arguments), NEVER, params(**(rules or {})))


def test_a_better_model_ships() -> None:
    given = verdict(gain=1)
    assert given.verdict == "ship"
    assert given.comparison
    assert given.comparison.interval[0] > 0
    assert "mean absolute error falls by $1 (1.0%), 95% interval [" in given.reason
    assert "that neither model was trained on" in given.reason


def test_rows_with_the_weight_0_do_not_count_for_the_minimum_rows() -> None:
    scores, evaluation = contest(gain=10)
    weighted = scores.assign(**{WEIGHT: (np.arange(len(scores)) < 99).astype(float)})
    given = judge(weighted, evaluation, NEVER, params())
    assert given.verdict == "hold"
    assert given.reason.startswith("1,000 sales, of which 99 have a weight above 0, are too few to judge")
    limits = RULES.slices.model_copy(update={"maximum_difference": {"size": 0.1}})  # 10 weighted rows are in `small`
    assert not check_differences(weighted, evaluation, RULES.model_copy(update={"slices": limits}))


def test_the_first_model_is_compared_with_the_naive_baseline() -> None:
    assert verdict(champion=None).verdict == "first"
    assert verdict(champion=None, baseline=90).verdict == "hold"


@pytest.mark.parametrize("rules", [{}, {"margin": -0.5, "margin_reason": "fewer features"}])
def test_a_first_model_that_is_not_better_than_the_naive_baseline_is_held(rules: dict[str, Any]) -> None:
    worse, as_good = verdict(rules, champion=None, baseline=90), verdict(rules, champion=None, baseline=97, noise=60)
    assert (worse.verdict, as_good.verdict) == ("hold", "hold")
    assert worse.reason.startswith("mean absolute error is $")
    assert "no better than the naive baseline's $90, on 1,000 sales" in worse.reason
    assert "that does not show an improvement" in as_good.reason


def test_a_model_that_beats_the_champion_is_not_held_for_a_baseline_that_the_champion_misses_by_more() -> None:
    given = verdict(gain=20, baseline=70)
    assert given.verdict == "ship"
    assert "; the naive baseline's $70 is better than the challenger's $75.59" in given.reason
    assert ", which is better than the champion's $95.59" in given.reason
    assert "naive baseline" not in verdict(gain=20).reason


ALLOWED = {
    "margin": -0.05,
    "margin_reason": "fewer features",
    "slices": SliceGate(minimum_rows=30, margin=0.05),
}


def test_a_negative_margin_ships_a_model_that_is_not_much_worse_and_gives_its_reason() -> None:
    given = verdict(ALLOWED, gain=-1)
    assert given.verdict == "ship"
    assert given.reason.startswith("mean absolute error rises by $1 (1.0%), 95% interval [")
    assert "], not worse than 5%, wanted for: fewer features, on 1,000 sales that neither" in given.reason
    assert "not worse than" not in verdict(ALLOWED, gain=1).reason  # which ships without that margin


@pytest.mark.parametrize(
    ("arguments", "rules", "words"),
    [
        ({"gain": -1}, {}, "mean absolute error rises by $1"),
        ({"gain": 0}, {}, "that does not show an improvement"),
        ({"gain": 1, "noise": 60}, {}, "that does not show an improvement"),
        ({"gain": 1}, {"margin": 0.05}, "that does not show more than the margin of 5.0%"),
        ({"gain": 20, "rows": 99}, {}, "99 sales are too few to judge; gate.minimum_rows asks for 100"),
        ({"gain": 20}, {"floors": {"r_squared": Floor(at_least=0.6)}}, "r squared is 0.5"),
        ({"gain": 20}, {"floors": {"mean_absolute_error": Floor(at_most=50)}}, "gate.floors asks for at most 50"),
        ({"gain": 0.1, "noise": 60, "baseline": 70}, {}, "baseline's $70, on 1,000 sales; the champion's is $95.59"),
        ({"gain": -1}, {"margin": -0.01, "margin_reason": "a"}, "more than 1% worse, the margin wanted for: a"),
        ({"gain": -1}, ALLOWED | {"floors": {"r_squared": Floor(at_least=0.6)}}, "r squared is 0.5"),
        ({"gain": -1, "slice_gain": -9}, ALLOWED, "on the whole, and where size is small it rises by $9"),
        ({"gain": -1, "baseline": 70}, ALLOWED, "no better than the naive baseline's $70"),
        ({"gain": 1, "slice_gain": -2}, {}, "but where size is small it rises by $2"),
        ({"gain": float("nan")}, {}, "no better than"),
    ],
)
def test_a_model_is_held_with_the_reason(arguments: dict[str, Any], rules: dict[str, Any], words: str) -> None:
    given = verdict(rules, **arguments)
    assert given.verdict == "hold"
    assert words in given.reason
    assert not given.may_ship


def test_a_slice_that_is_worse_within_its_margin_does_not_hold_the_model() -> None:
    allowed = SliceGate(minimum_rows=30, margin=0.05)
    assert verdict({"slices": allowed}, gain=1, slice_gain=-2).verdict == "ship"


def test_a_slice_with_few_rows_is_reported_but_not_judged() -> None:
    given = verdict({"slices": SliceGate(minimum_rows=101, margin=0)}, gain=1, slice_gain=-2)
    small = next(part for part in given.slices if part.value == "small")
    assert (given.verdict, small.judged, small.regressed) == ("ship", False, False)


def test_more_slices_widen_each_interval() -> None:
    scores, evaluation = contest(gain=1)
    many = scores.assign(**{f"slice: {i}": scores["slice: size"] for i in range(20)})
    few = judge(scores, evaluation, NEVER, params()).slices[0].comparison
    corrected = judge(many, evaluation, NEVER, params()).slices[0].comparison
    assert few.confidence == pytest.approx(1 - 0.05 / 2)
    assert corrected.confidence == pytest.approx(1 - 0.05 / 42)
    assert np.ptp(corrected.interval) > np.ptp(few.interval)


def grouped(groups: int, size: int, seed: int) -> tuple[pd.DataFrame, Evaluation]:
    """Return the scores of equally good models whose gains are correlated by group, as for a house sold twice."""
    random = np.random.default_rng(seed)
    scores, evaluation = contest(rows=groups * size)
    gains = np.repeat(random.normal(0, 5, groups), size) + random.normal(0, 5, groups * size)
    scores = scores.assign(
        challenger_loss=scores["champion_loss"] - gains,
        challenger_0=scores["champion_0"] - gains,
        group=np.repeat([f"g{number}" for number in range(groups)], size),
    )
    challenger = evaluation.challenger.model_copy(update={"loss": float(scores["challenger_loss"].mean())})
    return scores, evaluation.model_copy(update={"challenger": challenger})


def test_rows_of_a_group_are_not_counted_as_independent() -> None:
    """If rows of a group counted as independent, one in three of these equally good models would ship."""
    contests = [grouped(40, 25, seed) for seed in range(60)]
    verdicts = [judge(scores.drop(columns="slice: size"), each, NEVER, params()) for scores, each in contests]
    naive = [judge(scores.drop(columns=["slice: size", "group"]), each, NEVER, params()) for scores, each in contests]
    assert sum(each.verdict == "ship" for each in verdicts) <= 4
    assert sum(each.verdict == "ship" for each in naive) >= 15
    assert verdicts[0].comparison
    assert (verdicts[0].comparison.rows, verdicts[0].comparison.groups) == (1000, 40)


def daily(days: int, rows: int, seed: int, gain: float = 0.0) -> tuple[pd.DataFrame, Evaluation]:
    """Return the scores of models whose gains are correlated by day, as for flights in one storm."""
    scores, evaluation = grouped(days, rows, seed)
    number = scores.pop("group").str.removeprefix("g").astype(int)
    scores["time"] = pd.Timestamp("2024-03-01 08:00") + pd.to_timedelta(number * 24 + scores.index % 12, "h")
    scores[["challenger_loss", "challenger_0"]] -= gain
    loss = float(scores["challenger_loss"].mean())
    return scores, evaluation.model_copy(
        update={
            "challenger": evaluation.challenger.model_copy(update={"loss": loss}),
            "holdout": Holdout(rows=len(scores), first=date(2024, 3, 1), last=date(2024, 3, days)),
        }
    )


def test_rows_of_a_day_are_not_counted_as_independent() -> None:
    contests = [daily(30, 50, seed) for seed in range(60)]
    verdicts = [judge(scores.drop(columns="slice: size"), each, NEVER, params()) for scores, each in contests]
    naive = [judge(scores.drop(columns=["slice: size", "time"]), each, NEVER, params()) for scores, each in contests]
    assert sum(each.verdict == "ship" for each in verdicts) <= 4
    assert sum(each.verdict == "ship" for each in naive) >= 15


def test_a_slice_is_not_worse_for_one_bad_day() -> None:
    """The slice has a hundred rows, but they are all from one day, which is too few days to judge."""
    scores, evaluation = daily(30, 100, 0, gain=20)
    unlucky = (scores["time"].dt.day == 5).to_numpy()
    scores.loc[unlucky, ["challenger_loss", "challenger_0"]] += 60
    scores = scores.assign(**{"slice: weather": np.where(unlucky, "storm", "fair")})
    given = judge(scores, evaluation, NEVER, params())
    storm = next(part for part in given.slices if part.value == "storm")
    assert given.verdict == "ship"
    assert storm.comparison.difference < 0
    assert (storm.judged, storm.regressed, storm.comparison.interval) == (False, False, None)


def test_the_reason_states_the_number_of_independent_rows() -> None:
    given = judge(*daily(30, 100, 0, gain=20), NEVER, params())
    assert given.comparison
    assert given.comparison.effective_rows < 100
    assert re.search(r"; 3,000 sales in 30 days count like \d\d independent ones$", given.reason)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (grouped(9, 100, 0), "900 sales come from 9 groups, too few to judge; 10 are needed, so raise split.share"),
        (daily(9, 100, 0), "to 2024-03-09 come from 9 days, too few to judge; 10 are needed, so raise split.days"),
    ],
)
def test_a_model_is_held_if_there_are_too_few_days_or_groups(
    scores: tuple[pd.DataFrame, Evaluation], words: str
) -> None:
    given = judge(*scores, NEVER, params())
    assert (given.verdict, given.comparison) == ("hold", None)
    assert words in given.reason


def test_correlated_consecutive_days_count_as_one() -> None:
    """Thirty days with only three kinds of weather count as about three independent days."""
    scores, evaluation = daily(30, 50, 0, gain=20)
    spell = np.where(scores["time"].dt.day <= 10, 30, np.where(scores["time"].dt.day <= 20, -30, 10))
    scores["challenger_loss"] -= spell
    given = judge(scores, evaluation, NEVER, params())
    assert given.verdict == "hold"
    assert re.search(
        r"come from 30 days that count like [1-3](\.\d)? independent ones, too few to judge; 4 are", given.reason
    )


def test_days_and_groups_are_counted_together() -> None:
    scores, evaluation = daily(30, 40, 0, gain=20)
    both = scores.assign(group=np.arange(len(scores)) % 40)
    given = judge(both, evaluation, NEVER, params())
    assert given.comparison
    assert (given.comparison.days, given.comparison.groups) == (30, 40)
    assert "in 30 days and 40 groups count like" in given.reason


def test_the_reason_states_the_rows_left_out_because_the_champion_was_trained_on_them() -> None:
    scores, evaluation = contest(gain=1)
    holdout = evaluation.holdout.model_copy(update={"left_out": 1200})
    grown = evaluation.model_copy(update={"holdout": holdout})
    given = judge(scores, grown, NEVER, params())
    assert given.reason.endswith("; 1,200 more were held out and do not count, as the champion was trained on them")
    held = judge(scores, grown, NEVER, params(margin=0.5))
    assert "by a negative gate.margin, or add the label ship-anyway" in held.reason


def test_a_hold_does_not_suggest_more_days_right_after_days_were_raised() -> None:
    scores, evaluation = daily(9, 100, 0)
    holdout = evaluation.holdout.model_copy(update={"left_out": 1200})
    given = judge(scores, evaluation.model_copy(update={"holdout": holdout}), NEVER, params())
    assert "too few to judge; 10 are needed; 1,200 more were held out" in given.reason
    assert "so raise" not in given.reason


def test_the_same_bytes_are_unchanged_and_do_not_ship() -> None:
    given = verdict(champion="same", challenger="same")
    assert (given.verdict, given.may_ship) == ("unchanged", False)


def test_the_interval_of_many_looks_is_that_of_scheffe() -> None:
    """It is the root of k times the quantile of F with k degrees of freedom. For one look, it is Student's quantile."""
    mean = mean_of(np.random.default_rng(1).normal(size=41))
    widths = [(mean.interval(0.95, looks) or (0, 0))[1] - mean.value for looks in (1, 2, 5, 60)]
    # The 95% quantiles of F with 2, 5 and 60 and 40 degrees of freedom, from a table.
    expected = [2.0211, np.sqrt(2 * 3.2317), np.sqrt(5 * 2.4495), np.sqrt(60 * 1.6373)]
    np.testing.assert_allclose(np.array(widths) / mean.standard_error, expected, rtol=1e-4)
    assert mean.interval(0.95, 1) == mean.interval(0.95)


@pytest.mark.parametrize(("noise", "expected"), [(1e-7, "unchanged"), (1.0, "hold")])
def test_equal_predictions_are_unchanged(noise: float, expected: str) -> None:
    assert verdict(noise=noise).verdict == expected


CHANGES: dict[str, Any] = {"server_changes": ("the mark private of the column rooms",)}


@pytest.mark.parametrize(
    ("rows", "expected"), [(1000, "ship"), (99, "hold")], ids=["enough rows", "too few rows to compare predictions"]
)
def test_equal_predictions_ship_if_the_bundle_changes_the_server(rows: int, expected: str) -> None:
    scores, evaluation = contest(noise=0, rows=rows)
    given = judge(scores, evaluation.model_copy(update=CHANGES), NEVER, params())
    assert (given.verdict, given.same_predictions) == (expected, True)
    assert judge(scores, evaluation, NEVER, params()).verdict == "unchanged"


def test_other_predictions_do_not_ship_because_the_bundle_changes_the_server() -> None:
    scores, evaluation = contest(gain=-1)
    given = judge(scores, evaluation.model_copy(update=CHANGES), NEVER, params())
    assert (given.verdict, given.same_predictions) == ("hold", False)


@pytest.mark.parametrize(("gain", "expected"), [(1.0, "ship"), (-1.0, "hold"), (0.0, "ship")])
def test_another_rule_for_choosing_the_class_is_judged_by_its_losses(gain: float, expected: str) -> None:
    scores, evaluation = contest(gain=gain, noise=bool(gain))
    scores["challenger_0"] = scores["champion_0"]
    rule = {"server_changes": ("the rule that chooses the class",), "decides_differently": True}
    given = judge(scores, evaluation.model_copy(update=rule), NEVER, params())
    assert (given.verdict, given.same_predictions) == (expected, gain == 0)


def test_one_different_prediction_is_a_change() -> None:
    scores, evaluation = contest(noise=0)
    assert judge(scores, evaluation, NEVER, params()).verdict == "unchanged"
    scores.loc[3, "challenger_0"] *= 1.001
    assert judge(scores, evaluation, NEVER, params()).verdict == "hold"


def test_a_floor_under_an_undefined_metric_is_an_error() -> None:
    with pytest.raises(InputError, match=r"gate.floors.f1_macro` is undefined on this holdout; name one of"):
        verdict({"floors": {"f1_macro": Floor(at_least=0.5)}})


def test_decay_compares_the_champions_loss_at_release_with_its_loss_now() -> None:
    scores, evaluation = contest(gain=1)
    released = Release(
        champion="old", loss="mean_absolute_error", value=80.0, holdout=Holdout(rows=5, first=None, last=None)
    )
    found = judge(scores, evaluation, released, params()).decay
    assert found
    assert evaluation.champion
    assert (found.at_release, found.now) == (80.0, evaluation.champion.loss)
    another = released.model_copy(update={"champion": "older"})
    assert judge(scores, evaluation, another, params()).decay is None
    same_rows = released.model_copy(update={"holdout": evaluation.holdout})
    assert judge(scores, evaluation, same_rows, params()).decay is None


@settings(max_examples=30)
@given(st.integers(30, 2000), st.floats(-5, 5), st.integers(0, 99))
def test_the_interval_contains_the_difference_and_is_reproducible(rows: int, mean: float, seed: int) -> None:
    gains = np.random.default_rng(seed).normal(mean, 1, rows)
    first, second = (compare(mean_of(gains), 0.95) for _ in range(2))
    assert first == second
    assert first.interval
    assert first.interval[0] <= first.difference <= first.interval[1]
    normal = 1.96 * gains.std() / np.sqrt(rows)
    assert np.ptp(first.interval) == pytest.approx(2 * normal, rel=0.1)


@settings(max_examples=30)
@given(st.floats(-3, 3))
def test_a_worse_model_never_ships(gain: float) -> None:
    given = verdict(gain=gain)
    assert (given.verdict == "ship") <= (gain > 0)


@pytest.mark.parametrize(("kind", "code"), [("ship", 0), ("first", 0), ("unchanged", 0), ("hold", 1)])
def test_the_exit_code_depends_on_the_verdict(
    slipway: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()  # marks the top of a repository
    scores, evaluation = contest(gain=1)
    evaluation.write(Path("metrics/evaluation.json"))
    judge(scores, evaluation, NEVER, params()).model_copy(update={"verdict": kind}).write(VERDICT)
    result = slipway("verdict")
    assert result.code == code
    assert kind.upper() in result.out


def test_the_error_names_a_missing_or_broken_verdict(
    slipway: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()  # marks the top of a repository
    missing = slipway("verdict")
    assert (missing.code, "run `dvc repro`" in missing.err) == (2, True)
    VERDICT.parent.mkdir()
    VERDICT.write_text('{"verdict": "shipp"}')
    broken = slipway("verdict")
    assert (broken.code, "metrics/verdict.json: verdict:" in broken.err) == (2, True)


@pytest.mark.parametrize(("most", "expected"), [(0.4, "hold"), (0.6, "ship")])
def test_too_large_a_difference_between_slices_holds_the_model(most: float, expected: str) -> None:
    scores, evaluation = contest(gain=5)
    small = (scores["slice: size"] == "small").to_numpy()
    for name in ("champion_loss", "challenger_loss"):
        scores.loc[small, name] *= (1.5 * scores[name][~small].mean()) / scores[name][small].mean()
    loss = float(scores["challenger_loss"].mean())
    evaluation = evaluation.model_copy(update={"challenger": evaluation.challenger.model_copy(update={"loss": loss})})
    rules = RULES.slices.model_copy(update={"maximum_difference": {"size": most}})
    given = judge(scores, evaluation, NEVER, params(slices=rules))
    (*_, floor) = given.floors
    assert (given.verdict, floor.held) == (expected, expected == "ship")
    assert floor.value == pytest.approx(0.5 / 1.05)
    if expected == "hold":
        assert "difference of the loss between size small and large is 0.4762" in given.reason
        assert "gate.slices.maximum_difference asks for at most 0.4" in given.reason
    few = rules.model_copy(update={"minimum_rows": 101})  # the slice `small` has 100 rows
    assert not any("difference" in each.metric for each in judge(scores, evaluation, NEVER, params(slices=few)).floors)


def answered() -> pd.DataFrame:
    """Return scores of two classes: 20 rows of each class in the slices `a` and `b`, and 10 rows in `few`."""
    truth = np.tile(np.repeat([0.0, 1.0], 20), 3)
    answer = np.concatenate([np.arange(20) < few for few in (4, 10, 2, 5, 0, 20)]).astype(np.intp)
    losses = {"challenger_loss": 1.0, "challenger_0": 1.0 - answer, "challenger_1": answer.astype(float)}
    sliced = np.repeat(["a, x", "b, x", "few, y"], 40)[: len(truth)]
    rows = pd.DataFrame({TRUTH: truth, ANSWER: answer, **losses, "slice: one & two": sliced})
    return rows.drop(index=range(80, 110))


@pytest.mark.parametrize(
    ("rate", "difference"),
    [("positive_rate", 14 / 40 - 7 / 40), ("true_positive_rate", 0.25), ("false_positive_rate", 0.1)],
)
def test_a_difference_between_rates_of_a_pair_of_columns_has_a_limit(rate: str, difference: float) -> None:
    scores = answered()
    for most in (difference + 0.01, difference - 0.01):
        rules = SliceGate(minimum_rows=20, margin=0, maximum_difference={"one & two": {rate: most}})  # type: ignore[dict-item]
        (found,) = check_differences(scores, contest()[1], params(slices=rules).gate)
        assert found.metric == f"difference of the {rate} between one & two a, x and b, x"
        assert (found.value, found.held) == (pytest.approx(difference), difference <= most)


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [("positive_rate", 1 - 14 / 40, 1 - 7 / 40), ("true_positive_rate", 0.8, 0.9), ("false_positive_rate", 0.5, 0.75)],
)
def test_rates_are_computed_for_the_positive_class(rate: str, low: float, high: float) -> None:
    evaluation = contest()[1].model_copy(update={"positive": "0", "positive_index": 0})
    rules = SliceGate(minimum_rows=20, margin=0, maximum_difference={"one & two": {rate: 0.9}})  # type: ignore[dict-item]
    (found,) = check_differences(answered(), evaluation, params(slices=rules).gate)
    assert (found.metric, found.value) == (
        f"difference of the {rate} between one & two b, x and a, x",
        pytest.approx(high - low),
    )


@pytest.mark.parametrize("missing", [ANSWER, "challenger_1"])
def test_a_difference_between_rates_needs_two_classes(missing: str) -> None:
    rules = SliceGate(minimum_rows=20, margin=0, maximum_difference={"one & two": {"positive_rate": 0.1}})
    with pytest.raises(InputError, match="limits the positive_rate, which needs a classification with two classes"):
        check_differences(answered().drop(columns=missing), contest()[1], params(slices=rules).gate)


def test_a_difference_needs_a_sliced_column() -> None:
    scores, evaluation = contest(gain=5)
    rules = RULES.slices.model_copy(update={"maximum_difference": {"age": 0.1}})
    with pytest.raises(InputError, match=r"`gate\.slices\.maximum_difference\.age` is not a column of"):
        judge(scores, evaluation, NEVER, params(slices=rules))

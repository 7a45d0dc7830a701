import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from slipway.statistics.blocks import MINIMUM_PARTS, SHORTEST_BLOCK, block_length, estimates_of, mean_of

Floats = NDArray[np.float64]


def days(numbers: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Return a random time on each numbered day."""
    hours = np.random.default_rng(9).integers(0, 24, len(numbers)).astype("timedelta64[h]")
    return np.datetime64("2024-01-01") + numbers.astype("timedelta64[D]") + hours


def autoregressive(size: int, memory: float, seed: int) -> Floats:
    series = np.random.default_rng(seed).normal(size=size)
    for index in range(1, size):
        series[index] += memory * series[index - 1]
    return series


def test_independent_rows_have_the_interval_of_students_t() -> None:
    values = np.random.default_rng(0).normal(3, 2, 50)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    mean = mean_of(values)
    assert mean.interval(0.9) == pytest.approx((expected.low, expected.high))
    assert (mean.rows, mean.effective_rows, mean.days, mean.groups) == (50, 50, None, None)


def test_equal_groups_have_the_interval_of_their_means() -> None:
    means = np.random.default_rng(0).normal(size=12)
    values = (means[:, None] + np.array([-1, 0, 1])).ravel()
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    mean = mean_of(values, groups=np.repeat([f"group {index}" for index in range(12)], 3))
    assert mean.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert mean.groups == 12


def test_alternating_days_have_a_shorter_interval_than_independent_means() -> None:
    means = np.tile([1.0, -1.0], 6)  # a good day follows each bad one
    independent = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    mean = mean_of(np.repeat(means, 4), times=days(np.repeat(np.arange(12), 4)))
    low, high = np.sqrt(SHORTEST_BLOCK) * np.array([independent.low, independent.high])
    assert mean.interval(0.95) == pytest.approx((low, high))
    assert (mean.days, mean.blocks) == (12, pytest.approx(12))


def test_the_standard_error_of_unequal_groups_equals_the_jackknife() -> None:
    random = np.random.default_rng(1)
    groups, values = random.integers(0, 10, 200) ** 2, random.normal(size=200)
    without = [values[groups != group].mean() for group in np.unique(groups)]
    expected = np.sqrt(0.9 * np.square(np.subtract(without, values.mean())).sum())
    assert mean_of(values, groups=groups).standard_error == pytest.approx(expected)


def test_unequal_groups_count_as_fewer_groups() -> None:
    values = np.random.default_rng(0).normal(size=190)
    equal = mean_of(values, groups=np.arange(190) % 10)
    unequal = mean_of(values, groups=np.minimum(np.arange(190) // 10, 9))
    assert (equal.groups, unequal.groups) == (10, 10)
    assert equal.blocks == pytest.approx(10)
    assert unequal.blocks < 4


@pytest.mark.parametrize("memory", [0.0, 0.3, 0.6])
def test_the_block_length_is_how_many_days_count_as_one(memory: float) -> None:
    lengths = [block_length(autoregressive(2_000, memory, seed)) for seed in range(20)]
    assert np.mean(lengths) == pytest.approx((1 + memory) / (1 - memory), rel=0.15)


@pytest.mark.parametrize("series", [np.ones(20), np.arange(9.0)])
def test_the_block_length_is_one_if_no_correlation_can_be_estimated(series: Floats) -> None:
    assert block_length(series) == 1


def test_the_block_length_of_alternating_days_has_a_minimum() -> None:
    assert block_length(np.tile([1.0, -1.0], 10)) == SHORTEST_BLOCK


def test_chance_shortens_blocks_of_independent_days_as_well() -> None:
    lengths = [block_length(autoregressive(60, 0, seed)) for seed in range(200)]
    assert np.mean(np.less(lengths, 1)) > 0.2


def test_days_that_follow_each_other_widen_the_interval() -> None:
    effects, row = autoregressive(120, 0.7, 0), np.repeat(np.arange(120), 5)
    in_order = mean_of(effects[row], times=days(row))
    shuffled = mean_of(effects[np.random.default_rng(0).permutation(120)][row], times=days(row))
    assert in_order.standard_error > 1.5 * shuffled.standard_error
    assert in_order.blocks < 0.5 * shuffled.blocks


def test_the_order_of_rows_changes_nothing() -> None:
    random = np.random.default_rng(0)
    values, numbers, groups = random.normal(size=300), random.integers(0, 30, 300), random.integers(0, 15, 300)
    times, other = days(numbers), random.permutation(300)
    first, second = mean_of(values, times, groups), mean_of(values[other], times[other], groups[other])
    assert first.interval(0.95) == pytest.approx(second.interval(0.95))


def test_rows_of_one_day_count_like_few_independent_ones() -> None:
    row, counted = np.repeat(np.arange(60), 100), []
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = random.normal(0, 0.5, 60)[row] + random.normal(size=6_000)  # a fifth of the variance is that of days
        counted.append(mean_of(values, days(row)).effective_rows)
    assert np.mean(counted) == pytest.approx(6_000 / (1 + 99 * 0.2), rel=0.2)


def test_days_and_groups_together_are_wider_than_either_alone() -> None:
    random = np.random.default_rng(2)
    day, group = (each.ravel() for each in np.indices((40, 30)))
    values = random.normal(size=40)[day] + random.normal(size=30)[group] + random.normal(size=1_200)
    by_day, by_group = mean_of(values, times=days(day)), mean_of(values, groups=group)
    both = mean_of(values, days(day), group)
    assert both.standard_error > max(by_day.standard_error, by_group.standard_error)
    assert both.blocks == pytest.approx(min(by_day.blocks, by_group.blocks))


def test_days_and_groups_are_not_counted_twice_if_rows_are_independent() -> None:
    day, group = (each.ravel() for each in np.indices((60, 50)))
    values = np.random.default_rng(0).normal(size=3_000)
    assert mean_of(values, days(day), group).standard_error == pytest.approx(mean_of(values).standard_error, rel=0.15)


@pytest.mark.parametrize("count", [1, 2, MINIMUM_PARTS - 1])
def test_too_few_blocks_have_no_interval(count: int) -> None:
    values = np.random.default_rng(0).normal(size=210)
    few = np.arange(210) % count
    for mean in (mean_of(values, times=days(few)), mean_of(values, groups=few), mean_of(values, days(few), few)):
        assert not mean.judgeable
        assert mean.interval(0.95) is None


def test_equal_rows_have_an_interval_of_width_zero() -> None:
    row = np.repeat(np.arange(20), 3)
    assert mean_of(np.ones(60), days(row), row).interval(0.95) == (1, 1)


@pytest.mark.parametrize(("with_days", "with_groups"), [(True, False), (False, True), (True, True)])
def test_an_estimate_without_closed_form_has_the_interval_of_the_mean(with_days: bool, with_groups: bool) -> None:
    random = np.random.default_rng(0)
    day, group = random.integers(0, 50, 2_000), random.integers(0, 40, 2_000)
    values = random.normal(size=50)[day] + random.normal(size=40)[group] + random.normal(size=2_000)
    times, groups = days(day) if with_days else None, group if with_groups else None
    found = estimates_of(lambda rows: {"mean": float(values[rows].mean())}, 2_000, times, groups)["mean"]
    mean = mean_of(values, times, groups)
    assert (found.value, found.blocks) == pytest.approx((mean.value, mean.blocks))
    assert found.standard_error == pytest.approx(mean.standard_error, rel=0.02)


def test_an_estimate_without_closed_form_leaves_out_at_most_a_hundred_parts() -> None:
    day = np.repeat(np.arange(730), 3)
    values = autoregressive(730, 0.3, 1)[day]
    asked = []

    def figures(rows: NDArray[np.bool_]) -> dict[str, float]:
        asked.append(rows.sum())
        return {"mean": float(values[rows].mean())}

    found = estimates_of(figures, len(day), days(day))["mean"]
    assert len(asked) == 101
    assert found.standard_error == pytest.approx(mean_of(values, days(day)).standard_error, rel=0.25)


def test_a_median_has_about_its_theoretical_interval() -> None:
    errors = []
    for seed in range(30):
        values = np.random.default_rng(seed).normal(size=2_000)
        figures = estimates_of(lambda rows, values=values: {"median": float(np.median(values[rows]))}, 2_000)
        errors.append(figures["median"].standard_error)
    assert np.mean(errors) == pytest.approx(np.sqrt(np.pi / 2 / 2_000), rel=0.2)


@pytest.mark.parametrize("memory", [0.0, 0.4])
def test_the_interval_has_its_confidence_if_rows_of_a_day_are_correlated(memory: float) -> None:
    covered = {"rows": 0, "blocks": 0}
    row = np.repeat(np.arange(40), 50)
    for seed in range(300):
        errors = autoregressive(60, memory, seed)[20:] * 0.8
        values = errors[row] + np.random.default_rng([seed, 1]).normal(size=2_000)
        for name, mean in (("rows", mean_of(values)), ("blocks", mean_of(values, days(row)))):
            low, high = mean.interval(0.95) or (-np.inf, np.inf)
            covered[name] += low <= 0 <= high
    assert covered["rows"] < 0.6 * 300
    assert covered["blocks"] >= 0.92 * 300

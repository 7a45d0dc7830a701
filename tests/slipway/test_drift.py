"""PSI and Jensen-Shannon divergence measure how far a distribution has moved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slipway.statistics.bins import count_numbers
from slipway.statistics.psi import bin_numbers, jensen_shannon, population_stability

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=20)
pairs_of_counts = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=20)


@given(counts)
def test_psi_of_equal_counts_is_zero(values: list[int]) -> None:
    assert population_stability(np.array(values), np.array(values)) == 0


@given(pairs_of_counts)
def test_psi_is_symmetric_and_not_negative(pairs: list[tuple[int, int]]) -> None:
    before, now = (np.array(side) for side in zip(*pairs, strict=True))
    there, back = population_stability(before, now), population_stability(now, before)
    assert there >= 0
    assert np.isclose(there, back)
    assert np.isfinite(there)


@given(pairs_of_counts.filter(lambda pairs: all(map(sum, zip(*pairs, strict=True)))))
def test_jensen_shannon_is_symmetric_and_between_0_and_1_bits(pairs: list[tuple[int, int]]) -> None:
    before, now = (np.array(side) for side in zip(*pairs, strict=True))
    found = jensen_shannon(before, now)
    assert 0 <= found <= 1 + 1e-9
    assert np.isclose(found, jensen_shannon(now, before))
    assert jensen_shannon(before, 3 * before) < 1e-9


def test_jensen_shannon_of_disjoint_distributions_is_one_bit() -> None:
    assert jensen_shannon(np.array([3, 0, 5, 0]), np.array([0, 2, 0, 9])) == 1
    half = jensen_shannon(np.array([1, 0]), np.array([1, 1]))
    assert np.isclose(half, 0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3) + 0.25)


def test_psi_is_large_for_a_shift_of_half_a_deviation_and_small_for_a_new_sample() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=20_000)
    same = population_stability(*bin_numbers(before, random.normal(size=2_000)))
    moved = population_stability(*bin_numbers(before, random.normal(0.5, size=2_000)))
    assert same < 0.02
    assert 0.2 < moved < 0.35  # 0.25 for two normal distributions half a deviation apart


def test_each_value_is_in_exactly_one_bin() -> None:
    before, now = bin_numbers(np.array([1.0, 1.0, 1.0, 2.0, 9.0]), np.array([0.0, 1.0, 50.0]))
    assert (before.sum(), now.sum()) == (5, 3)
    assert len(before) == len(now)


def test_a_bin_includes_its_upper_edge() -> None:
    assert count_numbers(np.array([1.0, 1.5, 2.0, 2.1]), [1.0, 2.0]).tolist() == [1, 2, 1]
    assert count_numbers(np.array([]), [1.0]).tolist() == [0, 0]

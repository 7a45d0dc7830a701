"""How far a distribution has moved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slipway.drift import bin_numbers, population_stability

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=20)


@given(counts)
def test_what_is_alike_has_not_moved(values: list[int]) -> None:
    assert population_stability(np.array(values), np.array(values)) == 0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=20))
def test_it_is_symmetric_and_never_below_zero(pairs: list[tuple[int, int]]) -> None:
    before, now = (np.array(side) for side in zip(*pairs, strict=True))
    there, back = population_stability(before, now), population_stability(now, before)
    assert there >= 0
    assert np.isclose(there, back)
    assert np.isfinite(there)


def test_a_shift_of_half_a_deviation_is_seen_and_a_new_draw_is_not() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=20_000)
    same = population_stability(*bin_numbers(before, random.normal(size=2_000)))
    moved = population_stability(*bin_numbers(before, random.normal(0.5, size=2_000)))
    assert same < 0.02
    assert 0.2 < moved < 0.35  # of two normal distributions half a deviation apart: 0.25


def test_bins_take_each_value_once() -> None:
    before, now = bin_numbers(np.array([1.0, 1.0, 1.0, 2.0, 9.0]), np.array([0.0, 1.0, 50.0]))
    assert (before.sum(), now.sum()) == (5, 3)
    assert len(before) == len(now)

"""SeenIds behaves as a dictionary from id to delivery, however the ids are added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.pipeline import seen_ids
from slipway.pipeline.seen_ids import NEW, IdFilter, SeenIds

IDS = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 30), max_size=40)


@given(st.lists(IDS, max_size=12), IDS)
def test_each_id_belongs_to_its_first_delivery(deliveries: list[list[int]], asked: list[int]) -> None:
    seen, expected = SeenIds(), dict[int, int]()
    for number, delivered in enumerate(deliveries):
        fresh = [each for each in dict.fromkeys(delivered) if each not in expected]
        expected |= dict.fromkeys(fresh, number)
        seen.add(np.array(fresh, dtype=np.uint64), number, all_new=True)
    for ids in (asked, list(expected)):
        owners = seen.owners(np.array(ids, dtype=np.uint64))
        assert owners.tolist() == [expected.get(each, NEW) for each in ids]


def test_a_thousand_small_deliveries_make_a_few_arrays() -> None:
    seen = SeenIds()
    ids = np.random.default_rng(0).permutation(25_000).astype(np.uint64)
    for number, delivered in enumerate(np.split(ids, 1_000)):
        seen.add(delivered, number, all_new=True)
    assert len(seen._arrays) <= np.log2(25_000)
    assert (seen.owners(ids) == np.repeat(np.arange(1_000), 25)).all()


@given(st.lists(st.tuples(st.booleans(), IDS), max_size=12), IDS)
def test_a_removed_id_is_new_until_a_delivery_contains_it_again(
    steps: list[tuple[bool, list[int]]], asked: list[int]
) -> None:
    seen, expected = SeenIds(), dict[int, int]()
    for number, (is_removal, named) in enumerate(steps):
        ids = np.array([*dict.fromkeys(named)], dtype=np.uint64)
        if is_removal:
            seen.remove(ids)
            expected = {each: owner for each, owner in expected.items() if each not in named}
        else:
            seen.add(ids, number, all_new=not expected.keys() & {*named})
            expected |= dict.fromkeys(named, number)
    for ids_ in (asked, [each for _, named in steps for each in named]):
        owners = seen.owners(np.array(ids_, dtype=np.uint64))
        assert owners.tolist() == [expected.get(each, NEW) for each in ids_]


def test_only_a_few_new_ids_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search in a large array takes microseconds, so it must be rare for ids that are new."""
    random = np.random.default_rng(0)
    seen, searched = SeenIds(), []
    find = seen_ids._find
    monkeypatch.setattr(seen_ids, "_find", lambda known, ids: (searched.append(len(ids)), find(known, ids))[1])
    for number in range(50):
        ids = random.integers(0, 2**64, 2_000, dtype=np.uint64)
        assert (seen.owners(ids) == NEW).all()
        seen.add(ids, number, all_new=True)
    assert sum(searched) < 50 * 2_000 / seen_ids.BITS_PER_ID * len(seen._arrays)


@given(IDS, IDS)
def test_the_filter_contains_each_added_id(added: list[int], others: list[int]) -> None:
    known = IdFilter()
    known.add(np.array(added, dtype=np.uint64))
    assert known.may_have(np.array(added, dtype=np.uint64)).all()
    same_bits = {each >> (64 - known.bits) for each in added}
    expected = [each >> (64 - known.bits) in same_bits for each in others]
    assert known.may_have(np.array(others, dtype=np.uint64)).tolist() == expected

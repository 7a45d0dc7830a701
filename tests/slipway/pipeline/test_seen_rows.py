"""SeenIds behaves as a dictionary from id to delivery, however the ids are added."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slipway.pipeline.seen_rows import NEW, SeenIds

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

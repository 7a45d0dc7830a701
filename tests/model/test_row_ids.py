"""Test that row ids never change, because every champion contains the ids of its training rows."""

import numpy as np
import pandas as pd
import pytest

from slipway.pipeline.row_ids import hash_rows

DAYS = pd.Series(pd.to_datetime(["1997-11-03", "1969-12-31"]))
NUMBERS = pd.Series([41.633, -0.0])
TEXTS = pd.Series(["zoë", ""])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([DAYS], [14591635580808197230, 15799281586065408366]),
        ([NUMBERS], [16345675446601990897, 1786884285633530058]),
        ([TEXTS], [16536623599372064488, 1786884285633530058]),
        ([DAYS, NUMBERS, TEXTS, NUMBERS], [5708425805587546282, 17521262344146670812]),
    ],
    ids=["days", "numbers", "texts", "several columns"],
)
def test_row_ids_keep_their_values(columns: list["pd.Series[object]"], expected: list[int]) -> None:
    """If this test fails, increase `VERSION` in row_ids.py. Row ids of different versions must not be compared."""
    assert hash_rows(columns).tolist() == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_row_ids_do_not_depend_on_the_unit_of_dates(unit: str) -> None:
    assert hash_rows([DAYS.dt.as_unit(unit)]).tolist() == hash_rows([DAYS]).tolist()


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_row_ids_do_not_depend_on_how_text_is_stored(dtype: str) -> None:
    assert hash_rows([TEXTS.astype(dtype)]).tolist() == hash_rows([TEXTS]).tolist()


def test_row_ids_do_not_depend_on_whether_whole_numbers_are_floats() -> None:
    whole = pd.Series([0, 1897])
    assert hash_rows([whole]).tolist() == hash_rows([whole.astype(float)]).tolist()


def test_rows_that_differ_by_a_nanosecond_or_the_last_bit_have_different_ids() -> None:
    moments = pd.Series(pd.to_datetime([0, 1, 10**6, 10**9]))
    bits = pd.Series([1.0, np.nextafter(1.0, 2.0), 2.0**53, 2.0**53 + 2])
    for values in (moments, bits):
        assert len(set(hash_rows([values]).tolist())) == len(values)


def test_text_cannot_move_from_one_column_to_the_next() -> None:
    first, second = pd.Series(["ab", "a"]), pd.Series(["c", "bc"])
    assert len(set(hash_rows([first, second]).tolist())) == 2


def test_a_missing_group_differs_from_every_text() -> None:
    ids = hash_rows([pd.Series([None, "nan", "None", ""], dtype="str")])
    assert len(set(ids.tolist())) == 4

"""A row is on one side of the split, and stays there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import model
from slipway.config import Split
from slipway.errors import InputError
from slipway.pipeline.row_ids import hash_rows
from slipway.pipeline.split import masks
from tests.slipway.conftest import Result, edit


def rows(count: int = 500) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "sale_date": pd.Timestamp("1997-01-01") + pd.to_timedelta(random.integers(0, 300, count), "D"),
            "wall": random.choice(["wood", "brick", "stone", "ccbtile", "partbrk"], count),
            "row_id": random.integers(0, 2**64, count, dtype=np.uint64),
        }
    )


@given(st.integers(1, 250))
def test_by_time_the_newest_days_are_held_out(days: int) -> None:
    frame = rows()
    training, held = masks(frame, Split(by="time", days=days), model)
    newest = frame["sale_date"].max()
    assert (newest - frame["sale_date"][held]).max() < pd.Timedelta(days=days)
    assert (newest - frame["sale_date"][~held]).min() >= pd.Timedelta(days=days)
    assert (training == ~held).all()


def test_days_of_a_gap_are_not_used() -> None:
    frame = rows()
    training, held = masks(frame, Split(by="time", days=30, gap_days=14), model)
    age = (frame["sale_date"].max() - frame["sale_date"]).dt.days
    assert (held == (age < 30)).all()
    assert (training == (age >= 44)).all()


def test_by_time_and_group_training_has_neither_the_days_nor_the_groups_of_the_holdout() -> None:
    frame = rows(5000)
    split = Split(by="time_and_group", days=60, gap_days=10, share=0.4, column="wall")
    training, held = masks(frame, split, model)
    assert not set(frame["wall"][held]) & set(frame["wall"][training])
    assert frame["sale_date"][held].min() - frame["sale_date"][training].max() > pd.Timedelta(days=10)
    _, by_group = masks(frame, Split(by="group", share=0.4, column="wall"), model)
    assert set(frame["wall"][held]) == set(frame["wall"][by_group])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"by": "group"}, "a split by group needs `column`"),
        ({"by": "time_and_group"}, "a split by time_and_group needs `column`"),
        ({"by": "key", "gap_days": 3}, "a split by key has no `gap_days`"),
    ],
)
def test_contradictory_settings_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Split(**rules)


@given(st.floats(0.05, 0.95))
def test_by_key_a_share_of_the_rows_is_held_out(share: float) -> None:
    _, held = masks(rows(5000), Split(by="key", share=share), model)
    assert abs(held.mean() - share) < 0.05


@pytest.mark.parametrize("split", [Split(by="key", share=0.3), Split(by="group", share=0.3, column="wall")])
def test_added_data_moves_no_row_to_the_other_side(split: Split) -> None:
    frame = rows()
    (_, whole), (_, part) = masks(frame, split, model), masks(frame.head(200), split, model)
    assert (whole[:200] == part).all()


def test_a_group_is_never_divided() -> None:
    frame = rows()
    _, held = masks(frame, Split(by="group", share=0.4, column="wall"), model)
    assert (frame.assign(held=held).groupby("wall")["held"].nunique() == 1).all()
    assert held.any()


def test_rows_without_a_group_are_one_group() -> None:
    column = pd.Series([None, 7, 2**53 + 1] * 3, dtype="Int64")
    whole, floats = (hash_rows([column.astype(dtype)]) for dtype in ("Int64", "float64"))
    assert len(set(whole[::3])) == 1
    assert len(set(whole)) == 3
    assert (whole[:2] == floats[:2]).all()


@pytest.mark.parametrize("by", ["time", "key", "group", "time_and_group"])
def test_the_column_of_a_split_must_exist_in_the_data(by: str) -> None:
    with pytest.raises(InputError, match="the data has no such column"):
        masks(rows(), Split(by=by, column="parcel"), model)


@pytest.mark.usefixtures("workplace")
def test_an_empty_training_set_or_holdout_is_refused(slipway: Callable[..., Result]) -> None:
    from pathlib import Path

    edit(Path("params.yaml"), "days: 20", "days: 9999")
    assert slipway("validate").code == 0
    result = slipway("split")
    assert result.code == 2
    assert "both parts need rows" in result.err
    assert not Path("build/split").exists()

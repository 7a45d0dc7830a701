"""A row is on one side of the split, and stays there."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import model
from slipway.config import Split
from slipway.errors import InputError
from slipway.pipeline.split import holdout_mask
from tests.slipway.conftest import Result, edit

pytestmark = pytest.mark.sample


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
    held = holdout_mask(frame, Split(by="time", days=days), model)
    newest = frame["sale_date"].max()
    assert (newest - frame["sale_date"][held]).max() < pd.Timedelta(days=days)
    assert (newest - frame["sale_date"][~held]).min() >= pd.Timedelta(days=days)


@given(st.floats(0.05, 0.95))
def test_by_key_a_share_is_held_out(share: float) -> None:
    held = holdout_mask(rows(5000), Split(by="key", share=share), model)
    assert abs(held.mean() - share) < 0.05


@pytest.mark.parametrize("split", [Split(by="key", share=0.3), Split(by="group", share=0.3, column="wall")])
def test_added_data_moves_no_row(split: Split) -> None:
    frame = rows()
    assert (holdout_mask(frame, split, model)[:200] == holdout_mask(frame.head(200), split, model)).all()


def test_a_group_is_never_torn_apart() -> None:
    frame = rows()
    held = holdout_mask(frame, Split(by="group", share=0.4, column="wall"), model)
    assert (frame.assign(held=held).groupby("wall")["held"].nunique() == 1).all()
    assert held.any()


def test_a_group_needs_a_column_of_the_data() -> None:
    with pytest.raises(InputError, match="no column of the data"):
        holdout_mask(rows(), Split(by="group", column="parcel"), model)


@pytest.mark.usefixtures("workplace")
def test_an_empty_side_is_refused(slipway: Callable[..., Result]) -> None:
    from pathlib import Path

    edit(Path("params.yaml"), "days: 20", "days: 9999")
    assert slipway("validate").code == 0
    result = slipway("split")
    assert result.code == 2
    assert "both parts need rows" in result.err
    assert not Path("build/split").exists()

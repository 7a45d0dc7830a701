"""The two readers of a schema, msgspec and pydantic, accept the same records."""

import json
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from slipway.serving.served_model import ServedModel
from tests.slipway.serving.odd import ROW
from tests.slipway.serving.test_fuzz import NASTY


def msgspec_accepts(model: ServedModel, row: Any) -> bool:
    try:
        model.records.from_records([msgspec.convert(row, model.records.one)])
    except msgspec.ValidationError:
        return False
    return True


def pydantic_accepts(model: ServedModel, row: Any) -> bool:
    try:
        model.records.model.model_validate(row)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("bundle", ["odd_model", "lenient_model", "champion"])
def test_both_readers_accept_the_same_records(bundle: str, request: pytest.FixtureRequest) -> None:
    model: ServedModel = request.getfixturevalue(bundle)
    good = dict(model.golden.rows[0])
    bounds = [each for column in model.schema.columns for each in (column.minimum, column.maximum) if each is not None]
    values = [value for column in model.schema.columns for value in column.values or ()]
    accepted = 0
    for name in good:
        surprise = good | {"surprise": True}
        assert msgspec_accepts(model, surprise) == pydantic_accepts(model, surprise) == (bundle == "lenient_model")
        for value in [*(each for each in NASTY if each != "\ud800"), *bounds, *values]:
            row = good | {name: value}
            assert msgspec_accepts(model, row) == pydantic_accepts(model, row), row
            accepted += msgspec_accepts(model, row)
        without = {key: value for key, value in good.items() if key != name}
        assert msgspec_accepts(model, without) == pydantic_accepts(model, without), name
    assert accepted > len(good)


def test_dates_have_the_same_range_in_a_batch(odd_model: ServedModel) -> None:
    for day in ("2000-02-29", "2000-03-01", "2010-06-30", "2010-07-01"):
        row = ROW | {"sold on": day}
        batch = msgspec.convert([ROW, row], odd_model.records.many)
        try:
            odd_model.records.from_records(batch)
            fits = True
        except msgspec.ValidationError:
            fits = False
        assert fits == msgspec_accepts(odd_model, row)


@given(st.lists(st.dates(date(2000, 3, 1), date(2010, 6, 30)) | st.none(), min_size=1, max_size=5))
def test_dates_become_days(odd_bundle: Any, days: list[date | None]) -> None:
    model = ServedModel(odd_bundle, "odd", 5)
    rows = [ROW | {"sold on": day.isoformat() if day else None} for day in days]
    decoded = msgspec.json.decode(json.dumps(rows), type=model.records.many)
    numbers = model.records.from_records(decoded)[0]["numbers"]
    for day, value in zip(days, numbers[:, 2].tolist(), strict=True):
        assert value != value if day is None else date(1970, 1, 1) + timedelta(days=value) == day

"""Columns of each type that a schema can declare, from the delivery to the answers of the server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.engines.pandas_engine import DateTime

from slipway.bundle import load_bundle, read_reference
from slipway.config import Params
from slipway.contract import Model, check_contract, with_listed_categories
from slipway.errors import InputError
from slipway.pipeline import validate
from slipway.scoring.read_part import read_part
from slipway.serving.problems import Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import RULES
from tests.slipway.pipeline.test_unusual_models import LATER, make, rows, stages

__all__ = ["stages"]

FLAGS = ["true", "False", "1", "0"] * 50
INSTANTS = pd.date_range("2026-03-29T00:30", periods=200, freq="h", tz="Europe/Berlin")
"""Berlin skips an hour on the first day."""
ZONED = pa.Column(DateTime(tz="Europe/Berlin"))


def faults(folder: Path, model: Model, data: pd.DataFrame, suffix: str = ".csv") -> list[tuple[int, str]]:
    path = folder / f"a{suffix}"
    data.to_csv(path, index=False) if suffix == ".csv" else data.to_parquet(path, index=False)
    check_contract(model)
    (part,) = validate.check_deliveries(folder, model, RULES, LATER)
    return [*zip(part.faults["row"].tolist(), part.faults["reason"].tolist(), strict=True)]


@pytest.mark.parametrize("nullable", [False, True])
def test_an_integer_feature_is_a_whole_number_in_every_protocol(stages: Callable[..., Params], nullable: bool) -> None:
    hour = pa.Column("Int64" if nullable else int, pa.Check.ge(0), nullable=nullable)
    stages(make({"hour": hour}, FEATURES=("x", "hour")), rows(hour=[*range(199), None if nullable else 199]))
    served = ServedModel(Path("build/bundle"), "model", 10)

    def ask(value: Any) -> list[bytes]:
        split = {"dataframe_split": {"columns": ["x", "hour"], "data": [[0.5, value]] * 2}}
        tensors = [
            {"name": name, "datatype": "FP32", "shape": [1, 1], "data": [each]}
            for name, each in (("x", 0.5), ("hour", value))
        ]
        return [
            Predict(served)(json.dumps({"x": 0.5, "hour": value}).encode()),
            Invocations(served)(json.dumps(split).encode()),
            Infer(served)(json.dumps({"inputs": tensors}).encode()),
        ]

    assert ask(8) == ask(8.0)
    assert not nullable or len(ask(None)) == 3
    with pytest.raises(Problem, match="#/hour: Input should be a whole number"):
        ask(8.5)
    for protocol, body in (
        (Invocations, {"dataframe_split": {"columns": ["x", "hour"], "data": [[0.5, 8.5]]}}),
        (Infer, {"inputs": [{"name": "hour", "datatype": "FP32", "shape": [1, 1], "data": [8.5]}]}),
    ):
        with pytest.raises(Problem):
            protocol(served)(json.dumps(body).encode())


@pytest.mark.parametrize("nullable", [False, True])
def test_a_boolean_feature_is_one_or_zero_for_the_model_and_true_or_false_in_every_protocol(
    stages: Callable[..., Params], nullable: bool
) -> None:
    flag = pa.Column("boolean" if nullable else bool, nullable=nullable)
    data = rows(flag=[*FLAGS[:-1], None] if nullable else FLAGS)
    data["y"] += 5 * data["flag"].isin(["true", "1"])
    stages(make({"flag": flag}, FEATURES=("x", "flag")), data)
    served = ServedModel(Path("build/bundle"), "model", 10)
    assert {row["flag"] for row in served.golden.rows} <= {True, False, None}
    assert read_reference(Path("build/bundle")).features["flag"].edges == (0.0, 1.0)

    def answer(value: Any) -> set[float]:
        predict = Predict(served)(json.dumps({"x": 0.5, "flag": value}).encode())
        split = {"dataframe_split": {"columns": ["x", "flag"], "data": [[0.5, value]] * 2}}
        tensors = [("x", "FP32", 0.5), ("flag", "BOOL", value)]
        inputs = [{"name": name, "datatype": kind, "shape": [1, 1], "data": [each]} for name, kind, each in tensors]
        return {
            json.loads(predict)["prediction"],
            *json.loads(Invocations(served)(json.dumps(split).encode()))["predictions"],
            *json.loads(Infer(served)(json.dumps({"inputs": inputs}).encode()))["outputs"][0]["data"],
        }

    assert answer(True) == answer(1) != answer(False) == answer(0)
    assert len(answer(True)) == len(answer(False)) == 1
    for wrong in ("true", 0.5, 2, *([] if nullable else [None])):
        with pytest.raises(Problem, match=r"#/flag: (Input should be true or false|A value is required)"):
            Predict(served)(json.dumps({"x": 0.5, "flag": wrong}).encode())
    for path, wrote in (("a.csv", pd.DataFrame.to_csv), ("a.parquet", pd.DataFrame.to_parquet)):
        wrote(pd.DataFrame({"x": [0.5, 0.5], "flag": [True, False]}), path, index=False)
        (block,) = read_part(Path(path), path, load_bundle(Path("build/bundle")).schema, [])
        assert block.columns(range(2)) == {"x": [0.5, 0.5], "flag": [True, False]}


@pytest.mark.parametrize(
    ("column", "bad", "reason"),
    [
        (pa.Column(bool), "yes", "c is not true or false"),
        (pa.Column(bool), None, "c is missing"),
        (pa.Column("boolean", nullable=True), "2", "c is not true or false"),
        (pa.Column(pd.CategoricalDtype(["true", "k"])), "b", "c is not one of ['true', 'k']"),
        (pa.Column(DateTime()), "true", "c is not a date from 1678 to 2261 as 2000-12-31"),
        (ZONED, "2026-01-01T00:00:00", "c is not a time from 1678 to 2261 with its zone as 2000-12-31T23:59:59Z"),
    ],
)
def test_a_value_of_another_type_is_quarantined(tmp_path: Path, column: pa.Column, bad: Any, reason: str) -> None:
    model = make({"c": column})
    model = make({**with_listed_categories(model.SCHEMA).columns})
    good = "2026-01-01T00:00:00Z" if column is ZONED else "2026-01-01" if "not a date" in reason else "true"
    assert faults(tmp_path, model, rows(c=[bad, *[good] * 199])) == [(2, reason)]


def test_whole_numbers_may_be_written_as_pandas_writes_them_in_a_column_with_missing_values(tmp_path: Path) -> None:
    model = make({"c": pa.Column("Int64", nullable=True)})
    reason = "c is not a whole number of at most 64 bits"
    written = ["3.0", "3.", None, "3.5", "3e0", "9007199254740993.0", *["1"] * 194]
    assert faults(tmp_path, model, rows(c=written)) == [(5, reason), (6, reason)]
    (part,) = validate.check_deliveries(tmp_path, model, RULES, LATER)
    assert part.accepted["c"][7] == 2**53 + 1
    (tmp_path / "a.csv").unlink()
    numbers = [3.0, np.inf, np.nan, -np.inf, 3.5, 2.0**63, *[1.0] * 194]
    assert faults(tmp_path, model, rows(c=numbers), ".parquet") == [(row, reason) for row in (3, 5, 6, 7)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("kind", "outside", "words"),
    [
        ("int32", [2**31, -(2**31) - 1], "from -2147483648 to 2147483647"),
        ("uint8", [256, -1], "from 0 to 255"),
        ("Int16", [40_000, -40_000], "from -32768 to 32767"),
        ("uint64", [-1], "of at most 64 bits"),
    ],
)
def test_a_whole_number_outside_of_its_declared_type_is_quarantined(
    tmp_path: Path, kind: str, outside: list[int], words: str, suffix: str
) -> None:
    within = np.iinfo(kind.lower()).min
    numbers = [*outside, within, *[7] * (199 - len(outside))]
    found = faults(tmp_path, make({"c": pa.Column(kind)}), rows(c=numbers), suffix)
    assert found == [(row, f"c is not a whole number {words}") for row in range(2, 2 + len(outside))]
    (part,) = validate.check_deliveries(tmp_path, make({"c": pa.Column(kind)}), RULES, LATER)
    assert sorted({*part.accepted["c"]}) == [within, 7]


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_target_that_no_model_can_predict_is_quarantined(tmp_path: Path, kind: str) -> None:
    model = make({"y": pa.Column(kind)})
    assert faults(tmp_path, model, rows(y=[1e39, *[1.5] * 199])) == [(2, "y is beyond single precision (3.403e+38)")]


@pytest.mark.parametrize(("kind", "number"), [("float64", 2**53), ("float32", 2**24)])
def test_a_whole_number_in_the_key_that_has_lost_digits_is_an_error(tmp_path: Path, kind: str, number: int) -> None:
    model = make({"id": pa.Column(int)})
    keys = np.arange(200).astype(kind)
    assert faults(tmp_path, model, rows(id=keys), ".parquet") == []
    keys[7] = -number
    with pytest.raises(InputError, match=r"row 9: id is part of KEY, .* cannot hold all digits of its number; deliver"):
        faults(tmp_path, model, rows(id=keys), ".parquet")


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (pa.Column(bool), [0.5] * 200, "c has the type double, but src/model/schema.py declares true or false"),
        (ZONED, INSTANTS.tz_localize(None), r"c has the type timestamp\[\w+\], .* declares a time with a time zone"),
        (pa.Column(DateTime()), INSTANTS, r"c has the type timestamp\[.*\], .* declares a date without a time zone"),
    ],
)
def test_another_type_in_parquet_is_an_error(tmp_path: Path, column: pa.Column, values: Any, words: str) -> None:
    with pytest.raises(InputError, match=rf"a\.parquet: the column {words}"):
        faults(tmp_path, make({"c": column}), rows(c=values), ".parquet")


def test_a_date_beyond_the_range_of_nanoseconds_is_quarantined(tmp_path: Path) -> None:
    for zone, reason in (
        ("", "a date from 1678 to 2261 as 2000-12-31"),
        ("Z", "a time from 1678 to 2261 with its zone as 2000-12-31T23:59:59Z"),
    ):
        days = [
            f"{day}T00:00:00{zone}" for day in ("1677-09-21", "1677-09-22", "2262-04-10", "2262-04-12", "9999-12-31")
        ]
        column = pa.Column(DateTime(tz="UTC") if zone else DateTime())
        data = rows().head(5).assign(at=days)
        found = faults(tmp_path, make({"at": column}), data)
        assert found == [(row, f"at is not {reason}") for row in (2, 5, 6)]


@pytest.mark.parametrize(
    ("value", "words"),
    [("2026-01-01T08:30:00", "at has a time of day, but a feature"), ("2200-01-01", r"at is in the future \(1 such")],
)
def test_the_message_about_a_private_date_does_not_quote_it(tmp_path: Path, value: str, words: str) -> None:
    column = pa.Column(DateTime(), metadata={"private": "hash"})
    size = pa.Column(float, metadata={"private": "no"})
    private = make({"at": column, "x": size}, FEATURES=("x", "at"), TIME="at" if "2200" in value else None)
    with pytest.raises(InputError, match=f"row 2: {words}") as error:
        faults(tmp_path, private, rows().head(2).assign(at=[value, "2026-01-01"]))
    assert value[5:] not in str(error.value)


def test_a_date_beyond_the_range_of_nanoseconds_in_96_bits_is_an_error(tmp_path: Path) -> None:
    data = rows().head(3).assign(at=pd.Series(["2026-01-01", "9999-12-31", None], dtype="datetime64[us]"))
    model = make({"at": pa.Column(DateTime(), nullable=True)})
    data.to_parquet(tmp_path / "a.parquet", index=False, use_deprecated_int96_timestamps=True)
    with pytest.raises(InputError, match=r"a\.parquet, row 3: at is not from 1678 to 2261; correct it"):
        list(validate.check_deliveries(tmp_path, model, RULES, LATER))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_times_with_a_zone_are_key_and_time_and_are_stored_in_utc(tmp_path: Path, suffix: str) -> None:
    model = make({"at": ZONED}, KEY=("at",), TIME="at")
    data = rows(at=INSTANTS.tz_convert("America/New_York").map(str) if suffix == ".csv" else INSTANTS)
    assert faults(tmp_path, model, data, suffix) == []
    (part,) = validate.check_deliveries(tmp_path, model, RULES, LATER)
    assert part.accepted["at"].tolist() == INSTANTS.tz_convert("UTC").tz_localize(None).tolist()
    assert part.accepted["row_id"].nunique() == 200


def test_a_time_with_a_zone_is_the_time_of_the_split(stages: Callable[..., Params]) -> None:
    stages(make({"at": ZONED}, TIME="at"), rows(at=INSTANTS.map(pd.Timestamp.isoformat)))
    assert pd.read_parquet("build/validated.parquet")["at"].is_monotonic_increasing


def test_a_time_with_a_zone_cannot_be_a_feature() -> None:
    with pytest.raises(InputError, match=r"the feature 'at' has a time zone, .* deliver .* the hour as int"):
        check_contract(make({"at": ZONED}, FEATURES=("x", "at")))


def test_categories_that_are_not_text_are_refused() -> None:
    schema = pa.DataFrameSchema({"c": pa.Column(pd.CategoricalDtype([1, 2]))})
    with pytest.raises(InputError, match="the categories of 'c' are not text; use text, or a number"):
        with_listed_categories(schema)


def test_a_missing_boolean_needs_a_type_that_has_missing_values() -> None:
    with pytest.raises(InputError, match=r"'c' is nullable and of type bool, .* use .boolean."):
        check_contract(make({"c": pa.Column(bool, nullable=True)}))

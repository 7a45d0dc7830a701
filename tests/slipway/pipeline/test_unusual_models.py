"""Schemas and models as people write them: each works, or the error is one sentence with the remedy."""

import sys
from collections.abc import Callable
from datetime import date
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.engines.pandas_engine import DateTime
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from slipway import contract
from slipway.artifacts import QUARANTINE, VALIDATED
from slipway.bundle import load_bundle, read_reference
from slipway.config import Floor, Params, load_params
from slipway.contract import Model, check_contract
from slipway.errors import InputError
from slipway.pipeline import evaluate, split, train, validate
from slipway.pipeline.row_ids import row_id_scheme, row_ids
from slipway.pipeline.tensors import describe, unenforced_checks
from slipway.serving.problems import Problem
from slipway.serving.records import Records, Unfit
from tests.slipway.conftest import ROOT, RULES

LATER = date(2030, 1, 1)
Fit = Callable[[pd.DataFrame, "pd.Series[Any]", Any, int], Any]


def tree(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
    return DecisionTreeRegressor(max_leaf_nodes=8, random_state=seed).fit(features, target)


def make(columns: dict[str, Any] | None = None, fit: Fit = tree, target: type = float, **names: Any) -> Model:
    columns = {"id": pa.Column(str), "x": pa.Column(float), "y": pa.Column(target), **(columns or {})}
    known = {"SCHEMA": pa.DataFrameSchema(columns), "KEY": ("id",), "TIME": None, "TARGET": "y", "FEATURES": ("x",)}
    return SimpleNamespace(**known | {"fit": staticmethod(fit)} | names)  # type: ignore[return-value]


def rows(**columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=200).round(3)
    known = {"id": [f"r{n}" for n in range(200)], "x": x, "y": (2 * x + random.normal(size=200) / 9).round(3) + 50}
    return pd.DataFrame(known | columns)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    """Run validate, split, train and evaluate on rows."""
    monkeypatch.chdir(tmp_path)

    def run(
        model: Model,
        data: pd.DataFrame,
        kind: str = "regression",
        loss: str = "mean_absolute_error",
        cost: dict[str, dict[str, float]] | None = None,
        floors: dict[str, Floor] | None = None,
        weight: str | None = None,
        positive: str | None = None,
    ) -> Params:
        check_contract(model)
        Path("data").mkdir()
        Path("metrics").mkdir()
        Path("metrics/release.json").write_text('{"champion": null}')
        data.to_csv("data/a.csv", index=False)
        params = load_params(ROOT / "params.yaml")
        changes = {
            "task": params.task.model_copy(
                update={"kind": kind, "loss": loss, "cost": cost, "weight": weight, "positive": positive}
            ),
            "split": params.split.model_copy(update={"by": "key", "share": 0.3}),
            "evaluate": params.evaluate.model_copy(update={"slices": {}}),
            "gate": params.gate.model_copy(update={"floors": floors or {}}),
        }
        params = params.model_copy(update=changes)
        validate.run(params, model, LATER)
        split.run(params, model)
        train.run(params, model)
        evaluate.run(params, model)
        return params

    return run


def test_values_of_a_set_are_sorted_because_its_order_differs_between_processes() -> None:
    model = make({"c": pa.Column(str, pa.Check.isin({*"hgfedcbaijklmnop"}))}, FEATURES=("c",))
    assert describe(model, "regression", None).columns[0].values == tuple("abcdefghijklmnop")


def test_the_order_of_a_list_of_values_is_kept() -> None:
    model = make({"c": pa.Column(str, [pa.Check.isin(["b", "a", "c"]), pa.Check.isin(["a", "b"])])}, FEATURES=("c",))
    assert describe(model, "regression", None).columns[0].values == ("b", "a")


@pytest.mark.parametrize(("name", "value"), [("KEY", {"id"}), ("FEATURES", {"x", "z"}), ("KEY", "id")])
def test_columns_without_an_order_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is a (set|str), but the order of its columns matters; use a tuple"):
        check_contract(make(**{name: value}))


def test_a_feature_with_a_time_of_day_is_refused(stages: Callable[..., Params]) -> None:
    at = pa.Column(DateTime(to_datetime_kwargs={"format": "%Y-%m-%d %H:%M:%S"}))
    times = pd.date_range("2026-01-01", periods=200, freq="97min").astype(str)
    with pytest.raises(InputError, match=r"data/a\.csv, row 3: at is 2026-01-01 01:37:00, but a feature can only be a"):
        stages(make({"at": at}, FEATURES=("x", "at")), rows(at=times))


def test_a_value_beyond_single_precision_is_quarantined(stages: Callable[..., Params]) -> None:
    data = rows()
    data.loc[7, "x"] = 1e39
    stages(make(), data)
    (row,) = pd.read_csv(QUARANTINE).to_dict("records")
    assert (row["row"], row["reason"]) == (9, "x is beyond single precision (3.403e+38)")


@pytest.mark.parametrize(
    ("checks", "low", "high"),
    [
        ([pa.Check.gt(0)], "> 0", None),
        ([pa.Check.ge(0), pa.Check.gt(0)], "> 0", None),
        ([pa.Check.lt(1), pa.Check.le(1)], None, "< 1"),
        ([pa.Check.le(10), pa.Check.in_range(0, 100)], 0, 10),
        ([pa.Check.in_range(0, 100), pa.Check.le(10), pa.Check.ge(5)], 5, 10),
        ([pa.Check.in_range(0, 4, include_max=False)], 0, "< 4"),
        ([pa.Check.isin([4, 1, 2])], 1, 4),
    ],
)
def test_the_server_has_the_bounds_of_all_checks_together(checks: list[pa.Check], low: object, high: object) -> None:
    (column,) = describe(make({"x": pa.Column(float, checks)}), "regression", None).columns
    smallest = f"> {column.minimum:g}" if column.exclusive_minimum else column.minimum
    assert (smallest, f"< {column.maximum:g}" if column.exclusive_maximum else column.maximum) == (low, high)


@pytest.mark.parametrize(
    ("check", "bad", "reason"),
    [
        (pa.Check.gt(0), 0, "x is not greater than 0"),
        (pa.Check.lt(0), 0, "x is not less than 0"),
        (pa.Check.ge(0), -1, "x is less than 0"),
        (pa.Check.in_range(0, 999, include_min=False), 0, "x is not greater than 0 and at most 999"),
        (pa.Check.in_range(-1, 999, include_max=False), 999, "x is not at least -1 and less than 999"),
    ],
)
def test_validation_and_server_name_an_open_bound_in_the_same_way(
    tmp_path: Path, check: pa.Check, bad: float, reason: str
) -> None:
    model = make({"x": pa.Column(float, check)})
    rows(x=[bad, *([-1 if check.name == "less_than" else 1] * 199)]).to_csv(tmp_path / "a.csv", index=False)
    (part,) = validate.check_deliveries(tmp_path, model, RULES, LATER)
    assert part.faults["reason"].tolist() == [reason]
    records = Records(describe(model, "regression", None), 1)
    with pytest.raises(Problem) as refused:
        records.from_rows([{"x": bad}], lambda _, *names: "".join(names))
    words = {
        "greater_than": "greater than",
        "less_than": "less than",
        "greater_than_or_equal_to": "greater than or equal",
    }
    assert f"should be {words.get(check.name, '')}" in refused.value.detail
    field = records.model.model_json_schema()["properties"]["x"]
    assert ({"exclusiveMinimum", "exclusiveMaximum"} & field.keys() != set()) == ("not" in reason)


def test_the_server_accepts_only_the_numbers_that_all_checks_allow() -> None:
    columns = {
        "x": pa.Column(float, [pa.Check.isin([1, 2.5, 4]), pa.Check.isin({4, 2.5, 3})]),
        "n": pa.Column("Int64", pa.Check.isin([7, 8]), nullable=True),
    }
    schema = describe(make(columns, FEATURES=("x", "n")), "regression", None)
    assert [column.numbers for column in schema.columns] == [(2.5, 4), (7, 8)]
    records = Records(schema, 2)
    good = [{"x": 2.5, "n": 7}, {"x": 4, "n": None}]
    for chosen in (good, good[1:]):
        assert records.from_records(msgspec.convert(chosen, records.many))[0]["numbers"].shape == (len(chosen), 2)
    for bad, words in (
        ({"x": 3, "n": 7}, "Input should be one of 2.5 and 4"),
        ({"x": 4, "n": 7.5}, "Input should be one of 7 and 8"),
    ):
        for chosen in ([bad], [good[0], bad]):
            with pytest.raises(Unfit):
                records.from_records(msgspec.convert(chosen, records.many))
            with pytest.raises(Problem, match=words):
                records.from_rows(chosen, lambda _, *names: "".join(names))
    assert records.model.model_json_schema()["properties"]["x"]["enum"] == [2.5, 4]


def test_an_open_bound_of_a_date_is_the_next_day() -> None:
    day = pa.Column(DateTime(), [pa.Check.gt(pd.Timestamp("2020-01-31")), pa.Check.lt(pd.Timestamp("2020-03-01"))])
    (column,) = describe(make({"day": day}, FEATURES=("day",)), "regression", None).columns
    assert (column.minimum, column.maximum) == ("2020-02-01", "2020-02-29")


def test_checks_that_the_server_does_not_make_are_listed() -> None:
    columns = {
        "x": pa.Column(float, [pa.Check.gt(0), pa.Check.isin([1, 2]), pa.Check.notin([4]), pa.Check.ne(3)]),
        "c": pa.Column(
            str, [pa.Check.isin(["a"]), pa.Check.str_matches("a+"), pa.Check(lambda v: v > "", error="own")]
        ),
        "y": pa.Column(float, pa.Check.ne(0)),  # not a feature
    }
    found = unenforced_checks(make(columns, FEATURES=("x", "c")))
    assert [sentence.split(":")[0] for sentence in found] == ["x", "x", "c", "c"]
    assert "c: the server does not check own" in found


def test_a_date_without_a_format_is_read_as_iso_8601(stages: Callable[..., Params]) -> None:
    days = pd.date_range("2026-01-01", periods=200).astype(str).tolist()
    days[5], days[6], days[7] = "03/04/2026", "2026-02-30", "2026-01-08 10:11:12.5"
    stages(make({"at": pa.Column(DateTime())}, TIME="at"), rows(at=days))
    quarantine = pd.read_csv(QUARANTINE)
    assert quarantine["row"].tolist() == [7, 8]
    assert set(quarantine["reason"]) == {"at is not a date from 1678 to 2261 as 2000-12-31"}
    assert pd.Timestamp("2026-01-08 10:11:12.5") in set(pd.read_parquet(VALIDATED)["at"])


def test_a_schema_can_be_a_class(monkeypatch: pytest.MonkeyPatch, stages: Callable[..., Params]) -> None:
    class SCHEMA(pa.DataFrameModel):
        id: str
        x: float = pa.Field(gt=-100)
        y: float

    model = make(SCHEMA=SCHEMA)
    monkeypatch.setitem(sys.modules, "model", model)
    loaded = contract.load_model()
    stages(loaded, rows())
    assert load_bundle(Path("build/bundle")).schema.columns[0].minimum == pytest.approx(-100)


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match="SCHEMA is a dict; use a DataFrameSchema or a DataFrameModel"):
        check_contract(make(SCHEMA={}))


def test_a_classifier_without_probabilities_is_refused(stages: Callable[..., Params]) -> None:
    model = make(fit=lambda features, target, *_: SVC().fit(features, target), target=str)
    labels = ["yes" if x > 0 else "no" for x in rows()["x"]]
    with pytest.raises(InputError, match="`fit` returns a SVC without `predict_proba`, which a classification needs"):
        stages(model, rows(y=labels), "classification", "log_loss")


def test_a_fit_that_returns_nothing_is_refused(stages: Callable[..., Params]) -> None:
    with pytest.raises(InputError, match="`fit` returns nothing; return the fitted model"):
        stages(make(fit=lambda *_: None), rows())


def test_a_feature_can_be_called_self(stages: Callable[..., Params]) -> None:
    stages(make({"self": pa.Column(float)}, FEATURES=("self", "x")), rows(self=rows()["x"]))


@pytest.mark.parametrize("kind", [float, str])
def test_a_feature_that_is_missing_in_every_row_is_refused(stages: Callable[..., Params], kind: type) -> None:
    with pytest.raises(
        InputError, match="z is missing in every training row, so nothing can be learned from it; remove"
    ):
        stages(make({"z": pa.Column(kind, nullable=True)}, FEATURES=("x", "z")), rows(z=None))


def test_a_percentage_of_a_zero_in_training_is_refused(stages: Callable[..., Params]) -> None:
    with pytest.raises(InputError, match=r"is undefined for [0-9]+ training rows, where y is 0; choose another"):
        stages(
            make(), rows().assign(y=lambda f: f["y"].where(f.index % 2 == 0, 0)), loss="mean_absolute_percentage_error"
        )


KEYS = ["9007199254740993", "9007199254740992", "-9223372036854775808", "9223372036854775807", "+7", "008"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_whole_numbers_of_64_bits_are_exact(tmp_path: Path, suffix: str) -> None:
    model = make({"id": pa.Column(int)})
    wrong = ["9223372036854775808", "1.5", "0x10", "1e3", "many", ""]
    if suffix == "csv":
        data = pd.DataFrame({"id": [*KEYS, *wrong], "x": 1.0, "y": 1.0})
        data.to_csv(tmp_path / "a.csv", index=False)
    else:
        data = pd.DataFrame({"id": [*map(int, KEYS)], "x": 1.0, "y": 1.0})
        data.to_parquet(tmp_path / "a.parquet", index=False)
    (part,) = validate.check_deliveries(tmp_path, model, RULES, LATER)
    assert part.accepted["id"].tolist() == [*map(int, KEYS)]
    assert part.accepted["row_id"].nunique() == len(KEYS)
    if suffix == "csv":
        assert part.faults["row"].tolist() == [8, 9, 10, 11, 12, 13]
        assert part.faults["reason"].tolist() == ["id is not a whole number of at most 64 bits"] * 5 + ["id is missing"]


def test_the_ids_of_whole_numbers_are_those_that_are_documented() -> None:
    found = row_ids(pd.DataFrame({"id": [2**53 + 1]}), make({"id": pa.Column(int)}))
    digest = blake2b((2**53 + 1).to_bytes(8, "little", signed=True), digest_size=8).digest()
    assert found.tolist() == [int.from_bytes(digest, "little")]
    assert row_id_scheme(make({"id": pa.Column(int)})) == row_id_scheme(make({"id": pa.Column(float)}))


def test_a_whole_number_can_be_a_key_a_feature_and_the_target(stages: Callable[..., Params]) -> None:
    nullable = pa.Column("Int64", pa.Check.in_range(0, 9), nullable=True)
    columns = {"id": pa.Column(int), "n": nullable, "y": pa.Column(int)}
    data = rows(id=range(200), n=[None if n % 5 == 0 else str(n % 10) for n in range(200)]).round({"y": 0})
    data["y"] = data["y"].astype(int)
    stages(make(columns, FEATURES=("x", "n")), data)
    (_, column) = load_bundle(Path("build/bundle")).schema.columns
    assert (column.type, column.required, column.minimum, column.maximum) == ("number", False, 0, 9)
    assert read_reference(Path("build/bundle")).features["n"].missing > 0


def test_a_nullable_whole_number_needs_a_type_with_missing_values() -> None:
    with pytest.raises(InputError, match='is nullable and of type int64, which has no missing values; use "Int64"'):
        check_contract(make({"n": pa.Column(int, nullable=True)}))

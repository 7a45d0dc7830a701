"""A model with a vector: what is delivered, what is refused, and what the bundle contains."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from slipway import artifacts, bundle
from slipway.config import Params, Validate, load_params
from slipway.contract import check_contract
from slipway.errors import InputError
from slipway.pipeline import train
from slipway.pipeline.array_columns import objects
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.published import example_rows
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.sorted_rows import changed_rows
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.validate import check_deliveries
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import TODAY

LENGTH = 3
ROWS = 60
VECTOR = pa.Column(object, metadata={"kind": "vector", "length": LENGTH})
OPTIONAL = pa.Column(object, metadata={"kind": "vector", "length": LENGTH}, nullable=True)
EXAMPLES = ({"size": 1, "embedding": [0.5, 1, 2.25]},)


def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
    vector = make_pipeline(FunctionTransformer(np.stack), StandardScaler())
    columns = ColumnTransformer([("v", vector, "embedding"), ("n", "passthrough", ["size"])])
    return make_pipeline(columns, LinearRegression()).fit(features, target)


def model(column: pa.Column = VECTOR, **names: Any) -> Any:
    columns = {"id": pa.Column(str), "size": pa.Column(float), "embedding": column, "price": pa.Column(float)}
    own = {"SCHEMA": pa.DataFrameSchema(columns), "KEY": ("id",), "TIME": None, "TARGET": "price", "fit": fit}
    return SimpleNamespace(**own | {"FEATURES": ("size", "embedding"), "EXAMPLES": EXAMPLES} | names)


def vectors() -> list[Any]:
    return [*np.random.default_rng(0).normal(size=(ROWS, LENGTH)).astype("float32")]


@pytest.fixture
def trained(workplace: Path) -> bundle.Bundle:  # noqa: ARG001
    numbers = np.arange(ROWS, dtype="float64")
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(ROWS)], "size": numbers % 17, "embedding": vectors()})
    rows["price"] = [float(v.sum()) for v in rows["embedding"]] + rows["size"]
    rows[ROW_ID] = numbers.astype("uint64")
    artifacts.TRAINING.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(artifacts.TRAINING)
    rows.head(20).to_parquet(artifacts.HOLDOUT)
    params: Params = load_params(artifacts.PARAMS)
    train.run(params, model())
    return bundle.load_bundle(artifacts.BUNDLE)


def test_a_fit_that_changes_vectors_in_place_is_refused(trained: bundle.Bundle) -> None:  # noqa: ARG001
    def scaling(features: pd.DataFrame, *others: Any) -> Any:
        for vector in features["embedding"]:
            vector *= 2
        return fit(features, *others)

    with pytest.raises(InputError, match=r"`fit` failed \(ValueError\)"):
        train.run(load_params(artifacts.PARAMS), model(fit=scaling))


def test_a_vector_is_an_input_of_its_own_and_only_its_norm_is_published(trained: bundle.Bundle) -> None:
    inputs = {each.name: (each.type, each.shape[1:]) for each in trained.session.get_inputs()}
    assert inputs == {"numbers": ("tensor(float)", [1]), "embedding": ("tensor(float)", [LENGTH])}
    rows = pd.read_parquet(artifacts.TRAINING)
    frame = features(rows, trained.schema)
    assert tensors(frame, trained.schema)["embedding"].shape == (ROWS, LENGTH)
    assert trained.predict(tensors(frame, trained.schema))[:, 0] == pytest.approx(rows["price"], abs=1e-4)
    assert tensors(frame.head(0), trained.schema)["embedding"].shape == (0, LENGTH)
    reference = json.loads((trained.path / bundle.REFERENCE).read_text())["features"]["embedding"]
    norms = np.linalg.norm(np.float64(vectors()), axis=1)
    assert sum(reference["counts"]) == ROWS
    assert set(np.float32(reference["edges"])) <= set(norms.astype("float32"))
    golden = json.loads((trained.path / bundle.GOLDEN).read_text())["rows"]
    assert golden == [{"size": 1.0, "embedding": [0.5, 1.0, 2.25]}]


def test_requests_in_every_form_give_the_same_prediction(trained: bundle.Bundle) -> None:
    model = ServedModel(trained.path, "model", 10)
    rows = [{"size": 2.0, "embedding": [0.1, -2, 3]}, {"size": 3.0, "embedding": [1, 2, 3e3]}]
    reader = model.records
    one = [model.run(reader.from_rows([row], lambda *_: ""))[0, 0] for row in rows]
    columns = {name: [row[name] for row in rows] for name in ("size", "embedding")}
    for given in (
        reader.from_rows(rows, lambda *_: ""),
        reader.from_columns(columns),
    ):
        assert model.run(given)[:, 0] == pytest.approx(one, rel=1e-6)
        model.predict(given)
    bins = model.metrics.bins()["feature"]
    assert (sum(bins["embedding"]), len(bins["embedding"])) == (4, 11)


def faults(folder: Path, model: Any) -> dict[int, str]:
    rules = Validate(max_invalid_share=0.9)
    found = [each.faults for each in check_deliveries(folder, model, rules, TODAY)]
    return {row: reason for part in found for row, reason in part[["row", "reason"]].itertuples(index=False)}


LENGTHS = f"embedding is not a list of {LENGTH} numbers"
NOT_FINITE = "embedding has a number that is missing, not finite, or beyond single precision"


@pytest.mark.parametrize("kind", [pyarrow.float64(), pyarrow.float32()], ids=str)
def test_a_row_without_a_vector_of_the_schema_is_rejected_with_its_fault(tmp_path: Path, kind: Any) -> None:
    nan, inf = float("nan"), float("inf")
    given = [[1, 2, 3], [1, 2], [1, 2, nan], [1, 2, inf], None, [1, None, 3], [], [1, 2, 3, 4], [0, 0, 0]]
    names = [f"r{i}" for i in range(len(given))]
    numbers = pyarrow.array([1.0] * len(given))
    table = pyarrow.table({"id": names, "size": numbers, "price": numbers})
    table = table.append_column("embedding", pyarrow.array(given, pyarrow.list_(kind)))
    pq.write_table(table, tmp_path / "a.parquet")
    rejected = {3: LENGTHS, 4: NOT_FINITE, 5: NOT_FINITE, 7: NOT_FINITE, 8: LENGTHS, 9: LENGTHS}
    assert faults(tmp_path, model()) == rejected | {6: "embedding is missing"}
    assert faults(tmp_path, model(OPTIONAL)) == rejected


def test_a_vector_of_csv_is_json(tmp_path: Path) -> None:
    lines = ["[1, 2.5, -3e2]", "[1, 2]", "[1, 2, null]", "1;2;3", "[1, 2, 1e39]", "", "[[1, 2, 3]]", "[true, 1, 2]"]
    rows = "".join(f'r{i},1,"{text}",2\n' for i, text in enumerate(lines))
    (tmp_path / "a.csv").write_text(f"id,size,embedding,price\n{rows}")
    found = dict.fromkeys((3, 4, 5, 8, 9), LENGTHS) | {6: NOT_FINITE, 7: "embedding is missing"}
    assert faults(tmp_path, model()) == found
    (part,) = check_deliveries(tmp_path, model(), Validate(max_invalid_share=0.9), TODAY)
    assert part.table["embedding"].to_pylist() == [[1, 2.5, -300]]


def test_fixed_size_lists_and_whole_numbers_are_vectors_and_other_types_are_refused(tmp_path: Path) -> None:
    def deliver(values: Any) -> dict[int, str]:
        table = pyarrow.table({"id": ["a", "b"], "size": [1.0, 2.0], "embedding": values, "price": [1.0, 2.0]})
        pq.write_table(table, tmp_path / "a.parquet")
        return faults(tmp_path, model())

    fixed = pyarrow.list_(pyarrow.int16(), LENGTH)
    assert deliver(pyarrow.array([[1, 2, 3], [4, 5, 6]], fixed)) == {}
    assert deliver(pyarrow.array([[1, 2, 3], [1]], pyarrow.large_list(pyarrow.int64()))) == {3: LENGTHS}
    for values in ([["a", "b", "c"], ["d"]], [1.0, 2.0], [b"abc", b"d"]):
        with pytest.raises(InputError, match=r"the column embedding has the type .* a list of numbers; deliver"):
            deliver(values)


def test_a_delivery_with_only_missing_vectors_joins_the_others(tmp_path: Path) -> None:
    for name, values in (("a", [None, None]), ("b", [[1.0, 2.0, 3.0], None])):
        column = pyarrow.array(values, pyarrow.list_(pyarrow.float32()))
        numbers = pyarrow.array([1.0, 2.0])
        table = pyarrow.table({"id": [f"{name}1", f"{name}2"], "size": numbers, "embedding": column, "price": numbers})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    parts = [*check_deliveries(tmp_path, model(OPTIONAL), Validate(max_invalid_share=0.9), TODAY)]
    rows = pyarrow.concat_tables([part.table for part in parts]).to_pandas()
    schema = bundle.Column(name="embedding", type="vector", shape=(LENGTH,), required=False)
    frame = features(rows, bundle.Schema(kind="regression", key=(), target="y", classes=None, columns=(schema,)))
    assert np.isnan(np.stack([*frame["embedding"]])).all(axis=1).tolist() == [True, True, False, True]


def test_a_vector_is_sliced_by_its_norm_only() -> None:
    rows = pd.DataFrame({"embedding": [np.float32([3, 4, 0]), np.float32([0, 1, 0]), None]})
    labels = slice_labels(rows, {"embedding": [5.0]}, model(OPTIONAL))
    assert list(labels["embedding"]) == ["5 or more", "under 5", "missing"]
    with pytest.raises(InputError, match="has the kind vector, whose values are not published; give edges of its norm"):
        slice_labels(rows, {"embedding": "values"}, model())


@pytest.mark.parametrize(
    ("column", "names", "words"),
    [
        (VECTOR, {"EXAMPLES": ()}, "lacks EXAMPLES, which the vector 'embedding' needs"),
        (pa.Column(object, metadata={"kind": "vector"}), {}, "the vector 'embedding' has the length None"),
        (pa.Column(object, metadata={"kind": "vector", "length": 0}), {}, "has the length 0; declare a whole number"),
        (pa.Column(object, metadata={"kind": "vector", "length": "9"}), {}, "has the length '9'; declare"),
        (
            pa.Column(float, metadata={"kind": "vector", "length": 9}),
            {},
            'or "vector" or "image" for a column of type object',
        ),
        (pa.Column(object), {}, "is of type object; use float"),
        (VECTOR, {"KEY": ("embedding",)}, "cannot be in KEY"),
    ],
)
def test_a_wrong_declaration_is_refused(column: pa.Column, names: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_contract(model(column, **names))


@pytest.mark.parametrize("value", [[1, 2], "abc", None, [1, 2, "c"], [1, 2, float("nan")], 3])
def test_an_example_that_is_not_a_vector_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="EXAMPLES: a value of 'embedding' does not fit the schema"):
        example_rows([{"size": 1, "embedding": value}], model())


def test_a_class_based_schema_declares_a_vector() -> None:
    class Schema(pa.DataFrameModel):
        id: str
        embedding: object = pa.Field(metadata={"kind": "vector", "length": LENGTH})
        price: float

    check_contract(model(SCHEMA=Schema.to_schema(), FEATURES=("embedding",)))
    with pytest.raises(InputError, match="has the name of another tensor"):
        check_contract(model(SCHEMA=Schema.to_schema().rename_columns({"embedding": "numbers"}), FEATURES=("numbers",)))


def test_a_replaced_vector_counts_as_changed() -> None:
    values = objects([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rows = pd.DataFrame({"embedding": values, "delivery": [*"abbab"], "row_id": [1, 1, 2, 3, 3]})
    rows["embedding"] = rows["embedding"].map(np.float32, na_action="ignore")
    assert changed_rows(rows, {"b": [np.array([1, 3], dtype=np.uint64)]}) == {"b": 1}

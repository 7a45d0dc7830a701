"""A bundle contains no text and no rare value of the training rows, and models that would publish one are refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.engines.pandas_engine import DateTime
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from slipway import artifacts
from slipway.bundle import Column, Schema
from slipway.config import Params, Validate, load_params
from slipway.contract import check_contract
from slipway.errors import InputError
from slipway.pipeline import train
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.published import (
    example_rows,
    refuse_arrays_in_graph,
    refuse_rare_tokens,
    refuse_texts_in_graph,
)
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.training_rows import InMemory
from slipway.pipeline.validate import check_deliveries
from tests.slipway.conftest import ROOT, TODAY

ROWS = 200
TEXT = pa.Column(str, pa.Check.str_length(max_value=90), metadata={"kind": "text"})


def model(city: pa.Column | None = None, **names: Any) -> Any:
    """Return a model with a number and a category, whose values the schema does not list."""
    columns = {
        "id": pa.Column(str),
        "size": pa.Column(float),
        "city": city or pa.Column(str),
        "price": pa.Column(float),
    }

    def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        columns = ColumnTransformer([("c", encoder, ["city"]), ("n", "passthrough", ["size"])])
        return make_pipeline(columns, Ridge()).fit(features, target)

    return SimpleNamespace(
        **{"SCHEMA": pa.DataFrameSchema(columns), "KEY": ("id",), "TIME": None, "TARGET": "price"}
        | {"FEATURES": ("size", "city"), "fit": fit}
        | names
    )


def fit_words(least: int) -> Callable[..., Any]:
    def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
        columns = ColumnTransformer([("w", CountVectorizer(min_df=least), "city"), ("n", "passthrough", ["size"])])
        return make_pipeline(columns, Ridge()).fit(features, target)

    return fit


@pytest.fixture
def trained(workplace: Path) -> Callable[..., dict[str, Any]]:  # noqa: ARG001
    """Train a model on rows with the given cities, and return its reference and golden rows."""

    def run(cities: list[str], model: Any, **settings: Any) -> dict[str, Any]:
        rows = pd.DataFrame(
            {
                "id": [f"r{i}" for i in range(len(cities))],
                "size": np.arange(len(cities), dtype="float64") % 17,
                "city": pd.Series(cities, dtype="str"),
                "price": np.arange(len(cities), dtype="float64") % 13,
                ROW_ID: np.arange(len(cities), dtype="uint64") * 7919 % 1009,
            }
        )
        artifacts.TRAINING.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(artifacts.TRAINING)
        rows.head(20).to_parquet(artifacts.HOLDOUT)
        params: Params = load_params(artifacts.PARAMS)
        train.run(params.model_copy(update={"train": params.train.model_copy(update=settings)}), model)
        return {name: json.loads((artifacts.BUNDLE / f"{name}.json").read_text()) for name in ("reference", "golden")}

    return run


def test_a_nearly_unique_category_is_refused_with_what_to_declare(trained: Callable[..., Any]) -> None:
    names = [f"Person {i}" if i % 5 == 0 else "Anna" for i in range(ROWS)]
    with pytest.raises(
        InputError, match="40 of 200 training rows have a value of 'city' that no other row has"
    ) as error:
        trained(names, model())
    for advice in ('metadata={"kind": "text"}', "pa.Check.isin", 'metadata={"kind": "category"}'):
        assert advice in str(error.value)
    assert "Person" not in str(error.value)
    assert not artifacts.BUNDLE.exists()


def test_nothing_is_refused_if_single_values_may_be_published(trained: Callable[..., Any]) -> None:
    found = trained([f"Person {i}" for i in range(ROWS)], model(), minimum_value_rows=1)
    assert len(found["reference"]["features"]["city"]["values"]) == 51


def test_a_nearly_unique_category_may_be_declared_as_one(trained: Callable[..., Any]) -> None:
    names = [f"Place {i}" if i % 5 == 0 else "Anna" for i in range(ROWS)]
    found = trained(names, model(pa.Column(str, metadata={"kind": "category"})))
    assert found["reference"]["features"]["city"]["values"][:2] == ["Anna", "Place 0"]


def test_golden_rows_have_one_value_for_each_private_column(trained: Callable[..., Any]) -> None:
    """The values of one person are never next to each other in a golden row. Public columns keep their values."""
    cities = ["Oslo"] * 150 + ["Rome"] * 50
    for name, mark in (("size", "hash"), ("city", "drop")):
        one, marks = model(), {"size": "no", "city": "no", name: mark}
        one.SCHEMA = one.SCHEMA.update_columns({each: {"metadata": {"private": mark}} for each, mark in marks.items()})
        golden = trained(cities, one)["golden"]["rows"]
        distinct = {column: {row[column] for row in golden} for column in ("size", "city")}
        assert len(distinct.pop(name)) == 1, golden
        assert all(len(values) > 1 for values in distinct.values()), golden


def test_rare_values_are_counted_as_others_and_are_in_no_golden_row(trained: Callable[..., Any]) -> None:
    names = ["Rome"] * 60 + ["Oslo"] * 40 + [f"Hamlet {i // 2}" for i in range(98)] + ["", ""]
    found = trained(names, model(pa.Column(str, nullable=True)))
    assert found["reference"]["features"]["city"] == {
        "edges": None,
        "values": ["Oslo", "Rome", "(other)"],
        "counts": [40, 60, 98],
        "missing": 2,
    }
    assert len(found["golden"]["rows"]) == train.GOLDEN_ROWS
    assert {row["city"] for row in found["golden"]["rows"]} <= {"Oslo", "Rome", None}
    assert all("Hamlet" not in file.read_text() for file in artifacts.BUNDLE.glob("*.json"))


def test_a_reference_has_at_most_fifty_values_of_a_category(trained: Callable[..., Any]) -> None:
    names = [f"City {i % 80:02}" for i in range(1_600)]
    values = trained(names, model())["reference"]["features"]["city"]["values"]
    assert (len(values), values[0], values[-1]) == (51, "City 00", "(other)")


def test_listed_values_are_published_even_if_they_are_rare(trained: Callable[..., Any]) -> None:
    names = ["Rome"] * (ROWS - 1) + ["Oslo"]
    found = trained(names, model(pa.Column(str, pa.Check.isin(["Rome", "Oslo"]))))
    assert found["reference"]["features"]["city"]["values"] == ["Oslo", "Rome"]


def test_a_model_without_a_public_row_needs_examples(trained: Callable[..., Any]) -> None:
    names = [f"City {i % 50}" for i in range(ROWS)]
    with pytest.raises(InputError, match="add EXAMPLES to src/model"):
        trained(names, model())
    own = ({"size": 3, "city": "Anywhere"},)
    found = trained(names, model(EXAMPLES=own))
    assert found["golden"]["rows"] == [{"size": 3.0, "city": "Anywhere"}]
    assert trained(names, model(), minimum_value_rows=4)["golden"]["rows"][0]["city"].startswith("City")


def test_a_vocabulary_with_rare_tokens_is_refused(trained: Callable[..., Any]) -> None:
    texts = [f"the house number{i}" for i in range(ROWS)]
    own = {"EXAMPLES": ({"size": 1, "city": "the house"},)}
    with pytest.raises(
        InputError, match="200 of the 202 tokens of CountVectorizer that fewer than 10 training rows have"
    ) as error:
        trained(texts, model(TEXT, fit=fit_words(1), **own))
    assert "min_df=10" in str(error.value)
    found = trained(texts, model(TEXT, fit=fit_words(10), **own))
    assert all(b"number1" not in file.read_bytes() for file in artifacts.BUNDLE.iterdir())
    assert found["reference"]["features"]["city"]["edges"] == [17.0, 18.0, 19.0]
    trained(texts, model(TEXT, fit=fit_words(1), **own), minimum_value_rows=1)
    assert b"number1" in (artifacts.BUNDLE / "model.onnx").read_bytes()


ENCODERS = (
    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    TargetEncoder(target_type="continuous", cv=KFold(2)),
)


def encode(encoder: Any) -> Callable[..., Any]:
    def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
        columns = ColumnTransformer([("e", encoder, ["city"]), ("n", "passthrough", ["size"])])
        return make_pipeline(columns, Ridge()).fit(features, target)

    return fit


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda each: type(each).__name__)
def test_a_graph_with_whole_texts_is_refused(trained: Callable[..., Any], encoder: Any) -> None:
    texts = ["a question"] * 100 + [f"my password is hunter{i // 2}" for i in range(100)]
    own = {"fit": encode(encoder), "EXAMPLES": ({"size": 1, "city": "a question"},)}
    with pytest.raises(InputError, match="the graph would publish 50 whole texts that fewer than 10 train") as error:
        trained(texts, model(TEXT, **own))
    assert "hunter" not in str(error.value)
    assert not artifacts.BUNDLE.exists()
    trained(texts, model(TEXT, **own), minimum_value_rows=1)
    assert b"hunter" in (artifacts.BUNDLE / "model.onnx").read_bytes()
    trained(["a question"] * 100 + ["an answer"] * 100, model(TEXT, **own))


def _graph(*texts: str) -> onnx.ModelProto:
    """Return a graph with texts in an attribute, in a constant, and in the graph of a branch."""
    table = onnx.helper.make_node("LabelEncoder", ["x"], ["y"], keys_strings=texts[:1])
    inner = onnx.helper.make_graph([], "inner", [], [])
    inner.initializer.append(onnx.helper.make_tensor("c", onnx.TensorProto.STRING, [1], [texts[-1].encode()]))
    branch = onnx.helper.make_node("If", ["z"], ["w"], then_branch=inner)
    return onnx.helper.make_model(onnx.helper.make_graph([table, branch], "g", [], []))


@pytest.mark.parametrize(
    ("texts", "stored", "refused"),
    [
        (["Hunter2 ", "the house"], ["hunter2", "x"], 1),
        (["hunter2", "the house"], ["x", "hunter2"], 1),
        (["hunter2", "my hunter2"], ["hunter2", "x"], 0),
        (["é", "the house"], ["é", "é"], 0),
        (["mail", "the house"], ["mail", "x"], 0),
        (["yes", "the house"], ["yes", "x"], 0),
        (["however", "the house"], ["however", "x"], 0),
        (["Rome", "the house"], ["rome", "x"], 0),
        (["Lol", "the lollipop"], ["lol", "x"], 0),
    ],
    ids=[
        "folded",
        "inner graph",
        "in enough rows",
        "a letter",
        "a category",
        "a class",
        "a stop word",
        "listed",
        "a token",
    ],
)
def test_only_texts_of_few_rows_are_refused_in_a_graph(texts: list[str], stored: list[str], refused: int) -> None:
    frame = pd.DataFrame({"channel": ["mail", "chat"], "body": texts})
    kinds: list[Any] = ["category", "text"]
    columns = tuple(Column(name=name, type=kind, required=True) for name, kind in zip(frame, kinds, strict=True))
    schema = Schema(kind="classification", key=("id",), target="price", classes=("no", "yes"), columns=columns)
    fitted = [
        CountVectorizer(stop_words="english").fit(["a house"]),
        CountVectorizer(vocabulary=["rome"]).fit(["a"]),
        CountVectorizer(analyzer="char_wb", ngram_range=(3, 3), min_df=2).fit(["lol", "lollipop"]),
    ]
    rows = InMemory(frame, frame, "price")
    if not refused:
        refuse_texts_in_graph(fitted, _graph(*stored), rows, schema, 2)
        return
    with pytest.raises(InputError, match=f"would publish {refused} whole texts that fewer than 2 training rows have"):
        refuse_texts_in_graph(fitted, _graph(*stored), rows, schema, 2)


def test_a_word_in_the_graph_of_an_own_export_may_be_public() -> None:
    frame = pd.DataFrame({"body": ["hello", "my password is hunter2"]})
    schema = Schema(
        kind="regression",
        key=("id",),
        target="price",
        classes=None,
        columns=(Column(name="body", type="text", required=True),),
    )
    fitted, rows = SimpleNamespace(to_onnx=None), InMemory(frame, frame, "price")
    refuse_texts_in_graph(fitted, _graph("hello", "x"), rows, schema, 2)
    with pytest.raises(InputError, match="would publish 1 whole texts"):
        refuse_texts_in_graph(fitted, _graph("hello", "my password is hunter2"), rows, schema, 2)


STORED = np.random.default_rng(0).integers(0, 256, (3, 12)).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "constant"),
    [
        ("vector", STORED.astype(np.float32)),
        ("vector", STORED.astype(np.float64).T),
        ("vector", STORED.astype(np.float32).ravel()),
        ("image", STORED.reshape(3, 2, 6, 1)),
        ("image", (STORED / 255).astype(np.float32)),
        ("image", STORED.astype(np.float32)),
    ],
    ids=["vectors", "columns", "one list", "images", "scaled images", "images as floats"],
)
def test_a_graph_with_vectors_or_images_of_training_rows_is_refused(kind: Any, constant: Any) -> None:
    shape, dtype = ((2, 6, 1), np.uint8) if kind == "image" else ((12,), np.float32)
    frame = pd.DataFrame({"photo": [row.reshape(shape).astype(dtype) for row in STORED]})
    column = Column(name="photo", type=kind, shape=shape, required=True)
    schema = Schema(kind="regression", key=("id",), target="price", classes=None, columns=(column,))

    def check(stored: Any, minimum: int = 2) -> None:
        node = onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(stored))
        graph = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
        refuse_arrays_in_graph(graph, InMemory(frame, frame, "price"), schema, minimum)

    with pytest.raises(InputError, match="would publish 3 values of 'photo' that fewer than 2 training rows have"):
        check(constant)
    check(constant, minimum=1)
    check(constant + constant.dtype.type(1))
    frame["photo"] = [np.zeros(shape, dtype)] * 3
    check(np.zeros_like(constant))


def test_support_vectors_are_training_rows() -> None:
    frame = pd.DataFrame({"ink": [row.astype(np.float32) for row in STORED]})
    column = Column(name="ink", type="vector", shape=(12,), required=True)
    schema = Schema(kind="regression", key=("id",), target="price", classes=None, columns=(column,))
    node = onnx.helper.make_node("SVMRegressor", ["x"], ["y"], support_vectors=STORED.ravel().astype(float).tolist())
    graph = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(InputError, match="would publish 3 values of 'ink'"):
        refuse_arrays_in_graph(graph, InMemory(frame, frame, "price"), schema, 10)


@pytest.mark.parametrize("kind", [TEXT, pa.Column(str)], ids=["text", "category"])
def test_examples_of_few_delivered_rows_are_refused(trained: Callable[..., Any], kind: pa.Column) -> None:
    texts = ["a house"] * 190 + ["my password is hunter2"] * 10
    own = {"fit": fit_words(10)}
    secret = ({"size": 1, "city": " my password is hunter2"},)
    trained(texts, model(kind, **own, EXAMPLES=secret))
    with pytest.raises(InputError, match="EXAMPLES has a value of 'city' that the deliveries have in 9 of") as error:
        trained([*texts[:-1], "a house"], model(kind, **own, EXAMPLES=secret))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("kind", [TEXT, pa.Column(str)], ids=["text", "category"])
def test_examples_that_are_not_rows_are_refused(kind: pa.Column) -> None:
    for examples, words in (
        ("abc", "EXAMPLES has the type str; use a tuple of dictionaries"),
        ({"size": 1, "city": "a"}, "EXAMPLES has the type dict; use a tuple"),
        (pd.DataFrame({"size": [1.0], "city": ["a"]}), "EXAMPLES has the type DataFrame; use a tuple"),
        (({"size": 1, "city": "a"}, None), "row 2 of EXAMPLES has the type NoneType; use a dictionary"),
    ):
        with pytest.raises(InputError, match=words):
            check_contract(model(kind, EXAMPLES=examples))


@pytest.mark.parametrize("kind", ["text", "category"])
def test_a_token_in_several_texts_of_a_row_counts_as_one_row(kind: Any) -> None:
    frame = pd.DataFrame({"subject": ["the house"] * 9 + ["the secret"], "body": ["the house"] * 9 + ["secret"]})
    columns = tuple(Column(name=name, type=kind, required=True) for name in frame)
    schema = Schema(kind="regression", key=("subject",), target="price", classes=None, columns=columns)
    fitted = CountVectorizer().fit(pd.concat([frame["subject"], frame["body"]]))
    with pytest.raises(InputError, match="1 of the 3 tokens of CountVectorizer that fewer than 2 training rows have"):
        refuse_rare_tokens(fitted, InMemory(frame, frame, "price"), schema, 2)
    refuse_rare_tokens(fitted, InMemory(frame, frame, "price"), schema, 1)


def test_the_message_of_a_failed_fit_does_not_quote_a_text(trained: Callable[..., Any]) -> None:
    def fit(features: pd.DataFrame, *_: Any) -> Any:
        raise ValueError(f"could not convert {features['city'].iloc[0]!r}")

    texts = ["my password is hunter2"] * ROWS
    with pytest.raises(InputError, match=r"`fit` failed \(ValueError\)") as error:
        trained(texts, model(TEXT, fit=fit, EXAMPLES=({"size": 1, "city": "a"},)))
    assert "hunter2" not in str(error.value)


def test_the_message_of_a_failed_fit_names_a_wrong_setting_of_a_text_model(trained: Callable[..., Any]) -> None:
    def fit(_: pd.DataFrame, __: "pd.Series[float]", settings: Mapping[str, Any], ___: int) -> Any:
        return Ridge(**settings)

    with pytest.raises(InputError, match=r"`fit` failed \(TypeError, about the setting 'learning_rate'\)"):
        trained(["a b"] * ROWS, model(TEXT, fit=fit, EXAMPLES=({"size": 1, "city": "a"},)))


@pytest.mark.parametrize("city", [TEXT, pa.Column(str, metadata={"private": "drop"})], ids=["text", "private"])
def test_the_message_about_a_difference_does_not_quote_a_value_that_is_not_published(
    trained: Callable[..., Any], city: pa.Column
) -> None:
    """The fitted model adds 100 to each row with a password, and its graph does not."""

    class Wrong:
        def __init__(self, fitted: Any) -> None:
            self.fitted = fitted

        def predict(self, features: pd.DataFrame) -> Any:
            return self.fitted.predict(features) + 100 * features["city"].str.contains("hunter2").to_numpy()

        def to_onnx(self, export: Any) -> Any:
            return export(self.fitted)

    def fit(*arguments: Any) -> Any:
        return Wrong(fit_words(10)(*arguments))

    texts = ["my password is hunter2" if i % 3 else "the house is old" for i in range(ROWS)]
    own = {"fit": fit, "KEY": ("city",), "EXAMPLES": ({"size": 1, "city": "a"},)}
    with pytest.raises(Exception, match="differ on") as error:
        trained(texts, model(city, **own))
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in artifacts.PARITY.read_text()
    assert "`city` is a text of 22 characters" in str(error.value)


def test_a_model_cannot_change_the_rows_or_the_settings_of_later_checks(trained: Callable[..., Any]) -> None:
    def fit(changes: bool) -> Callable[..., Any]:
        def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Any, seed: int) -> Any:
            fitted = fit_words(10)(features.copy(), target.copy(), settings, seed)
            if changes:
                features["city"], target[:] = "x", 0
                features["size"] *= 100
                settings["max_iter"] = -1
            return fitted

        return fit

    texts, own = ["the house"] * 150 + ["a place by the sea"] * 50, {"EXAMPLES": ({"size": 1, "city": "a"},)}
    expected = trained(texts, model(TEXT, fit=fit(changes=False), **own))
    assert trained(texts, model(TEXT, fit=fit(changes=True), **own)) == expected


@pytest.mark.parametrize(
    ("column", "names", "words"),
    [
        (TEXT, {}, "lacks EXAMPLES, which the text 'city' needs"),
        (pa.Column(str, metadata={"kind": "text"}), {"EXAMPLES": ({},)}, "the text 'city' has no maximum length"),
        (pa.Column(str, metadata={"kind": "prose"}), {}, """metadata "kind" of 'city' is 'prose'"""),
        (pa.Column(float, metadata={"kind": "text"}), {}, "for a column of type str"),
        (TEXT, {"TARGET": "city", "FEATURES": ("size",)}, "the target 'city' cannot be a text"),
    ],
    ids=["no examples", "no length", "unknown kind", "a number", "target"],
)
def test_a_wrong_declaration_is_refused(column: pa.Column, names: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_contract(model(column, **names))


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"size": 1, "city": "x" * 91}, "a value of 'city' does not fit the schema"),
        ({"size": "one", "city": "x"}, "a value of 'size' does not fit the schema"),
        ({"city": "x"}, "a value of 'size' does not fit the schema"),
        ({"size": float("inf"), "city": "x"}, "a value of 'size' does not fit the schema"),
        ({"size": 1e39, "city": "x"}, "a value of 'size' does not fit the schema"),
        ({"size": 10**400, "city": "x"}, "a value of 'size' does not fit the schema"),
        ({"size": 1, "city": ["x"]}, "a value of 'city' does not fit the schema"),
        ({"size": 1, "city": ""}, "a value of 'city' does not fit the schema"),
        ({"size": 1, "city": "\ud800"}, "a value of 'city' does not fit the schema"),
        ({"size": 1, "city": "x", "price": 3}, "has 'price', which is not in FEATURES"),
    ],
    ids=[
        "too long",
        "not a number",
        "missing",
        "infinite",
        "beyond float32",
        "beyond float64",
        "a list",
        "an empty text",
        "half a character",
        "unknown",
    ],
)
def test_an_example_that_does_not_fit_is_refused(example: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        example_rows([example], model(TEXT))


def test_examples_have_the_types_of_validated_rows() -> None:
    day = pa.Column(DateTime(to_datetime_kwargs={"format": "%d.%m.%Y"}), nullable=True)
    columns = model().SCHEMA.columns | {"day": day, "note": pa.Column(str, nullable=True)}
    own = model(SCHEMA=pa.DataFrameSchema(columns), FEATURES=("size", "day", "note"))
    rows = example_rows([{"size": 1, "day": "2025-12-31", "note": "a"}, {"size": 2.5}], own)
    assert [dtype.kind for dtype in rows.dtypes[:2]] == ["f", "M"]
    assert rows["day"].iloc[0] == pd.Timestamp("2025-12-31")
    assert rows.iloc[1][["day", "note"]].isna().all()


def test_a_message_about_many_classes_names_ten() -> None:
    classes, frame = tuple(f"C{i:03}" for i in range(300)), pd.DataFrame({"size": [1.0], "price": ["C000"]})
    fitted = SimpleNamespace(classes_=classes[1:], predict_proba=None)
    wrong = model(fit=lambda *_: fitted)
    with pytest.raises(InputError, match=r"the 299 classes C001, .* and 289 more, the training rows .* 300") as error:
        train.fit_checked(wrong, InMemory(frame, frame, "price"), load_params(ROOT / "params.yaml"), classes)
    assert len(str(error.value)) < 400


def test_slices_do_not_show_values_of_few_rows() -> None:
    rows = pd.DataFrame({"city": ["Rome", "Rome", "Hamlet", None], "size": [1.0, 2.0, 3.0, 4.0]})
    rules: Any = {"city": "values", "city & size": "values"}
    labels = slice_labels(rows, rules, model(), 2)
    assert labels["city"].tolist() == ["Rome", "Rome", "(other)", "missing"]
    assert labels["city & size"].tolist()[2] == "(other), 3.0"
    for public in (pa.Column(str, pa.Check.isin(["Rome", "Hamlet"])), pa.Column(str, metadata={"kind": "category"})):
        assert slice_labels(rows, rules, model(public), 2)["city"][2] == "Hamlet"
    assert slice_labels(rows, rules, model(), 1)["city"][2] == "Hamlet"


def test_a_text_is_sliced_by_its_length_only() -> None:
    rows = pd.DataFrame({"city": pd.Series(["secret", "a longer secret", None], dtype="str")})
    labels = slice_labels(rows, {"city": [10.0]}, model(TEXT))
    assert list(labels["city"]) == ["under 10", "10 or more", "missing"]
    with pytest.raises(InputError, match=r"`evaluate\.slices\.city` has the kind text, .*edges of its length"):
        slice_labels(rows, {"city": "values"}, model(TEXT))


@pytest.mark.parametrize("city", [TEXT, pa.Column(str, metadata={"private": "drop"})], ids=["text", "private"])
def test_a_check_that_fails_on_a_value_is_reported_without_the_value(tmp_path: Path, city: pa.Column) -> None:
    def broken(rows: pd.DataFrame) -> "pd.Series[bool]":
        raise ValueError(f"cannot read {rows['city'].iloc[0]}")

    schema = pa.DataFrameSchema(model(city).SCHEMA.columns, checks=[pa.Check(broken, error="city is odd")])
    path = tmp_path / "a.csv"
    path.write_text("id,size,city,price\n1,2,hunter2,3\n")
    with pytest.raises(InputError, match="'city is odd' does not work on the data; correct") as error:
        list(check_deliveries(tmp_path, model(SCHEMA=schema), Validate(max_invalid_share=0.1), TODAY))
    assert "hunter2" not in str(error.value)


def test_a_line_above_the_header_is_not_quoted_if_it_can_have_a_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("7,my password is hunter2,1\nid,city,size,price\n1,Rome,2,3\n")
    with pytest.raises(InputError, match="has a line above its header"):
        list(check_deliveries(tmp_path, model(TEXT), Validate(max_invalid_share=0.5), TODAY))

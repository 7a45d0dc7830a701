"""The answers and refusals of the three protocols. A refusal lists every fault with its place."""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slipway.bundle import Column, Schema
from slipway.serving.problems import Problem, pointer
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.records import Records
from slipway.serving.served_model import ServedModel
from tests.slipway.serving.odd import AREA, ROW, SOLD, expected

Rows = list[dict[str, Any]]
ROWS = [
    ROW,
    {AREA: 0.5, "note": "ü€\u0000"},
    {AREA: 9, "rooms": None, "kind": None, SOLD: None, "note": '"\\'},
    {AREA: 0, "rooms": 3e3, "kind": "a", SOLD: "2010-06-30", "note": " "},
    {AREA: 1, "note": "a", SOLD: "2000-03-01"},
]
FULL = [{name: row.get(name) for name in ROW} for row in ROWS]


def predict(model: ServedModel, body: Any) -> Any:
    return json.loads(Predict(model)(_text(body)))


def invoke(model: ServedModel, body: Any) -> Any:
    return json.loads(Invocations(model)(_text(body)))["predictions"]


def infer(model: ServedModel, body: Any) -> Any:
    return json.loads(Infer(model)(_text(body)))["outputs"][0]["data"]


def _text(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def split(rows: Rows) -> Any:
    return {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}


def columns(rows: Rows) -> Any:
    return {"inputs": {name: [row[name] for row in rows] for name in rows[0]}}


def tensors(rows: Rows, shape: Callable[[int], list[int]] = lambda rows: [rows, 1]) -> Any:
    return {
        "inputs": [
            {
                "name": name,
                "shape": shape(len(rows)),
                "datatype": "BYTES" if name in ("kind", "note", SOLD) else "FP32",
                "data": [row[name] for row in rows],
            }
            for name in rows[0]
        ]
    }


WAYS: dict[str, Callable[[ServedModel, Rows], list[float]]] = {
    "predict one": lambda model, rows: [predict(model, row)["prediction"] for row in rows],
    "predict many": lambda model, rows: [each["prediction"] for each in predict(model, rows)],
    "dataframe_records": lambda model, rows: invoke(model, {"dataframe_records": rows}),
    "instances": lambda model, rows: invoke(model, {"instances": rows}),
    "inputs of rows": lambda model, rows: invoke(model, {"inputs": rows}),
    "inputs of columns": lambda model, _: invoke(model, columns(FULL)),
    "dataframe_split": lambda model, _: invoke(model, split(FULL)),
    "split one by one": lambda model, _: [invoke(model, split([row]))[0] for row in FULL],
    "infer": lambda model, _: infer(model, tensors(FULL)),
    "infer flat": lambda model, _: infer(model, tensors(FULL, lambda rows: [rows])),
    "infer one by one": lambda model, _: [infer(model, tensors([row]))[0] for row in FULL],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_value_reaches_its_place(odd_model: ServedModel, way: str) -> None:
    assert WAYS[way](odd_model, ROWS) == [expected(row) for row in ROWS]


def test_fields_may_have_any_order(odd_model: ServedModel) -> None:
    turned = dict(reversed(ROW.items()))
    assert predict(odd_model, turned) == predict(odd_model, ROW)
    assert invoke(odd_model, split([turned])) == invoke(odd_model, split([ROW])) == [expected(ROW)]
    assert infer(odd_model, {"inputs": tensors([ROW])["inputs"][::-1]}) == [expected(ROW)]


def test_integers_and_white_space_are_fine(odd_model: ServedModel) -> None:
    assert predict(odd_model, b" \n" + json.dumps(ROW, indent=4).encode() + b"\r\n") == {"prediction": expected(ROW)}
    assert predict(odd_model, b"\t" + json.dumps([ROW]).encode()) == [{"prediction": expected(ROW)}]


def test_nested_tensors_and_other_number_types_are_accepted(odd_model: ServedModel) -> None:
    body = tensors(FULL)
    for tensor in body["inputs"]:
        tensor["data"] = [[value] for value in tensor["data"]]
        tensor["datatype"] = {"FP32": "INT64"}.get(tensor["datatype"], "BYTES")
    assert infer(odd_model, body) == [expected(row) for row in FULL]


def test_infer_gives_back_the_id_and_names_the_model(odd_model: ServedModel) -> None:
    body = {**tensors(FULL), "id": "7", "outputs": [{"name": "prediction", "parameters": {"binary_data": False}}]}
    answer = json.loads(Infer(odd_model)(_text(body)))
    assert answer["id"] == "7"
    assert answer["model_name"] == "odd"
    assert answer["model_version"] == odd_model.hash
    assert answer["outputs"][0]["shape"] == [len(FULL), 1]


def test_timestamps_of_data_frames_are_dates(odd_model: ServedModel) -> None:
    for stamp in ("2001-01-01T00:00:00.000", "2001-01-01T00:00:00", "2001-01-01T00:00:00.000Z"):
        assert invoke(odd_model, split([{**ROW, SOLD: stamp}])) == [expected(ROW)]
    refused(Invocations, odd_model, split([{**ROW, SOLD: "2001-01-01T00:00:01"}]), 422)


def refused(protocol: Any, model: ServedModel, body: Any, status: int) -> Problem:
    with pytest.raises(Problem) as refusal:
        protocol(model)(_text(body))
    assert refusal.value.status == status, refusal.value
    json.loads(refusal.value.body())
    return refusal.value


FAULTS = {
    "null": {AREA: None},
    "missing": None,
    "text": {AREA: "3"},
    "bool": {AREA: True},
    "list": {AREA: [3]},
    "low": {AREA: -0.001},
    "high": {AREA: 9.001},
    "beyond single precision": {"rooms": 1e39},
    "unknown value": {"kind": "c"},
    "case": {"kind": "A"},
    "number for a category": {"note": 1},
    "empty text": {"note": ""},
    "null text": {"note": None},
    "day too early": {SOLD: "2000-02-29"},
    "day too late": {SOLD: "2010-07-01"},
    "no such day": {SOLD: "2001-02-29"},
    "another form of date": {SOLD: "01.01.2001"},
    "date with time": {SOLD: "2001-01-01T00:00:00"},
    "date as a number": {SOLD: 11323},
    "extra": {"surprise": 1},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_fault_is_refused_in_every_protocol(odd_model: ServedModel, fault: str, rows: int) -> None:
    change = FAULTS[fault]
    bad = {**ROW, **change} if change else {name: value for name, value in ROW.items() if name != AREA}
    name = next(iter(change)) if change else AREA
    full = [bad] * rows
    last = [ROW] * (rows - 1) + [bad]
    place = name.replace("~", "~0").replace("/", "~1")
    one = refused(Predict, odd_model, bad, 422)
    assert [each.pointer for each in one.faults] == [f"#/{place}"]
    many = refused(Predict, odd_model, last, 422)
    assert [each.pointer for each in many.faults] == [f"#/{rows - 1}/{place}"]
    if fault != "date with time":  # data frames hold dates like this
        records = refused(Invocations, odd_model, {"dataframe_records": last}, 422)
        assert [each.pointer for each in records.faults] == [f"#/dataframe_records/{rows - 1}/{place}"]
        table = refused(Invocations, odd_model, split(full), 422)
        if fault == "missing":
            assert "lacks" in str(table)
        else:
            assert len(table.faults) == rows
            assert table.faults[-1].pointer.startswith("#/dataframe_split/")
    if fault != "list":  # a tensor may be a list of lists
        tensor = refused(Infer, odd_model, tensors(full), 422)
        assert fault == "missing" or tensor.faults[0].pointer.startswith("#/inputs")


def test_all_faults_of_all_records_are_listed(odd_model: ServedModel) -> None:
    bad = {AREA: "x", "rooms": [], "kind": "c", SOLD: "2001-02-31", "x": 1}
    problem = refused(Predict, odd_model, [ROW, bad, {**ROW, AREA: 10}], 422)
    assert {each.pointer for each in problem.faults} == {
        "#/1/area~1m²~0'%",
        "#/1/rooms",
        "#/1/kind",
        "#/1/sold on",
        "#/1/note",
        "#/1/x",
        "#/2/area~1m²~0'%",
    }
    assert json.loads(problem.body())["status"] == 422


def test_the_number_of_listed_faults_is_limited(odd_model: ServedModel) -> None:
    bad = {**ROW, **{f"extra{i}": 1 for i in range(1000)}}
    assert len(json.loads(refused(Predict, odd_model, bad, 422).body())["errors"]) == 100


NO_JSON = [
    b"",
    b"   ",
    b"{",
    b"nonsense",
    b"\xff\xfe",
    b'{"note":"\xc3\x28"}',
    b'{"note":"\\ud800"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    json.dumps(ROW).encode() + b"x",
    json.dumps(ROW).replace("3", "-NaN", 1).encode(),
    json.dumps(ROW).replace("3", "Infinity", 1).encode(),
    json.dumps(ROW).replace("3", "1e999", 1).encode(),
    json.dumps(ROW).replace("3", "0x3", 1).encode(),
    json.dumps(ROW).replace("3", "03", 1).encode(),
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("protocol", [Predict, Invocations, Infer])
def test_a_body_that_is_not_json_is_refused(odd_model: ServedModel, protocol: Any, body: bytes) -> None:
    refused(protocol, odd_model, body, 400)


@pytest.mark.parametrize("protocol", [Predict, Infer])
def test_nan_is_refused_by_other_protocols(odd_model: ServedModel, protocol: Any) -> None:
    refused(protocol, odd_model, json.dumps(ROW).replace("3", "NaN", 1).encode(), 400)


def test_a_number_of_a_million_digits_is_refused(odd_model: ServedModel) -> None:
    with pytest.raises(Problem):
        Predict(odd_model)(json.dumps(ROW).replace("3", "3" * 1_000_000, 1).encode())


@pytest.mark.parametrize("body", [b"1", b"null", b'"x"', b"true", b"[1]", b"[null]", b"[[]]", b"{}", b"[{}]"])
@pytest.mark.parametrize("protocol", [Predict, Invocations, Infer])
def test_json_of_another_kind_is_refused(odd_model: ServedModel, protocol: Any, body: bytes) -> None:
    refused(protocol, odd_model, body, 422)


def doubled(text: str, key: str) -> bytes:
    """Return the JSON document with one member twice."""
    member = f"{json.dumps(key)}: "
    start = text.index(member)
    return f"{text[:start]}{member}1, {text[start:]}".encode()


@pytest.mark.parametrize(
    ("protocol", "body", "keys"),
    [
        (Predict, ROW, ["rooms", "note", AREA]),
        (Predict, FULL, ["rooms", "kind"]),
        (Invocations, {"dataframe_records": FULL}, ["rooms", "dataframe_records"]),
        (Invocations, split(FULL), ["columns", "data", "dataframe_split"]),
        (Invocations, columns(FULL), ["rooms", "inputs"]),
        (Infer, tensors(FULL), ["name", "shape", "datatype", "data", "inputs"]),
        (Invocations, split(FULL[:1]), ["columns", "data", "dataframe_split"]),
        (Infer, tensors(FULL[:1]), ["name", "shape", "datatype", "data", "inputs"]),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_duplicate_key_is_refused(odd_model: ServedModel, protocol: Any, body: Any, keys: list[str]) -> None:
    for key in keys:
        assert "twice" in str(refused(protocol, odd_model, doubled(json.dumps(body), key), 400))


@pytest.mark.parametrize("protocol", [Predict, Invocations, Infer])
@pytest.mark.parametrize("rows", [FULL, FULL[:1]])
def test_a_colon_in_a_value_is_fine_and_hides_no_duplicate(odd_model: ServedModel, protocol: Any, rows: Rows) -> None:
    rows = [{**row, "note": '12:30 "":'} for row in rows]
    body = {Predict: rows, Invocations: split(rows), Infer: tensors(rows)}[protocol]
    key = {Predict: "rooms", Invocations: "data", Infer: "shape"}[protocol]
    assert protocol(odd_model)(_text(body))
    assert "twice" in str(refused(protocol, odd_model, doubled(json.dumps(body), key), 400))
    assert "twice" in str(refused(protocol, odd_model, doubled(json.dumps(body), key).replace(b'": ', b'" :'), 400))


@pytest.mark.parametrize("rows", [FULL, FULL[:1]])
def test_a_duplicate_key_with_the_same_value_is_refused(odd_model: ServedModel, rows: Rows) -> None:
    for member in ('"name": "rooms"', '"datatype": "FP32"'):
        twice = json.dumps(tensors(rows)).replace(member, f"{member}, {member}", 1).encode()
        assert "twice" in str(refused(Infer, odd_model, twice, 400))


@pytest.mark.parametrize("rows", [FULL, FULL[:1]])
def test_a_duplicate_column_is_refused(odd_model: ServedModel, rows: Rows) -> None:
    inputs = tensors(rows)["inputs"]
    assert "twice" in str(refused(Infer, odd_model, {"inputs": [*inputs, inputs[0]]}, 422))
    assert "twice" in str(refused(Infer, odd_model, {"inputs": [*inputs[:-1], inputs[0]]}, 422))
    table = split(rows)["dataframe_split"]
    twice = {"columns": [*table["columns"][:-1], table["columns"][0]], "data": table["data"]}
    assert "twice" in str(refused(Invocations, odd_model, {"dataframe_split": twice}, 422))
    ragged = {"columns": table["columns"], "data": [[*row, 1] for row in table["data"]]}
    assert "more or fewer values" in str(refused(Invocations, odd_model, {"dataframe_split": ragged}, 422))


def test_a_duplicate_key_is_refused_where_all_columns_are_required(champion: ServedModel) -> None:
    row = dict(champion.golden.rows[0])
    for body in (row, [row, row]):
        for key in ("rooms", "wall"):
            assert "twice" in str(refused(Predict, champion, doubled(json.dumps(body), key), 400))
            with_escape = doubled(json.dumps(body).replace('"garage"', '"g\\u0061rage"'), key)
            assert "twice" in str(refused(Predict, champion, with_escape, 400))
    assert predict(champion, json.dumps(row).replace('"garage"', '"g\\u0061rage"').encode()) == predict(champion, row)


def test_the_number_of_records_is_limited(odd_model: ServedModel) -> None:
    assert len(predict(odd_model, [ROW] * 5)) == 5
    for protocol, body in (
        (Predict, [ROW] * 6),
        (Invocations, {"instances": [ROW] * 6}),
        (Invocations, split([ROW] * 6)),
        (Invocations, columns([ROW] * 6)),
        (Infer, tensors(FULL + FULL)),
    ):
        assert "records, and the limit is 5" in str(refused(protocol, odd_model, body, 422)), body


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (Predict, []),
        (Invocations, {"instances": []}),
        (Invocations, {"dataframe_split": {"columns": list(ROW), "data": []}}),
        (Invocations, {"inputs": {name: [] for name in ROW}}),
    ],
    ids=range(4),
)
def test_a_request_without_records_is_refused(odd_model: ServedModel, protocol: Any, body: Any) -> None:
    assert str(refused(protocol, odd_model, body, 422)) == "The request has no record; send 1 to 5."


def test_a_table_without_required_columns_is_refused_with_their_names(odd_model: ServedModel) -> None:
    row = {"rooms": 1, "kind": "a"}
    for body, place in ((split([row] * 3), "#/dataframe_split/columns"), (columns([row] * 3), "#/inputs")):
        problem = str(refused(Invocations, odd_model, body, 422))
        assert problem == f"{place}: the request lacks {AREA!r} and 'note'; send all required columns."
    assert f"lacks {AREA!r}, 'note' and 'sold on'" in str(refused(Infer, odd_model, tensors([row]), 422))


def test_nan_of_a_data_frame_is_a_missing_value(odd_model: ServedModel) -> None:
    """MLflow's client writes NaN for missing numbers and texts, and NaT for missing dates."""
    nan = float("nan")
    row = {**ROW, "rooms": nan, "kind": nan, "note": 'NaN "NaN" \\"', SOLD: "NaT"}
    without = {AREA: 3, "note": row["note"]}
    for body in (split([row]), split([row] * 3), columns([row]), {"instances": [row]}, {"dataframe_records": [row]}):
        assert set(invoke(odd_model, body)) == {expected(without)}


def test_nan_in_a_required_column_is_refused_with_its_name(odd_model: ServedModel) -> None:
    problem = refused(Invocations, odd_model, split([{**ROW, "note": float("nan")}]), 422)
    assert str(problem) == "#/dataframe_split/data/0/4: column 'note': A value is required."


def test_a_category_with_many_values_is_refused_with_a_few_of_them() -> None:
    values = tuple(f"level {i}" for i in range(10_000))
    schema = Schema(
        kind="regression",
        key=(),
        target="y",
        classes=None,
        columns=(Column(name="c", type="category", required=True, values=values),),
    )
    with pytest.raises(Problem) as refusal:
        Records(schema, 1000).from_rows([{"c": "x" * 10_000}] * 100, pointer)
    body = refusal.value.body()
    assert b"'level 0', 'level 1', 'level 2', 'level 3', 'level 4' and 9,995 more" in body
    assert len(body) < 20_000


@pytest.mark.parametrize("protocol", [Predict, Invocations, Infer])
def test_an_answer_does_not_grow_with_a_name_in_the_request(odd_model: ServedModel, protocol: Any) -> None:
    long = "x" * 500_000
    for body in (
        {long: 1},
        [{long: 1}],
        {**ROW, "kind": long},
        {"inputs": [{"name": long}]},
        {"instances": [{long: 1}]},
    ):
        assert len(refused(protocol, odd_model, body, 422).body()) < 10_000


ENVELOPES = [
    (Invocations, {}, "one of"),
    (Invocations, {"instances": [ROW], "inputs": [ROW]}, "one of"),
    (Invocations, {"instances": [ROW], "x": 1}, "`x`"),
    (Invocations, {"instances": [ROW], "params": {"temperature": 1}}, "params"),
    (Invocations, {"dataframe_split": {"columns": [*ROW, "note"], "data": [[*ROW.values(), "x"]]}}, "twice"),
    (Invocations, {"dataframe_split": {"columns": list(ROW), "data": [[1]]}}, "more or fewer values"),
    (Invocations, {"inputs": {**{name: [value] for name, value in ROW.items()}, "rooms": [1, 2]}}, "number of rows"),
    (Infer, {"inputs": [*tensors([ROW])["inputs"], tensors([ROW])["inputs"][0]]}, "twice"),
    (Infer, {**tensors([ROW]), "outputs": [{"name": "other"}]}, "no output"),
    (Infer, tensors([ROW], lambda _: [2, 1]), "shape"),
    (Infer, tensors([ROW], lambda _: [1, 1, 1]), "shape"),
    (Infer, tensors([ROW], lambda _: [-1, 1]), "shape"),
    (Infer, tensors([ROW], lambda _: []), "shape"),
    (Infer, {"inputs": [{**each, "datatype": "BOOL"} for each in tensors([ROW])["inputs"]]}, "datatype"),
    (Infer, {"inputs": [{**each, "datatype": "FP32"} for each in tensors([ROW])["inputs"]]}, "datatype"),
]


@pytest.mark.parametrize(("protocol", "body", "says"), ENVELOPES, ids=range(len(ENVELOPES)))
def test_envelopes_that_are_wrong_are_refused(odd_model: ServedModel, protocol: Any, body: Any, says: str) -> None:
    assert says in str(refused(protocol, odd_model, body, 422))


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (Predict, "{" + ",".join(f'"{i}":0' for i in range(80_000)) + ',"79999":0}'),
        (Predict, json.dumps({str(i): 0 for i in range(80_000)})),
        (Invocations, json.dumps({"dataframe_split": {"columns": [*map(str, range(40_000))], "data": [[0] * 40_000]}})),
        (
            Infer,
            json.dumps({"inputs": [{"name": str(i), "shape": [1], "datatype": "X", "data": [0]} for i in range(9000)]}),
        ),
        (Invocations, '{"instances": [NaN, "' + '\\"' * 250_000),
        (Invocations, '{"instances": [NaN, "' + '\\"' * 250_000 + "\\"),
    ],
    ids=["twice", "extra", "split", "infer", "open text", "open escape"],
)
def test_no_body_takes_long_to_refuse(odd_model: ServedModel, protocol: Any, body: str) -> None:
    began = time.thread_time()
    with pytest.raises(Problem):
        protocol(odd_model)(body.encode())
    assert time.thread_time() - began < 2  # quadratic time would take minutes


def test_a_tensor_is_all_flat_or_all_nested(odd_model: ServedModel) -> None:
    for data in ([[3], []], [[3, 3]], [[3], 3]):
        body = tensors([ROW, ROW])
        body["inputs"][0]["data"] = data
        refused(Infer, odd_model, body, 422)


def test_params_that_are_empty_are_fine(odd_model: ServedModel) -> None:
    """The clients of MLflow send them."""
    for params in ({}, None):
        assert invoke(odd_model, {"instances": [ROW], "params": params}) == [expected(ROW)]


def test_a_prediction_that_is_not_finite_is_refused(odd_model: ServedModel) -> None:
    huge = {**ROW, "rooms": 3.4e38}
    assert "record 1" in str(refused(Predict, odd_model, [ROW, huge], 422))


def test_a_record_does_not_affect_the_next_one(odd_model: ServedModel) -> None:
    predict(odd_model, ROW)
    least = {AREA: 1, "note": "n"}
    assert predict(odd_model, least) == {"prediction": expected(least)}


def test_a_single_record_and_a_batch_get_equal_predictions(champion: ServedModel) -> None:
    rows = [dict(row) for row in champion.golden.rows]
    single = [predict(champion, row)["prediction"] for row in rows]
    assert single == [each["prediction"] for each in predict(champion, rows)]
    assert np.allclose(single, np.ravel(champion.golden.predictions), rtol=1e-6)

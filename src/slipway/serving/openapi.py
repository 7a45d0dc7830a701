"""The OpenAPI document for predictions and probes, with the columns, ranges and categories of the served model."""

from collections.abc import Collection
from typing import Any

from slipway.serving.protocols import DECISION, Infer
from slipway.serving.served_model import ServedModel

RECORD = {"$ref": "#/components/schemas/Record"}
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
READY = "Readiness: true if the server accepts requests."
REFUSALS = {
    "400": "The body is not JSON, or an object contains a key twice.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON.",
    "422": "The request does not match the schema; `errors` lists the faults.",
    "503": "The server has more requests than it can answer in time. Try again after `Retry-After` seconds.",
}
COMPONENTS = {
    "Problem": {
        "description": "Problem details, RFC 9457.",
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "error": {
                "type": "string",
                "description": "A copy of `detail`, for clients of the Open Inference Protocol.",
            },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["detail", "pointer"],
                    "properties": {"detail": {"type": "string"}, "pointer": {"type": "string"}},
                },
            },
        },
    },
}


def add_predictions(document: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """Add predictions and probes, which FastAPI does not handle, to the OpenAPI document that FastAPI generated."""
    example = dict(model.golden.rows[0])
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= COMPONENTS
    schemas["Record"] = model.records.model.model_json_schema() | {"examples": [example]}
    schemas["Prediction"] = _prediction(model)
    live = {"get": _probe("Liveness: true if the process runs.", live={"type": "boolean"})}
    ready = {"get": _probe(READY, ready={"type": "boolean"})}
    document["paths"] |= {
        "/predict": {"post": _predict(model, example)},
        "/invocations": {"post": _invocations(model, example)},
        f"/v2/models/{model.name}/infer": {"post": _infer(model, example)},
        "/healthz": live,
        "/readyz": ready,
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        f"/v2/models/{model.name}/ready": {"get": _probe(READY, name={"const": model.name}, ready={"type": "boolean"})},
    }
    return document


def _operation(
    tag: str, summary: str, request: dict[str, Any], examples: dict[str, Any], answer: dict[str, Any]
) -> Any:
    return {
        "tags": [tag],
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": request,
                    "examples": {name: {"value": value} for name, value in examples.items()},
                }
            },
        },
        "responses": {
            "200": {"description": "The predictions.", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": why, "content": PROBLEM} for status, why in REFUSALS.items()},
        },
    }


def _predict(model: ServedModel, example: dict[str, Any]) -> Any:
    answer = {"$ref": "#/components/schemas/Prediction"}
    return _operation(
        "Slipway",
        f"Predictions for one record or a list of records{_unknown(model, 'fields')}",
        {"oneOf": [RECORD, _list(model)]},
        {"one": example, "many": [example, example]},
        {"oneOf": [answer, {"type": "array", "items": answer}]},
    )


def _invocations(model: ServedModel, example: dict[str, Any]) -> Any:
    columns = model.records.model.model_json_schema()["properties"]
    split = _object(
        columns={"const": list(columns)},
        data={
            "type": "array",
            "minItems": 1,
            "maxItems": model.records.most,
            "items": _tuple(list(columns.values())),
        },
    )
    by_key = {"dataframe_split": split} | dict.fromkeys(("dataframe_records", "instances", "inputs"), _list(model))
    output: dict[str, Any] = {"type": "number"} if model.schema.classes is None else _probabilities(model)
    if model.schema.decision is not None:
        output = _object(**output["properties"], **{DECISION: {"enum": list(model.schema.classes or ())}})
    return _operation(
        "MLflow",
        "Predictions for a data frame. A split may list its columns in any order; `inputs` may be an object of columns"
        + _unknown(model, "columns"),
        {"oneOf": [_object(**{key: schema}) for key, schema in by_key.items()]},
        {
            "split": {"dataframe_split": {"columns": list(columns), "data": [[example.get(name) for name in columns]]}},
            "records": {"dataframe_records": [example]},
        },
        _object(predictions={"type": "array", "items": output}),
    )


def _infer(model: ServedModel, example: dict[str, Any]) -> Any:
    columns = model.records.model.model_json_schema()["properties"]
    inputs = Infer(model).metadata()["inputs"]
    vectors = {column.name for column in model.schema.columns if column.type == "vector"}
    tensors = [
        _object(
            name={"const": each["name"]},
            shape={"const": [1, each["shape"][1]]},
            datatype={"const": each["datatype"]},
            data=columns[each["name"]] if each["name"] in vectors else _tuple([columns[each["name"]]]),
        )
        for each in inputs
    ]
    sent = [{**each, "shape": [1, each["shape"][1]], "data": _data(example, each["name"], vectors)} for each in inputs]
    all_inputs = _tuple(tensors)
    if model.records.ignores_unknown_fields:
        del all_inputs["maxItems"]
        all_inputs["items"] = _other_tensor([each["name"] for each in inputs])
    return _operation(
        "Open Inference Protocol v2",
        "Predictions for tensors, one for each column. The example has one row; each shape starts with the rows"
        + _unknown(model, "inputs"),
        _object(inputs=all_inputs) | {"properties": {"inputs": all_inputs, "id": {"type": "string"}}},
        {"one": {"inputs": sent}},
        {"type": "object", "required": ["model_name", "model_version", "outputs"]},
    )


def _data(example: dict[str, Any], name: str, vectors: Collection[str]) -> list[Any]:
    """Return the value of a column in the example record as a tensor's data. A vector is a list of numbers."""
    value = example.get(name)
    return [*value] if name in vectors and value is not None else [value]


def _unknown(model: ServedModel, what: str) -> str:
    return f". Unknown {what} are ignored" if model.records.ignores_unknown_fields else ""


def _other_tensor(known: list[str]) -> dict[str, Any]:
    return _object(
        name={"type": "string", "not": {"enum": known}},
        shape={},
        datatype={"type": "string"},
        data={},
    )


def _prediction(model: ServedModel) -> dict[str, Any]:
    if model.schema.classes is None:
        return _object(prediction={"type": "number"})
    answer = {"prediction": {"enum": list(model.schema.classes)}, "probabilities": _probabilities(model)}
    if model.schema.decision is not None:
        answer["threshold"] = {"const": model.schema.decision.threshold}
    return _object(**answer)


def _probabilities(model: ServedModel) -> dict[str, Any]:
    return _object(**{name: {"type": "number"} for name in model.schema.classes or ()})


def _list(model: ServedModel) -> dict[str, Any]:
    return {"type": "array", "items": RECORD, "minItems": 1, "maxItems": model.records.most}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _tuple(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}


def _probe(summary: str, **properties: Any) -> Any:
    answer = {"content": {"application/json": {"schema": _object(**properties)}}}
    return {
        "tags": ["Health"],
        "summary": summary,
        "responses": {"200": {"description": "Yes."} | answer, "503": {"description": "No."} | answer},
    }

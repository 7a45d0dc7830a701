"""Export a fitted estimator to an ONNX graph that includes the preprocessing, and check that both agree."""

import copy
import inspect
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer

from slipway.artifacts import Parity
from slipway.bundle import Schema, onnx_session
from slipway.contract import Classifier, Regressor
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.convert import convert
from slipway.pipeline.disagreement import Answers, Keys, find_cause
from slipway.pipeline.tensors import tensors
from slipway.pipeline.trees import NotConvertible

OUTPUT = "prediction"


def to_onnx(fitted: Regressor | Classifier, schema: Schema) -> onnx.ModelProto:
    """Export the fitted model with the inputs of `schema` and one output, `prediction`.

    Raises InputError if the model cannot be exported.
    """
    own = getattr(fitted, "to_onnx", None)
    if own is None:
        return _in_one_order(_export(fitted, schema))
    takes_export = bool(inspect.signature(own).parameters)
    model = own(lambda estimator: _export(estimator, schema)) if takes_export else own()
    return _in_one_order(_without_metadata(_with_one_output(model)))


def check_parity(
    fitted: Regressor | Classifier,
    model: onnx.ModelProto,
    training: Iterable[pd.DataFrame],
    schema: Schema,
    tolerance: float,
    holdout: Iterable[pd.DataFrame] = (),
    keys: Keys | None = None,
) -> Parity:
    """Compare the predictions of graph and estimator on every row, relative to the prediction of the estimator.

    If there are predictions on both sides of zero, the difference is relative to their mean size instead. `training`
    and `holdout` are the parts of the rows, and are read twice if rows differ. `keys` returns the keys of rows for the
    message about a row that differs.
    """
    session = onnx_session(model.SerializeToString())

    def answers(rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[Any]]:
        expected = predict(fitted, rows, schema)
        return expected, session.run([OUTPUT], tensors(rows, schema))[0].reshape(expected.shape)

    parts = [answers(part) for part in chain(training, holdout)]
    expected, exported = (np.concatenate(each) for each in zip(*parts, strict=True))
    del parts
    least = np.maximum(np.abs(expected).mean(axis=0) * 1e-2, np.finfo(np.float32).tiny)

    def difference(expected: NDArray[np.float64], exported: NDArray[Any]) -> NDArray[Any]:
        relative: NDArray[Any] = np.max(np.abs(exported - expected) / np.maximum(np.abs(expected), least), axis=1)
        return relative

    def compare(rows: pd.DataFrame) -> Answers:
        fitted_answers, exported_answers = answers(rows)
        return Answers(fitted_answers, exported_answers, difference(fitted_answers, exported_answers) <= tolerance)

    relative = difference(expected, exported)
    beyond = np.flatnonzero(~(relative <= tolerance))
    beyond = beyond[np.argsort(-relative[beyond], kind="stable")]
    return Parity(
        rows=len(relative),
        tolerance=tolerance,
        largest_relative_difference=float(relative.max()),
        rows_beyond_tolerance=len(beyond),
        cause=find_cause(compare, training, holdout, beyond, schema, keys) if len(beyond) else "",
    )


def require_parity(parity: Parity) -> None:
    """Raise CheckFailed if the graph and the estimator disagree on any row."""
    if parity.rows_beyond_tolerance:
        raise CheckFailed(
            f"The exported graph and the fitted model differ on {parity.rows_beyond_tolerance:,} of {parity.rows:,} "
            f"rows by more than train.parity_tolerance ({parity.tolerance:g}), at worst by "
            f"{parity.largest_relative_difference:.2g}{parity.cause and f'; {parity.cause}'}; "
            "docs/export.md lists what is exported exactly."
        )


def predict(fitted: Any, frame: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    """Return the prediction of the fitted model, shape [rows, 1] or [rows, classes]."""
    answer = fitted.predict_proba(frame) if schema.classes else fitted.predict(frame)
    return np.asarray(answer, dtype=np.float64).reshape(len(frame), -1)


def _export(fitted: Any, schema: Schema) -> onnx.ModelProto:
    """Convert the model exactly. If one of its steps cannot be converted exactly, convert it as a whole by skl2onnx."""
    try:
        return convert(fitted, schema, OUTPUT)
    except NotConvertible as reason:
        if schema.arrays:  # skl2onnx would read them as single numbers
            raise _not_exported(str(reason)) from reason
        return _with_one_output(_convert_sklearn(fitted, schema, str(reason)))


def _convert_sklearn(fitted: Any, schema: Schema, reason: str) -> onnx.ModelProto:
    inputs = []
    if schema.numbers:
        inputs.append(("numbers", FloatTensorType([None, len(schema.numbers)])))
    if schema.categories:
        inputs.append(("categories", StringTensorType([None, len(schema.categories)])))
    positions = {name: index for index, name in enumerate(schema.numbers + schema.categories)}
    options = {"zipmap": False} if is_classifier(fitted) else None
    try:
        model = convert_sklearn(
            _by_position(fitted, positions),
            name="model",  # the default is random, and would change the bundle's hash
            initial_types=inputs,
            options=options,
        )
        _require_no_locale(model)
    except Exception as error:  # the converters of skl2onnx raise exceptions of any type
        raise _not_exported(reason) from error
    return model


def _not_exported(reason: str) -> InputError:
    return InputError(
        f"src/model/train.py: this model cannot be exported ({reason.rstrip('.')}); use steps that docs/export.md "
        "lists, or give the fitted model a method `to_onnx`."
    )


def _require_no_locale(model: onnx.ModelProto) -> None:
    """Raise NotConvertible if the graph changes the case of texts by an operator that the image cannot run."""
    if any(node.op_type == "StringNormalizer" for node in model.graph.node):
        raise NotConvertible("a text vectorizer whose ONNX operator needs a locale of the operating system")


def _by_position(fitted: Any, positions: dict[str, int]) -> Any:
    """Return a copy of the estimator whose column transformers select columns by position.

    The graph has two packed input tensors, because one tensor for each column is several times slower. The columns of a
    packed tensor have no names.
    """
    fitted = copy.deepcopy(fitted)
    steps = [step for _, step in getattr(fitted, "steps", [("", fitted)])]
    for step in steps:
        if isinstance(step, ColumnTransformer):
            step.transformers_ = [
                (name, transformer, [positions.get(column, column) for column in columns])
                for name, transformer, columns in step.transformers_
            ]
    return fitted


def _with_one_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep only the last output and name it `prediction`. A classifier's last output is its probabilities."""
    graph = model.graph
    last = graph.output[-1].name
    for node in graph.node:
        node.input[:] = [OUTPUT if name == last else name for name in node.input]
        node.output[:] = [OUTPUT if name == last else name for name in node.output]
    output = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, None)
    del graph.output[:]
    graph.output.append(output)
    _drop_unused(graph)
    return model


def _without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove comments from the graph. PyTorch writes paths of the checkout into them, which would change the hash."""
    parts: list[Any] = [model]
    while parts:
        part = parts.pop()
        for field, value in part.ListFields():
            if field.name in ("doc_string", "metadata_props"):
                part.ClearField(field.name)
            elif field.message_type and not isinstance(part, onnx.TensorProto):
                parts.extend([value] if hasattr(value, "ListFields") else value)
    return model


def _in_one_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Sort the operator sets, because skl2onnx writes them in an order that differs from run to run."""
    ordered = sorted(model.opset_import, key=lambda each: each.domain)
    del model.opset_import[:]
    model.opset_import.extend(ordered)
    return model


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that the output does not depend on."""
    needed, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))

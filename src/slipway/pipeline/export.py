"""Export a fitted estimator with its preprocessing to an ONNX graph, and compare the predictions of both."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
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
from sklearn.pipeline import Pipeline

from slipway.artifacts import Parity
from slipway.bundle import SIGNALS, Schema, onnx_session
from slipway.contract import Classifier, Regressor
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.convert import convert, convert_steps
from slipway.pipeline.disagreement import Answers, Keys, find_cause
from slipway.pipeline.tensors import tensors
from slipway.pipeline.trees import NotConvertible, NotExportable

OUTPUT = "prediction"
MAX_SIGNALS = 8
"""Maximum number of signals. This limits the number of time series in /metrics."""
STEP_ROWS = 2_000
"""Maximum number of rows on which the outputs of single steps are compared."""


def to_onnx(fitted: Regressor | Classifier, schema: Schema) -> onnx.ModelProto:
    """Export the fitted model with the inputs of `schema` and one output, `prediction`.

    Raises InputError if the model cannot be exported.
    """
    own = getattr(fitted, "to_onnx", None)
    if own is None:
        return _in_one_order(_export(fitted, schema))
    return _in_one_order(_without_metadata(_with_one_output(_own_graph(own, schema))))


def _own_graph(own: Callable[..., Any], schema: Schema) -> onnx.ModelProto:
    """Call `to_onnx` of the fitted model. Raises InputError if it fails, or does not return a graph."""
    try:
        takes_export = bool(inspect.signature(own).parameters)
        model = own(lambda estimator: _export(estimator, schema)) if takes_export else own()
    except InputError:
        raise
    except Exception as error:  # the fork's own code may raise any exception, whose message may quote a row
        raise InputError(
            f"src/model/train.py: `to_onnx` of the fitted model failed ({type(error).__name__}); correct it "
            "(`slipway --debug train` shows where it fails)."
        ) from error
    if not isinstance(model, onnx.ModelProto):
        raise InputError(
            f"src/model/train.py: `to_onnx` of the fitted model returns the type {type(model).__name__}; return an "
            "onnx.ModelProto, such as the attribute `model_proto` of what torch.onnx.export returns."
        )
    return model


def check_parity(
    fitted: Regressor | Classifier,
    model: onnx.ModelProto,
    training: Iterable[pd.DataFrame],
    schema: Schema,
    tolerance: float,
    holdout: Iterable[pd.DataFrame] = (),
    keys: Keys | None = None,
) -> Parity:
    """Compare the predictions of graph and estimator on every row.

    A difference is relative to the estimator's prediction. If this prediction is near zero, the difference is relative
    to one percent of the mean absolute prediction instead.

    `training` and `holdout` yield the rows in parts. Both are read twice if predictions differ. `keys` returns the keys
    of given rows. A message about a difference quotes these keys.
    """
    run = _runner(model, schema)

    def answers(rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[Any]]:
        expected = _predict_checked(fitted, rows, schema)
        exported = run(rows)
        if exported.size != expected.size:
            raise InputError(
                f"src/model/train.py: the exported graph gives {exported.size} numbers for {len(rows)} rows, and the "
                f"fitted model {expected.size}; correct `to_onnx`, or use steps that docs/export.md lists."
            )
        return expected, exported.reshape(expected.shape)

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
    cause = ""
    if len(beyond):
        cause = find_cause(compare, training, holdout, beyond, schema, keys)
        if step := _first_differing_step(fitted, schema, training, tolerance):
            cause = f"{cause}; the first step whose output differs is {step}"
    return Parity(
        rows=len(relative),
        tolerance=tolerance,
        largest_relative_difference=float(relative.max()),
        rows_beyond_tolerance=len(beyond),
        cause=cause,
    )


def check_signals(model: onnx.ModelProto, schema: Schema, rows: pd.DataFrame) -> None:
    """Raise InputError if the graph has an output `signals` that is not float32 of shape [rows, signals]."""
    if all(output.name != SIGNALS for output in model.graph.output):
        return
    signals = _runner(model, schema, SIGNALS)(rows)
    is_table = signals.ndim == 2 and len(signals) == len(rows) and 1 <= signals.shape[1] <= MAX_SIGNALS
    if not is_table or signals.dtype != np.float32:
        raise InputError(
            f"src/model/train.py: the output `{SIGNALS}` of the graph is {signals.dtype} of the shape "
            f"{[*signals.shape]} for {len(rows)} rows; return float32 numbers of the shape [rows, 1 to {MAX_SIGNALS}]."
        )


def _runner(model: onnx.ModelProto, schema: Schema, output: str = OUTPUT) -> Callable[[pd.DataFrame], NDArray[Any]]:
    """Return a function that computes one output of a graph. It raises InputError if onnxruntime cannot run the graph.

    The message contains the error of onnxruntime, but no details that possibly quote a value of an unpublished column.
    """

    def failed(error: Exception) -> InputError:
        words = str(error).splitlines()[0]
        if schema.unpublished:
            words = words.partition(" Status Message:")[0]
        return InputError(
            f"src/model/train.py: onnxruntime cannot run the exported graph ({words}); use steps "
            "that docs/export.md lists, or correct the method `to_onnx` of the fitted model."
        )

    try:
        session = onnx_session(model.SerializeToString())
    except Exception as error:  # onnxruntime has no common class for its errors
        raise failed(error) from error

    def run(rows: pd.DataFrame) -> NDArray[Any]:
        inputs = tensors(rows, schema)
        try:
            return np.asarray(session.run([output], inputs)[0])
        except Exception as error:
            raise failed(error) from error

    return run


def _predict_checked(fitted: Any, rows: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    try:
        return predict(fitted, rows, schema)
    except Exception as error:  # an estimator may raise any exception, whose message may quote a value of a row
        raise InputError(
            "src/model/train.py: the fitted model cannot predict a row of training or holdout "
            f"({type(error).__name__}); set `handle_unknown` of encoders (`slipway --debug train` shows where)."
        ) from error


def _first_differing_step(fitted: Any, schema: Schema, training: Iterable[pd.DataFrame], tolerance: float) -> str:
    """Return the name of the first pipeline step whose output differs from the graph's, or "" if no output differs.

    If this step is a ColumnTransformer, the name of the differing step inside it is added. Only the first part of the
    training rows is used.
    """
    if not isinstance(fitted, Pipeline):
        return ""
    rows = next(iter(training)).head(STEP_ROWS)
    expected: Any = rows
    for end, (name, step) in enumerate(fitted.steps[:-1], start=1):
        try:
            if step not in (None, "passthrough"):
                expected = step.transform(expected)
            exported = _runner(convert_steps(fitted.steps[:end], schema, OUTPUT), schema)(rows)
            dense = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected, np.float64)
        except (NotConvertible, InputError, ValueError):  # the outputs cannot be compared, such as texts
            continue
        if dense.shape != exported.shape:
            return f"`{name}`"
        equal = np.isclose(exported, dense, rtol=tolerance, atol=tolerance, equal_nan=True).all(axis=0)
        if not equal.all():
            at = int(np.argmin(equal))
            inside = getattr(step, "output_indices_", {})
            part = next((each for each, place in inside.items() if place.start <= at < place.stop), None)
            return f"`{part}` in `{name}`" if part else f"`{name}`"
    return ""


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
    """Return the predictions of the fitted model, with the shape [rows, 1] or [rows, classes]."""
    given = frame.copy(deep=False)  # `predict` may change its argument, and the graph must get the same rows
    answer = fitted.predict_proba(given) if schema.classes else fitted.predict(given)
    return np.asarray(answer, dtype=np.float64).reshape(len(frame), -1)


def _export(fitted: Any, schema: Schema) -> onnx.ModelProto:
    """Convert the model exactly. If a step cannot be converted exactly, let skl2onnx convert the whole model."""
    try:
        return convert(fitted, schema, OUTPUT)
    except NotConvertible as reason:
        # skl2onnx would read arrays as single numbers.
        if schema.arrays or isinstance(reason, NotExportable):
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
            name="model",  # the default name is random, and would change the bundle's hash
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
    """Raise NotConvertible if the graph uses StringNormalizer, because the image lacks the locale that it needs."""
    if any(node.op_type == "StringNormalizer" for node in model.graph.node):
        raise NotConvertible("a text vectorizer whose ONNX operator needs a locale of the operating system")


def _by_position(fitted: Any, positions: dict[str, int]) -> Any:
    """Return a copy of the estimator whose column transformers select columns by position.

    Column names cannot be used, because the graph has two input tensors for all columns, and columns of tensors have no
    names. A graph with one tensor for each column would be several times slower.
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
    """Keep only the last output and name it `prediction`. A classifier's last output is its probabilities.

    An output `signals` is kept, too.
    """
    graph = model.graph
    signals = [output for output in graph.output if output.name == SIGNALS]
    others = [output.name for output in graph.output if output.name != SIGNALS]
    if not others:
        raise InputError(
            f"src/model/train.py: `to_onnx` returns a graph with the only output `{SIGNALS}`; add the predictions."
        )
    last = others[-1]
    # If `to_onnx` extends an exported graph, an inner tensor already has the name `prediction`.
    swapped = {last: OUTPUT, OUTPUT: last}
    for node in graph.node:
        node.input[:] = [swapped.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]
    output = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, None)
    del graph.output[:]
    graph.output.extend([output, *signals])
    _drop_unused(graph)
    return model


def _without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove comments from the graph.

    PyTorch writes local paths into comments. These paths would change the bundle's hash.
    """
    for part in parts_of(model):
        for field, _ in part.ListFields():
            if field.name in ("doc_string", "metadata_props"):
                part.ClearField(field.name)
    return model


def parts_of(part: Any) -> Iterator[Any]:
    """Yield a part of a graph, and all parts in it: nodes, attributes, constants and inner graphs."""
    yield part
    for field, value in part.ListFields():
        if field.message_type:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from parts_of(each)


def _in_one_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Sort the operator sets, because skl2onnx writes them in a different order in each run.

    A graph that was merged from two graphs has each operator set twice.
    """
    versions = sorted({(each.domain, each.version) for each in model.opset_import})
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions)
    return model


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output depends on."""
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))

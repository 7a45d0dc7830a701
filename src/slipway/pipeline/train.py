"""train: fit and export a model, build/split → build/bundle, build/parity.json."""

import base64
import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from slipway import artifacts, atomic, bundle
from slipway.artifacts import Parity, listed
from slipway.bundle import FeatureReference, Golden, Reference, Schema
from slipway.config import Params, Task, Train
from slipway.contract import Classifier, Model, Regressor, examples_of, hides_values, is_private, texts_of
from slipway.errors import CheckFailed, InputError
from slipway.pipeline import export
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.disagreement import Keys
from slipway.pipeline.measure import measure_of
from slipway.pipeline.parquet import read_table
from slipway.pipeline.published import (
    example_rows,
    least_rows,
    publishable,
    refuse_arrays_in_graph,
    refuse_delivered_examples,
    refuse_rare_tokens,
    refuse_texts_in_graph,
    refuse_unique_values,
    with_typical_values,
)
from slipway.pipeline.stored_rows import refuse_stored_rows
from slipway.pipeline.tensors import describe, features, measured, tensors
from slipway.pipeline.threshold import decide
from slipway.pipeline.training_rows import Positions, Rows, row_reader
from slipway.statistics.bins import (
    MAX_VALUES,
    OTHER,
    QUANTILES,
    count_numbers,
    decile_edges,
    finite_numbers,
    within_series,
)

GOLDEN_ROWS = 8
CHECKED_ROWS = 5_000


def run(params: Params, model: Model) -> Parity:
    """Fit the model, export it to ONNX, check parity, and write the bundle.

    Raises CheckFailed, without writing a bundle, if the graph and the fitted model give different predictions.
    """
    classes = classes_of(model, params.task)
    # Errors in params.yaml are reported before the model is fitted.
    measure_of(params.task, model, classes)
    params.gate.slices.check_classes(len(classes or ()))
    schema = describe(model, params.task.kind, classes, params.train.unknown_fields)
    with row_reader(model) as read:
        training, holdout = read(artifacts.TRAINING, schema), read(artifacts.HOLDOUT, schema)
        minimum = params.train.minimum_value_rows
        refuse_unique_values(training, model, minimum)
        least = {column.name: least_rows(column, model, minimum) for column in schema.columns}
        refuse_delivered_examples(model, [training, holdout], schema, least)
        _check_features(training, schema)
        fitted = fit_checked(model, training, params, classes)
        refuse_rare_tokens(fitted, training, schema, minimum)
        graph = export.to_onnx(fitted, schema)
        refuse_texts_in_graph(fitted, graph, training, schema, minimum)
        refuse_arrays_in_graph(graph, training, schema, minimum)
        if params.train.check_determinism and params.train.threads == 1:
            _check_determinism(model, training, params, schema, graph)

        keys = _keys(model, training, holdout)
        parity = export.check_parity(fitted, graph, training, schema, params.train.parity_tolerance, holdout, keys)
        parity.write(artifacts.PARITY)
        export.require_parity(parity)
        export.check_signals(graph, schema, next(iter(training)))
        refuse_stored_rows(graph, training, schema, minimum)

        if classes:
            decision = decide(lambda rows: fit(model, rows, params), training, classes, params.task, model)
            schema = schema.model_copy(update={"decision": decision})

        with atomic.replacing(artifacts.BUNDLE) as fresh:
            _write_bundle(fresh, graph, schema, training, model, params.train, least)
    return parity


def classes_of(model: Model, task: Task) -> tuple[str, ...] | None:
    """Return the sorted classes of the training rows, or None for a regression.

    Raises InputError if the training rows have only one class.
    """
    if task.kind == "regression":
        return None
    classes = tuple(str(label) for label in np.unique(read_table(artifacts.TRAINING, [model.TARGET])))
    if len(classes) < 2:
        raise InputError(f"The training rows have one class of {model.TARGET}; deliver rows of at least two.")
    if task.cost is not None and "decision" in classes:
        raise InputError("A class is named 'decision', like a field of the answers with `task.cost`; rename the class.")
    return classes


def fit_checked(model: Model, rows: Rows, params: Params, classes: tuple[str, ...] | None) -> Regressor | Classifier:
    """Fit the model.

    Raises InputError if `fit` fails, or if the fitted model cannot predict or has different classes.
    """
    fitted = fit(model, rows, params)
    _check_fitted(fitted, classes)
    _check_classes(fitted, classes)
    return fitted


def fit(model: Model, rows: Rows, params: Params) -> Regressor | Classifier:
    """Fit the model on `rows` with the settings in params.yaml. Raises InputError if `fit` of the model fails."""
    first, second = rows.arguments
    try:
        # Several threads add numbers in a varying order. This changes the last bits of the model and its hash.
        with threadpool_limits(params.train.threads):
            return model.fit(first, second, copy.deepcopy(params.train.settings), params.train.seed)
    except Exception as error:  # code of the fork's owner may raise any exception
        detail = f": {error}"
        if hides_values(model):  # the message may quote a value of a training row
            named = [name for name in params.train.settings if f"'{name}'" in str(error)]
            detail = f", about the setting {named[0]!r}" if named else ""
        raise InputError(
            f"src/model/train.py: `fit` failed ({type(error).__name__}{detail}); correct it or `train.settings` in "
            "params.yaml (`slipway --debug train` shows where it fails)."
        ) from error


def _keys(model: Model, training: Rows, holdout: Rows) -> Keys | None:
    """Return a function that returns the keys of rows for messages.

    Texts and private columns are left out, even if they are part of the key.
    """
    named = [name for name in model.KEY if name not in texts_of(model) and not is_private(model, name)]
    if not named:
        return None

    def keys(positions: Positions) -> pd.DataFrame:
        in_holdout = positions >= len(training)
        found = [
            rows.at(chosen, named).set_axis(np.flatnonzero(inside))
            for rows, chosen, inside in (
                (training, positions[~in_holdout], ~in_holdout),
                (holdout, positions[in_holdout] - len(training), in_holdout),
            )
            if len(chosen)
        ]
        return pd.concat(found).sort_index()

    return keys


def _check_features(training: Rows, schema: Schema) -> None:
    missing = {column.name for column in schema.columns}
    for part in training:
        for name in sorted(missing):
            values = pd.Series(measured(part[name])) if name in schema.arrays else part[name]
            if not (values.isna() | (values == "")).all():
                missing.discard(name)
        if not missing:
            return
    first = next(column.name for column in schema.columns if column.name in missing)
    raise InputError(
        f"src/model/features.py: {first} is missing in every training row, so nothing can be learned from it; "
        "remove it from FEATURES, or deliver its values."
    )


def _check_fitted(fitted: Any, classes: tuple[str, ...] | None) -> None:
    method = "predict" if classes is None else "predict_proba"
    if fitted is None:
        raise InputError("src/model/train.py: `fit` returns nothing; return the fitted model.")
    if not hasattr(fitted, method):
        kind = "regression" if classes is None else "classification"
        raise InputError(
            f"src/model/train.py: `fit` returns a {type(fitted).__name__} without `{method}`, which a {kind} needs; "
            f"return an estimator that has it{'' if classes is None else ', such as SVC in a CalibratedClassifierCV'}."
        )


def _check_determinism(model: Model, training: Rows, params: Params, schema: Schema, graph: onnx.ModelProto) -> None:
    """Raise CheckFailed if two calls of `fit` with the same arguments give different models.

    If there are at most `CHECKED_ROWS` rows, the model is fitted once more on all rows. Otherwise, two models are
    fitted on a sample. Nothing is checked if the sample cannot be fitted or exported, for example because it lacks a
    class.
    """
    step = -(-len(training) // CHECKED_ROWS)

    def again() -> bytes:
        sample = training.only(np.arange(len(training)) % step == 0)
        return bytes(export.to_onnx(fit(model, sample, params), schema).SerializeToString(deterministic=True))

    try:
        first = graph.SerializeToString(deterministic=True) if step == 1 else again()
        second = again()
    except Exception:  # code of the fork's owner may raise any exception
        return
    if first != second:
        raise CheckFailed(
            "src/model/train.py: `fit` gives another model when it is called again with the same arguments; "
            "pass `seed` to each random step, or set `train.check_determinism: false` in params.yaml."
        )


def _check_classes(fitted: Any, classes: tuple[str, ...] | None) -> None:
    if classes is None:
        return
    found = tuple(str(label) for label in getattr(fitted, "classes_", ()))
    if found != classes:
        raise InputError(
            f"src/model/train.py: the fitted classifier has the {len(found)} classes {listed(found)}, the training "
            f"rows have the {len(classes)} classes {listed(classes)}; "
            "`fit` must return a classifier with `classes_` in sorted order, fitted on all of them."
        )


def _write_bundle(
    folder: Path,
    graph: onnx.ModelProto,
    schema: Schema,
    training: Rows,
    model: Model,
    rules: Train,
    least: Mapping[str, int],
) -> None:
    folder.mkdir()
    (folder / bundle.MODEL).write_bytes(graph.SerializeToString(deterministic=True))
    (folder / bundle.SCHEMA).write_bytes(schema.content())
    ids = training.column(ROW_ID).to_numpy()
    np.save(folder / bundle.TRAINING_ROWS, np.sort(ids), allow_pickle=False)
    written = bundle.load_bundle(folder)
    predictions, signals = _predict(written, training, schema)
    reference = _reference(training, predictions, signals, schema, least)
    counted = within_series(reference, rules.max_metric_series)
    (folder / bundle.REFERENCE).write_text(counted.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if examples := examples_of(model):
        rows = example_rows(examples, model)
        golden = _golden(rows, written.predict(tensors(features(rows, schema), schema)), schema)
    else:
        # Ids are hashes, so the rows with the smallest ids are a random sample.
        public = np.flatnonzero(np.concatenate([publishable(part, schema, reference, least) for part in training]))
        chosen = public[np.argsort(ids[public])[:GOLDEN_ROWS]]
        names = [column.name for column in schema.columns]
        rows, answers = training.at(chosen, names), predictions[chosen]
        private = [name for name in names if is_private(model, name)]
        if private and len(rows):
            rows = with_typical_values(rows, private)
            answers = written.predict(tensors(features(rows, schema), schema))
        golden = _golden(rows, answers, schema)
    if not golden.rows:
        raise InputError(
            f"Every training row has a category that fewer than {rules.minimum_value_rows} rows have, so the public "
            f"{bundle.GOLDEN} would be empty; add EXAMPLES to src/model, as src/slipway/contract.py describes."
        )
    (folder / bundle.GOLDEN).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _predict(
    written: bundle.Bundle, training: Rows, schema: Schema
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Return the predictions for the training rows, and the values of each signal of the graph."""
    parts = [written.predict_with_signals(tensors(part, schema)) for part in training]
    predictions = np.concatenate([each for each, _ in parts])
    return predictions, {name: np.concatenate([each[name] for _, each in parts]) for name in parts[0][1]}


def _reference(
    training: Rows,
    predictions: NDArray[np.float32],
    signals: Mapping[str, NDArray[np.float32]],
    schema: Schema,
    least: Mapping[str, int],
) -> Reference:
    outputs = schema.outputs
    return Reference(
        features={
            column.name: _category_counts(_values(training, column.name), least[column.name])
            if column.type == "category"
            else _number_counts(np.concatenate([measured(values) for values in _values(training, column.name)]))
            for column in schema.columns
        }
        | {name: _number_counts(finite_numbers(values)) for name, values in signals.items()},
        prediction={name: _number_counts(predictions[:, index]) for index, name in enumerate(outputs)},
    )


def _values(training: Rows, name: str) -> "Iterator[pd.Series[Any]]":
    return (part[name] for part in training.parts([name]))


def _number_counts(values: NDArray[np.float32]) -> FeatureReference:
    present = values[~np.isnan(values)]
    edges = np.unique(present)
    if len(edges) >= QUANTILES:
        edges = decile_edges(present)
    return FeatureReference(
        edges=tuple(edges.tolist()),
        counts=tuple(count_numbers(present, edges).tolist()),
        missing=len(values) - len(present),
    )


def _category_counts(parts: "Iterable[pd.Series[str]]", least: int) -> FeatureReference:
    """Count the most frequent values. All other values, and values in fewer than `least` rows, are counted together."""
    counts = pd.concat([values.value_counts() for values in parts]).groupby(level=0).sum().sort_index()
    missing = int(counts.get("", 0))
    counts = counts.drop("", errors="ignore")
    named = counts[counts >= least].drop(OTHER, errors="ignore").nlargest(MAX_VALUES).sort_index()
    rows = {str(value): int(count) for value, count in named.items()}
    if len(named) < len(counts):
        rows[OTHER] = int(counts.sum()) - sum(rows.values())
    return FeatureReference(values=tuple(rows), counts=tuple(rows.values()), missing=missing)


def _golden(rows: pd.DataFrame, predictions: NDArray[np.float32], schema: Schema) -> Golden:
    """Return the golden rows: rows as a client sends them, with their predictions."""
    columns = rows[[column.name for column in schema.columns if column.shape is None]]
    records = json.loads(columns.to_json(orient="records", date_format="iso", date_unit="s")) or [
        {} for _ in predictions
    ]
    for name in schema.arrays:
        for record, value in zip(records, rows[name], strict=True):
            if isinstance(value, bytes):
                record[name] = base64.b64encode(value).decode()
            else:
                record[name] = None if value is None else [float(str(number)) for number in value]
    for record in records:
        for column in schema.columns:
            if column.type == "date" and record[column.name] is not None:
                record[column.name] = record[column.name].removesuffix("T00:00:00")
    return Golden(rows=tuple(records), predictions=tuple(tuple(map(float, row)) for row in predictions))

"""train: fit and export a model, build/split → build/bundle, build/parity.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from slipway import artifacts, atomic, bundle
from slipway.artifacts import Parity
from slipway.bundle import FeatureReference, Golden, Reference, Schema
from slipway.config import Params
from slipway.contract import Classifier, Model, Regressor
from slipway.errors import InputError
from slipway.pipeline import export
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.parquet import read_table
from slipway.pipeline.tensors import describe, features, tensors
from slipway.statistics.bins import QUANTILES, count_numbers, decile_edges

GOLDEN_ROWS = 8


def run(params: Params, model: Model) -> Parity:
    """Fit the model, export it to ONNX, check parity, and write the bundle.

    Raises CheckFailed, without writing a bundle, if the predictions of the graph differ from those of the fitted model.
    """
    training, holdout = read_table(artifacts.TRAINING), read_table(artifacts.HOLDOUT)
    classes = None
    if params.task.kind == "classification":
        classes = tuple(str(label) for label in np.unique(training[model.TARGET]))
        if len(classes) < 2:
            raise InputError(f"The training rows have one class of {model.TARGET}; deliver rows of at least two.")
    schema = describe(model, params.task.kind, classes, params.train.unknown_fields)
    frame = features(training, schema)
    # Several threads sum in a varying order, which changes the last bits of the model and therefore its hash.
    _check_features(frame)
    with threadpool_limits(params.train.threads):
        fitted = _fit(model, frame, training[model.TARGET], params)
    _check_fitted(fitted, classes)
    _check_classes(fitted, classes)
    graph = export.to_onnx(fitted, schema)

    everything = pd.concat([frame, features(holdout, schema)], ignore_index=True)
    keys = pd.concat([training, holdout], ignore_index=True)[list(model.KEY)]
    parity = export.check_parity(
        fitted, graph, everything, schema, params.train.parity_tolerance, training_rows=len(frame), keys=keys
    )
    parity.write(artifacts.PARITY)
    export.require_parity(parity)

    with atomic.replacing(artifacts.BUNDLE) as fresh:
        _write_bundle(fresh, graph, schema, training, frame)
    return parity


def _fit(model: Model, frame: pd.DataFrame, target: "pd.Series[Any]", params: Params) -> Regressor | Classifier:
    try:
        return model.fit(frame, target, params.train.settings, params.train.seed)
    except Exception as error:  # code of the fork's owner may raise any exception
        raise InputError(
            f"src/model/train.py: `fit` failed ({type(error).__name__}: {error}); correct it or `train.settings` in "
            "params.yaml (`slipway --debug train` shows where it fails)."
        ) from error


def _check_features(frame: pd.DataFrame) -> None:
    for name in frame:
        if (frame[name].isna() | (frame[name] == "")).all():
            raise InputError(
                f"src/model/features.py: {name} is missing in every training row, so nothing can be learned from it; "
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


def _check_classes(fitted: Any, classes: tuple[str, ...] | None) -> None:
    if classes is None:
        return
    found = tuple(str(label) for label in getattr(fitted, "classes_", ()))
    if found != classes:
        raise InputError(
            f"src/model/train.py: the fitted classifier has the classes {found}, the training rows have {classes}; "
            "`fit` must return a classifier with `classes_` in sorted order, fitted on all of them."
        )


def _write_bundle(
    folder: Path, graph: onnx.ModelProto, schema: Schema, training: pd.DataFrame, frame: pd.DataFrame
) -> None:
    folder.mkdir()
    (folder / bundle.MODEL).write_bytes(graph.SerializeToString(deterministic=True))
    (folder / bundle.SCHEMA).write_bytes(schema.content())
    np.save(folder / bundle.TRAINING_ROWS, np.sort(training[ROW_ID].to_numpy()), allow_pickle=False)
    model = bundle.load_bundle(folder)
    predictions = model.predict(tensors(frame, schema))
    reference = _reference(frame, predictions, schema)
    (folder / bundle.REFERENCE).write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
    golden = _golden(training, predictions, schema)
    (folder / bundle.GOLDEN).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _reference(frame: pd.DataFrame, predictions: NDArray[np.float32], schema: Schema) -> Reference:
    outputs = schema.classes or (schema.target,)
    return Reference(
        features={
            column.name: _category_counts(frame[column.name])
            if column.type == "category"
            else _number_counts(frame[column.name].to_numpy())
            for column in schema.columns
        },
        prediction={name: _number_counts(predictions[:, index]) for index, name in enumerate(outputs)},
    )


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


def _category_counts(values: "pd.Series[str]") -> FeatureReference:
    counts = values[values != ""].value_counts().sort_index()
    return FeatureReference(
        values=tuple(counts.index), counts=tuple(map(int, counts)), missing=int((values == "").sum())
    )


def _golden(training: pd.DataFrame, predictions: NDArray[np.float32], schema: Schema) -> Golden:
    """Choose a random sample of the training rows. Ids are hashes, so the rows with the smallest ids are random."""
    chosen = np.argsort(training[ROW_ID].to_numpy())[:GOLDEN_ROWS]
    rows = training.iloc[chosen][[column.name for column in schema.columns]]
    records = json.loads(rows.to_json(orient="records", date_format="iso", date_unit="s"))
    for record in records:
        for column in schema.columns:
            if column.type == "date" and record[column.name] is not None:
                record[column.name] = record[column.name].removesuffix("T00:00:00")
    return Golden(
        rows=tuple(records),
        predictions=tuple(tuple(map(float, row)) for row in predictions[chosen]),
    )

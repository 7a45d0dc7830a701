"""The model in src/model keeps its contract, from the fit to the predictions of the server."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from slipway import artifacts
from slipway.artifacts import Release
from slipway.bundle import GOLDEN, REFERENCE, Golden, Reference, Schema, folder_hash
from slipway.config import load_params
from slipway.contract import Model, check_contract
from slipway.pipeline import evaluate, export, gate, train
from slipway.pipeline.parquet import read_table, write_table
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.training_rows import row_reader
from slipway.provenance import Provenance
from slipway.serving.asgi import Application
from slipway.serving.routes import make_app
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.model.conftest import ROOT, Trained, shuffled

UNSEEN = "a value that no training row has"
REQUESTED = 40
PATHS = ("/predict", "/invocations", "/v2/models/model/infer")


@pytest.fixture(scope="session")
def fitted(trained: Trained) -> Any:
    """The estimator that the bundle was exported from."""
    with contextlib.chdir(trained.path), row_reader(trained.model) as read:
        return train.fit(trained.model, read(artifacts.TRAINING, trained.bundle.schema), trained.params)


@pytest.fixture(scope="session")
def application(trained: Trained) -> Application:
    """The server with the bundle, without a socket."""
    live = ServedModel(trained.bundle.path, "model", 1_000)
    application = Application(live, Settings(), make_app(live, Provenance(bundle=live.hash)))
    application.ready = True
    return application


def answers(trained: Trained, rows: pd.DataFrame) -> NDArray[np.float32]:
    """Return the predictions of the bundle, an array of shape [rows, 1] or [rows, classes]."""
    return trained.bundle.predict(tensors(features(rows, trained.bundle.schema), trained.bundle.schema))


def records(schema: Schema, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a client sends them."""
    wanted = rows[[column.name for column in schema.columns]].copy()
    for column in schema.columns:
        if column.type == "date":
            wanted[column.name] = wanted[column.name].dt.strftime("%Y-%m-%d")
        elif column.type == "vector":
            wanted[column.name] = wanted[column.name].map(lambda vector: vector.tolist(), na_action="ignore")
        elif column.type == "image":
            wanted[column.name] = wanted[column.name].map(lambda content: base64.b64encode(content).decode())
    found: list[dict[str, Any]] = json.loads(wanted.to_json(orient="records", double_precision=15))
    return found


def post(application: Application, path: str, body: Any) -> Any:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(path, json=body)

    response = asyncio.run(send())
    assert response.status_code == 200, response.text
    return response.json()


def test_the_model_keeps_the_contract(model: Model) -> None:
    check_contract(model)


def test_every_floor_names_a_metric_of_the_task(trained: Trained, workplace: Path) -> None:
    """The gate fails on a floor with an unknown name."""
    release(None)
    metrics = evaluate.run(trained.params, trained.model).challenger.metrics
    assert workplace.is_dir()
    assert set(load_params(ROOT / artifacts.PARAMS).gate.floors) <= set(metrics)


def test_a_second_fit_gives_the_same_bytes(trained: Trained, workplace: Path) -> None:
    train.run(trained.params, trained.model)
    assert folder_hash(workplace / artifacts.BUNDLE) == trained.bundle.hash


@pytest.mark.usefixtures("workplace")
def test_another_process_gives_the_same_bytes() -> None:
    """Sets and dicts of another process can have another order.

    The process of pytest is not compared, because it may use other code of the processor than `slipway train`.
    """
    hashes = set()
    for seed in ("1", "2"):
        shutil.rmtree(artifacts.BUNDLE)
        paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-m", "slipway", "train"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        hashes.add(folder_hash(artifacts.BUNDLE))
    assert len(hashes) == 1


def test_the_exported_graph_predicts_the_same_as_the_fitted_model(trained: Trained) -> None:
    assert trained.parity.rows == len(trained.training) + len(trained.holdout)
    assert trained.parity.rows_beyond_tolerance == 0


def test_the_predictions_have_the_shape_of_the_task(trained: Trained) -> None:
    found, classes = answers(trained, trained.holdout), trained.bundle.schema.classes
    assert found.shape == (len(trained.holdout), len(classes) if classes else 1)
    assert np.isfinite(found).all()
    if classes:
        assert np.allclose(found.sum(axis=1), 1, atol=1e-3)


def test_the_bundle_predicts_the_same_as_the_fitted_model_for_unseen_categories(trained: Trained, fitted: Any) -> None:
    schema = trained.bundle.schema
    rows = trained.holdout.assign(**dict.fromkeys(schema.categories, UNSEEN))
    agree(trained, fitted, rows)


def test_the_bundle_predicts_the_same_as_the_fitted_model_for_missing_values(trained: Trained, fitted: Any) -> None:
    """Each optional column is missing in one row, and all optional columns are missing in the last row."""
    optional = [column.name for column in trained.bundle.schema.columns if not column.required]
    rows = trained.holdout.head(len(optional) + 1).copy()
    for number, name in enumerate(optional):
        rows.iloc[[number, len(rows) - 1], rows.columns.get_loc(name)] = None
    agree(trained, fitted, rows)


def agree(trained: Trained, fitted: Any, rows: pd.DataFrame) -> None:
    frame = features(rows, trained.bundle.schema)
    found, tolerance = answers(trained, rows), trained.params.train.parity_tolerance
    assert np.isfinite(found).all()
    expected = export.predict(fitted, frame, trained.bundle.schema)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).mean())


@pytest.mark.parametrize("path", PATHS)
def test_the_server_predicts_the_same_as_the_bundle(trained: Trained, application: Application, path: str) -> None:
    rows = trained.holdout.head(REQUESTED)
    answered = ask(lambda body: post(application, path, body), path, trained.bundle.schema, rows)
    np.testing.assert_allclose(answered, answers(trained, rows), rtol=1e-6, atol=1e-6)


def ask(post: Callable[[Any], Any], path: str, schema: Schema, rows: pd.DataFrame) -> Any:
    """Send rows to a path of the server with `post`. Return the predictions, a list for each row."""
    sent = records(schema, rows)
    if path == "/predict":
        return [list(each.get("probabilities", {"": each["prediction"]}).values()) for each in post(sent)]
    if path == "/invocations":
        names = list(sent[0])
        body = {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in sent]}}
        return [list(each.values()) if schema.classes else [each] for each in post(body)["predictions"]]
    output = post({"inputs": [tensor(schema, name, [row[name] for row in sent]) for name in sent[0]]})["outputs"][0]
    return np.reshape(output["data"], output["shape"]).tolist()


def tensor(schema: Schema, name: str, values: list[Any]) -> dict[str, Any]:
    (column,) = [column for column in schema.columns if column.name == name]
    datatype = "BOOL" if column.boolean else "FP32" if column.type in ("number", "vector") else "BYTES"
    shape = [len(values), *(column.shape or ())] if column.type == "vector" else [len(values), 1]
    return {"name": name, "shape": shape, "datatype": datatype, "data": values}


def test_the_server_reproduces_the_golden_rows(trained: Trained, application: Application) -> None:
    golden = Golden.model_validate_json((trained.bundle.path / GOLDEN).read_bytes())
    assert golden.rows
    answered = post(application, "/predict", list(golden.rows))
    found = [list(each.get("probabilities", {"": each["prediction"]}).values()) for each in answered]
    np.testing.assert_allclose(found, golden.predictions, rtol=1e-4, atol=1e-4)


def test_the_drift_reference_counts_every_training_row(trained: Trained) -> None:
    """Only the first of many features and classes are counted, up to `train.max_metric_series`."""
    reference = Reference.model_validate_json((trained.bundle.path / REFERENCE).read_bytes())
    schema, rows = trained.bundle.schema, len(trained.training)
    names = [column.name for column in schema.columns]
    assert [*reference.features] == names[: max(len(reference.features), min(len(names), 10))]
    outputs = [*(schema.classes or (schema.target,))]
    assert [*reference.prediction] == outputs[: max(len(reference.prediction), min(len(outputs), 2))]
    for name, feature in (reference.features | reference.prediction).items():
        assert sum(feature.counts) + feature.missing == rows, name


def test_the_bundle_lists_every_training_row(trained: Trained) -> None:
    assert trained.bundle.training_rows().tolist() == sorted(trained.training["row_id"])
    assert not set(trained.bundle.training_rows()) & set(trained.holdout["row_id"])


def test_the_gate_holds_a_model_that_was_trained_on_shuffled_targets(trained: Trained, workplace: Path) -> None:
    shutil.copytree(artifacts.BUNDLE, artifacts.CHAMPION)
    release(trained.bundle.hash)
    rows = read_table(artifacts.TRAINING)
    write_table(artifacts.TRAINING, rows.assign(**{trained.model.TARGET: shuffled(rows[trained.model.TARGET])}))
    train.run(trained.params, trained.model)
    evaluation = evaluate.run(trained.params, trained.model)
    assert evaluation.challenger.bundle != trained.bundle.hash
    assert gate.run(trained.params).verdict == "hold"
    assert workplace.joinpath(artifacts.VERDICT).is_file()


def release(champion: str | None) -> None:
    Release(champion=champion).write(artifacts.RELEASE)

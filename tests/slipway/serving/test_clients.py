"""The clients of MLflow and of Triton (Open Inference Protocol), with every row of the holdout."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pandas as pd
import pytest
from mlflow.deployments import PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from slipway import artifacts
from slipway.bundle import load_bundle
from tests.slipway.conftest import Repository
from tests.slipway.serving.conftest import Serve, Server


@pytest.fixture(scope="module")
def delivered_server(serve: Serve, delivered: Repository) -> Iterator[Server]:
    """Serve the challenger of the pipeline."""
    with serve(delivered.path / artifacts.BUNDLE) as server:
        yield server


@pytest.fixture(scope="module")
def holdout(delivered: Repository) -> pd.DataFrame:
    """Read the rows of the holdout, and in `score` the predictions that `evaluate` recorded."""
    rows = pd.read_parquet(delivered.path / artifacts.HOLDOUT)
    scores = pd.read_parquet(delivered.path / artifacts.SCORES)
    scored = rows.merge(scores[["row_id", "challenger_0"]], on="row_id", validate="one_to_one")
    assert len(scored) == len(scores) > 500
    names = [column.name for column in load_bundle(delivered.path / artifacts.BUNDLE).schema.columns]
    return scored[names].assign(score=scored["challenger_0"])


def as_records(rows: pd.DataFrame) -> list[dict[str, object]]:
    records = rows.drop(columns="score").assign(sale_date=rows["sale_date"].dt.strftime("%Y-%m-%d"))
    return list(records.to_dict("records"))


def test_predict_gives_the_scores_of_the_evaluation(delivered_server: Server, holdout: pd.DataFrame) -> None:
    records = as_records(holdout)
    with httpx.Client(base_url=delivered_server.url) as client:
        single = [client.post("/predict", json=record).json()["prediction"] for record in records]
        batch = [each["prediction"] for each in client.post("/predict", json=records).json()]
    assert single == holdout["score"].tolist()
    assert batch == holdout["score"].tolist()


def mlflow_client(server: Server) -> ScoringServerClient:
    address = urlsplit(server.url)
    return ScoringServerClient(address.hostname, address.port)


def test_mlflow_gets_the_scores_of_the_evaluation(delivered_server: Server, holdout: pd.DataFrame) -> None:
    client = mlflow_client(delivered_server)
    client.wait_server_ready(timeout=5)
    assert "provenance" in client.get_version()
    answer = client.invoke(holdout.drop(columns="score"))  # a data frame, its dates as pandas has them
    assert isinstance(answer, PredictionsResponse)
    assert answer.get_predictions()[0].tolist() == holdout["score"].tolist()
    records = as_records(holdout)
    columns = {name: [record[name] for record in records] for name in records[0]}
    for payload in ({"dataframe_records": records}, {"instances": records}, {"inputs": columns}):
        plain = httpx.post(f"{delivered_server.url}/invocations", json=payload)
        assert plain.json() == {"predictions": holdout["score"].tolist()}


def test_mlflow_gets_the_reason_of_a_refusal(delivered_server: Server, holdout: pd.DataFrame) -> None:
    with pytest.raises(Exception, match=r"422.*#/dataframe_split/data/0/\d+.*less than or equal to 2030") as error:
        mlflow_client(delivered_server).invoke(holdout.drop(columns="score").assign(year_built=3000.0))
    assert not isinstance(error.value, MlflowException)


TRITON = """
import json, sys
import numpy as np
import pandas as pd
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

address, rows = sys.argv[1], pd.read_json(sys.stdin, orient="split", dtype=False, convert_dates=False)
client = InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("model")
assert client.get_server_metadata()["name"] == "slipway"
metadata = client.get_model_metadata("model")
def infer(**binary):
    inputs = []
    for each in metadata["inputs"]:
        values = rows[each["name"]].to_numpy(object if each["datatype"] == "BYTES" else np.float32).reshape(-1, 1)
        inputs.append(InferInput(each["name"], list(values.shape), each["datatype"]))
        inputs[-1].set_data_from_numpy(values, **binary)
    outputs = [InferRequestedOutput(metadata["outputs"][0]["name"], **binary)]
    return inputs, outputs, client.infer("model", inputs, outputs=outputs, request_id="7")

found = []
for binary in ({"binary_data": False}, {}):  # the client sends binary tensors by default
    inputs, outputs, answer = infer(**binary)
    assert answer.get_response()["id"] == "7"
    assert answer.get_response()["model_version"] == metadata["versions"][0]
    found.append(answer.as_numpy("prediction").ravel().tolist())
assert found[0] == found[1]
assert client.infer("model", inputs).as_numpy("prediction").ravel().tolist() == found[0]  # without named outputs
print(json.dumps(found[0]))
try:
    inputs[1].set_data_from_numpy(np.zeros((len(rows), 1), np.float32) - 1)
    client.infer("model", inputs, outputs=outputs)
except Exception as error:
    print(error)
"""


def test_triton_gets_the_scores_of_the_evaluation(delivered_server: Server, holdout: pd.DataFrame) -> None:
    """Run the client in a process of its own, because it has another event loop."""
    rows = pd.DataFrame(as_records(holdout)).to_json(orient="split", double_precision=15)
    address = urlsplit(delivered_server.url).netloc
    done = subprocess.run(
        [sys.executable, "-c", TRITON, address], input=rows, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    scores, refusal = done.stdout.splitlines()
    assert json.loads(scores) == holdout["score"].tolist()
    assert "100 faults" in refusal

"""The OpenAPI document is exact: what it allows is answered, what it does not allow is refused, as it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from slipway.bundle import SCHEMA
from slipway.serving.served_model import LiveModel
from tests.slipway.conftest import edit
from tests.slipway.serving.conftest import Serve, Server
from tests.slipway.serving.odd import ROW


def schemathesis(server: Server, folder: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--checks",
        "all",
        "--max-examples",
        "40",
        "--no-color",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def answers(server: Server) -> set[str]:
    """Which of the predicting routes have answered with predictions."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return {
        line.split('"')[1] for line in lines if line.startswith("slipway_requests_total") and 'status="200"' in line
    }


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    schemathesis(server, tmp_path)
    assert {"/predict", "/invocations", "/v2/infer"} <= answers(server)


def test_schemathesis_finds_nothing_where_columns_may_be_missing(
    serve: Serve, odd_bundle: Path, tmp_path: Path
) -> None:
    # Without bounds the sum of this model overflows, and the document cannot know.
    shutil.copytree(odd_bundle, tmp_path / "bundle")
    unbounded = '"name":"rooms","type":"number","required":false,"minimum":null,"maximum":null'
    edit(tmp_path / "bundle" / SCHEMA, unbounded, unbounded.replace("null", "-1000", 1).replace("null", "1000", 1))
    with serve(tmp_path / "bundle") as server:
        schemathesis(server, tmp_path)
        assert {"/predict", "/invocations", "/v2/infer"} <= answers(server)


def test_it_holds_the_models_own_columns_and_a_real_example(server: Server, champion: LiveModel) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    record = document["components"]["schemas"]["Record"]
    assert list(record["properties"]) == [column.name for column in champion.schema.columns]
    assert record["examples"] == [dict(champion.golden.rows[0])]
    assert record["properties"]["year_built"]["maximum"] == 2030
    assert "one+half" in record["properties"]["stories"]["enum"]
    assert record["additionalProperties"] is False
    for path in ("/predict", "/invocations", "/v2/models/model/infer"):
        for example in document["paths"][path]["post"]["requestBody"]["content"]["application/json"][
            "examples"
        ].values():
            assert httpx.post(f"{server.url}{path}", json=example["value"]).status_code == 200


def test_optional_columns_are_optional(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle) as server:
        record = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]["Record"]
    assert set(ROW) - set(record["required"]) == {"kind", "rooms", "sold on"}

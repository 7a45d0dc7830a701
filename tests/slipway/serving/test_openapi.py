"""The OpenAPI document is exact: the server accepts and rejects the same requests."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from slipway.bundle import SCHEMA, Schema
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import Repository
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


def expressible(bundle: Path, copy: Path) -> Path:
    """Copy a bundle, and remove what JSON Schema cannot express: ranges of dates, and sums beyond single precision."""
    shutil.copytree(bundle, copy)
    schema = Schema.model_validate_json((copy / SCHEMA).read_bytes())
    columns = [
        column.model_copy(update={"minimum": None, "maximum": None})
        if column.type == "date"
        else column.model_copy(update={"minimum": -1000.0, "maximum": 1000.0})
        if column.type == "number" and column.minimum is None
        else column
        for column in schema.columns
    ]
    (copy / SCHEMA).write_text(schema.model_copy(update={"columns": tuple(columns)}).model_dump_json())
    return copy


def answers(server: Server) -> set[str]:
    """Return the prediction routes that have answered with 200."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return {
        line.split('"')[1] for line in lines if line.startswith("slipway_requests_total") and 'status="200"' in line
    }


@pytest.mark.parametrize("name", ["champion", "odd", "lenient"])
def test_the_document_accepts_and_rejects_the_same_requests_as_the_server(
    serve: Serve, served: Repository, odd_bundle: Path, lenient_bundle: Path, tmp_path: Path, name: str
) -> None:
    bundle = {"champion": served.path / "champion", "odd": odd_bundle, "lenient": lenient_bundle}[name]
    with serve(expressible(bundle, tmp_path / "bundle")) as server:
        schemathesis(server, tmp_path)
        assert {"/predict", "/invocations", "/v2/infer"} <= answers(server)


def test_the_document_has_the_columns_of_the_model_and_a_golden_row(server: Server, champion: ServedModel) -> None:
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

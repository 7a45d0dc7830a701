"""examples/text, from a clone to the server: a model of texts ships, and no text of a delivery leaves the machine."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

from examples.text.generate import PER_DAY, tickets, write_deliveries
from slipway import artifacts
from slipway.artifacts import PARITY, VERDICT, Parity, Verdict
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.end_to_end.example_fork import (
    Fork,
    found,
    image_files,
    published_files,
    run_example,
)
from tests.slipway.serving.conftest import Serve, Server, odd_bundle, serve, served

__all__ = ["odd_bundle", "serve", "served"]

EXAMPLE = ROOT / "examples/text"
SECRETS = ("hunter2horse", "4929-1234-5678-9012", "Zoë Quark-Fitzgerald", "zoë.quark@example.org", "staple\tbattery")
PUBLIC = {
    "channel": "mail",
    "subject": "Invoice",
    "body": "The invoice of March has the wrong amount. Please correct it.",
}


@pytest.fixture(scope="module")
def fork(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Replace the model by the example, plant secrets in its data, and run the pipeline, the report and the record."""

    def write_data(folder: Path) -> None:
        write_deliveries(folder)
        plant(folder / "2025-1.csv")
        plant(folder / "2025-3.csv")

    return run_example(origin.clone(tmp_path_factory.mktemp("text") / "fork"), EXAMPLE, write_data, "body")


def plant(path: Path) -> None:
    """Write secrets into accepted rows, into rows that are quarantined for each kind of fault, and into a long text."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows[5::150]):
        row["body"] += f" {SECRETS[i % len(SECRETS)]}"
        if i % 3 == 0:
            row["subject"] = SECRETS[(i + 1) % len(SECRETS)]
    rows[2]["channel"] = SECRETS[0]
    rows[3]["body"] += f" {SECRETS[1]} " * 200
    rows[4] |= {"body": "", "subject": SECRETS[2]}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    lines = out.getvalue().splitlines(keepends=True)
    lines[7] = lines[7].rstrip("\n") + f",{SECRETS[3]}\n"  # one value too many
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def server(fork: Fork, serve: Serve) -> Iterator[Server]:
    with serve(fork.repository.path / artifacts.BUNDLE) as server:
        yield server


def test_the_model_of_texts_passes_the_gate(fork: Fork) -> None:
    verdict = Verdict.read(fork.repository.path / VERDICT)
    assert (verdict.verdict, verdict.holdout.rows) == ("first", 30 * PER_DAY)
    assert verdict.challenger_loss < 0.2 * verdict.baseline_loss
    assert Parity.read(fork.repository.path / PARITY).rows_beyond_tolerance == 0
    assert {part.value for part in verdict.slices} <= {"mail", "form", "chat", "under 120", "120 to 140", "140 or more"}


def test_no_secret_is_in_a_file_that_leaves_the_machine(fork: Fork) -> None:
    planted = "".join(path.read_text() for path in sorted((fork.repository.path / "data").glob("*.csv")))
    assert all(secret in planted for secret in SECRETS)
    for name, published in published_files(fork):
        assert not leaked(published), name
    assert not leaked(fork.printed.encode())


def test_the_quarantine_names_row_and_reason_but_no_text(fork: Fork) -> None:
    rows = pd.read_csv(fork.repository.path / artifacts.QUARANTINE, dtype=str)
    first = rows[rows["delivery"] == "2025-1"].set_index("row")
    assert dict(first["reason"]) == {
        "4": "channel is not one of ['mail', 'form', 'chat']",
        "5": "body has more than 2,000 characters",
        "6": "body is missing",
        "8": "has 7 values instead of 6",
    }
    assert first.loc["5", "body"].endswith("characters)")
    assert list(first.loc["6", ["received", "channel", "subject"]]) == ["2025-01-01", "form", "(20 characters)"]
    assert first.loc["4", "channel"] == "(12 characters)"


def test_no_secret_is_in_the_context_of_the_image(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict(image_files(fork, monkeypatch))
    assert {"bundle/model.onnx", "MODEL_CARD.md"} <= files.keys()
    for name, built in files.items():
        assert not leaked(built), name


def test_the_server_shows_no_text_of_a_delivery_or_of_a_request(server: Server) -> None:
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        for secret in SECRETS:
            assert client.post("/predict", json=PUBLIC | {"body": f"My key is {secret}."}).status_code == 200
            refused = client.post("/predict", json=PUBLIC | {"body": secret * 1_000, "channel": secret})
            assert refused.status_code == 422
            assert not leaked(refused.content)
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/version", "/v2", "/v2/models/model"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert not leaked(answer.content), path
        document = client.get("/openapi.json").json()
        metrics = client.get("/metrics").text
    assert document["components"]["schemas"]["Record"]["examples"] == [PUBLIC]
    assert document["components"]["schemas"]["Record"]["properties"]["body"]["maxLength"] == 2_000
    assert f'slipway_feature_count{{feature="body"}} {len(SECRETS):.1f}' in metrics
    assert not leaked(server.log.read_bytes())


def test_a_text_that_is_too_long_is_refused_with_its_limit(server: Server) -> None:
    long = PUBLIC | {"body": "é" * 2_001}
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", json=PUBLIC | {"body": "é" * 2_000}).status_code == 200
        answer = client.post("/predict", json=long)
        empty = client.post("/predict", json=PUBLIC | {"body": ""})
        without = client.post("/predict", json={key: value for key, value in PUBLIC.items() if key != "subject"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"detail": "String should have at most 2000 characters", "pointer": "#/body"}]
    assert empty.status_code == 422
    assert without.status_code == 200


def test_the_generator_gives_the_same_tickets_every_time(tmp_path: Path) -> None:
    assert tickets(1) == tickets(1) != tickets(2)
    for name in ("a", "b"):
        write_deliveries(tmp_path / name, deliveries=1)
    assert (tmp_path / "a/2025-1.csv").read_bytes() == (tmp_path / "b/2025-1.csv").read_bytes()


def leaked(content: bytes) -> list[str]:
    return found(content, SECRETS)

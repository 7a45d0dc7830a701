"""examples/image, from a clone to the server: a model of images and vectors ships, and none of them is published."""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from examples.image.generate import scans, write_deliveries, write_delivery
from slipway import artifacts
from slipway.artifacts import PARITY, VERDICT, Evaluation, Parity, Verdict
from slipway.images import decode_image
from slipway.release.image import decoder
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

EXAMPLE = ROOT / "examples/image"
WORDS = ("hunter2horse", "Zoe Quark-Fitzgerald")
"""Comments in image files."""
NUMBERS = [7.39125, 0.61803, 4.86135, 2.71827]
"""Numbers of secret vectors. They are the first numbers of a vector."""
PIXELS = np.frombuffer(b"secret pixels of a person, whose face nobody must ever see!.....", np.uint8).reshape(8, 8)


def secret_photo(pixels: Any = PIXELS) -> bytes:
    """Return a PNG file with secret pixels and a secret comment."""
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", WORDS[0])
    comment.add_text("Author", WORDS[1])
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", pnginfo=comment)
    return file.getvalue()


def secret_bytes() -> list[bytes]:
    """Return the forms in which secrets could be published: as bytes, as numbers of each kind, and as base64."""
    photo, flat, numbers = secret_photo(), PIXELS.ravel(), np.array(NUMBERS)
    compressed = photo[photo.index(b"IDAT") + 4 : photo.index(b"IEND") - 8]
    forms = [PIXELS.tobytes(), flat.astype("<f4").tobytes()[:64], compressed, base64.b64encode(photo)[40:120]]
    forms += [", ".join(map(str, flat[:8])).encode(), ",".join(map(str, flat[:8])).encode()]
    forms += [part.tobytes()[:8] for part in (numbers.astype("<f4"), numbers.astype("<f8"))]
    return [*forms, *(str(number).encode() for number in NUMBERS)]


def leaked(content: bytes) -> list[Any]:
    return [*found(content, WORDS), *(each for each in secret_bytes() if each in content)]


def plant(rows: list[dict[str, Any]]) -> None:
    """Write secrets into accepted rows, and into a row for each kind of fault."""
    for row in rows[5::100]:
        row |= {"photo": secret_photo(), "ink": [*NUMBERS, 0, 0, 0, 0]}
    rows[2] |= {"photo": secret_photo(PIXELS[:, :7]), "ink": [*NUMBERS, 0, 0, 0, 0]}
    rows[3] |= {"photo": secret_photo(), "ink": NUMBERS}
    rows[4] |= {"photo": secret_photo()[:-60], "ink": [*NUMBERS, 0, 0, 0, float("nan")]}
    rows[6] |= {"digit": WORDS[0], "photo": secret_photo(), "ink": [*NUMBERS, 0, 0, 0, 0]}


@pytest.fixture(scope="module")
def fork(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Replace the model by the example, plant secrets in its data, and run the pipeline, the report and the record."""

    def write_data(folder: Path) -> None:
        write_deliveries(folder)
        for delivery in (0, 2):
            rows = scans(delivery)
            plant(rows)
            write_delivery(folder / f"2025-{delivery + 1}.parquet", rows)

    return run_example(origin.clone(tmp_path_factory.mktemp("image") / "fork"), EXAMPLE, write_data, "photo")


@pytest.fixture(scope="module")
def server(fork: Fork, serve: Serve) -> Iterator[Server]:
    with serve(fork.repository.path / artifacts.BUNDLE) as server:
        yield server


def test_the_model_of_images_passes_the_gate(fork: Fork) -> None:
    verdict = Verdict.read(fork.repository.path / VERDICT)
    assert verdict.verdict == "first"
    assert verdict.challenger_loss < 0.4 * verdict.baseline_loss
    assert Parity.read(fork.repository.path / PARITY).rows_beyond_tolerance == 0
    scored = Evaluation.read(fork.repository.path / artifacts.EVALUATION)
    assert {part.column for part in scored.slices} == {"photo", "ink"}
    assert decoder(fork.repository.path / artifacts.BUNDLE) == {"IMAGES": "1"}


def test_no_secret_is_in_a_file_that_leaves_the_machine(fork: Fork) -> None:
    planted = pd.concat([pd.read_parquet(path) for path in (fork.repository.path / "data").glob("*.parquet")])
    assert (planted["photo"] == secret_photo()).sum() > 10
    assert leaked(secret_photo())
    assert leaked(json.dumps(NUMBERS).encode())
    for name, published in published_files(fork):
        assert not leaked(published), name
    assert not leaked(fork.printed.encode())


def test_no_secret_is_in_the_context_of_the_image(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, built in image_files(fork, monkeypatch):
        assert not leaked(built), name


def test_the_quarantine_names_row_and_reason_but_no_pixel(fork: Fork) -> None:
    rows = pd.read_csv(fork.repository.path / artifacts.QUARANTINE, dtype=str)
    first = rows[rows["delivery"] == "2025-1"].set_index("row")
    assert dict(first["reason"]) == {
        "4": "photo is not 8 pixels wide and 8 high",
        "5": "ink is not a list of 8 numbers",
        "6": "photo is truncated or damaged; ink has a number that is missing, not finite, or beyond single precision",
        "8": "digit is not one of ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']",
    }
    assert first[["photo", "ink"]].stack().str.fullmatch(r"\([0-9,]+ characters\)").all()


def test_the_server_shows_no_pixel_of_a_delivery_or_of_a_request(server: Server) -> None:
    photo = base64.b64encode(secret_photo()).decode()
    turned = base64.b64encode(secret_photo(PIXELS[:, :7])).decode()
    row = {"photo": photo, "ink": [*NUMBERS, 0, 0, 0, 0]}
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        assert client.post("/predict", json=row).status_code == 200
        for fault in ({"photo": turned}, {"photo": photo[:-80]}, {"ink": NUMBERS}, {"ink": [*NUMBERS, 0, 0, 0, "0"]}):
            refused = client.post("/predict", json=row | fault)
            assert refused.status_code == 422
            assert not leaked(refused.content)
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/version", "/v2", "/v2/models/model"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert not leaked(answer.content), path
        metrics = client.get("/metrics").text
    assert 'slipway_feature_count{feature="photo"} 1.0' in metrics
    series = [line for line in metrics.splitlines() if 'feature="' in line]
    assert len(series) <= 2 * 26
    assert not leaked(server.log.read_bytes())


def test_the_example_row_is_an_image_of_the_schema() -> None:
    rows = scans(2)
    assert rows == scans(2)
    assert decode_image(rows[0]["photo"], (8, 8, 1)).max() == 240

"""Batch scoring gives the bits of /predict, and quarantines exactly the rows that /predict refuses."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.slipway.conftest import ROOT, Repository
from tests.slipway.scoring.conftest import Score, answers, quarantined
from tests.slipway.serving import odd
from tests.slipway.serving.conftest import Server

NOTES = ["", "x", "never seen"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def ask(client: httpx.Client, server: Server, rows: list[dict[str, Any]]) -> Any:
    return client.post(f"{server.url}/predict", content=json.dumps(rows, allow_nan=False)).json()


def sample_rows() -> pd.DataFrame:
    deliveries = [pd.read_csv(path) for path in sorted((ROOT / "sample/source").glob("*.csv"))]
    return pd.concat(deliveries, ignore_index=True).drop(columns="price")


@pytest.mark.parametrize("kind", ["csv", "parquet", "parquet with days", "parquet with times"])
def test_each_sample_row_has_the_prediction_of_the_server(
    kind: str, client: httpx.Client, server: Server, served: Repository, run: Score, tmp_path: Path
) -> None:
    rows = sample_rows()
    records = rows.to_dict("records")
    expected = [
        each["prediction"] for i in range(0, len(rows), 1000) for each in ask(client, server, records[i : i + 1000])
    ]
    name = f"sales.{kind.split()[0]}"
    (tmp_path / "in").mkdir()
    if kind == "parquet with days":
        rows["sale_date"] = pd.to_datetime(rows["sale_date"]).dt.date
    elif kind == "parquet with times":
        rows["sale_date"] = pd.to_datetime(rows["sale_date"])
    path = tmp_path / "in" / name
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path, index=False)
    assert len(rows) > 5_000
    assert run(served.path / "champion").answered == len(rows)
    predicted = answers(tmp_path / "out", name)["prediction"].to_numpy()
    assert predicted.tobytes() == np.array(expected, np.float32).tobytes()


def odd_rows() -> list[dict[str, Any]]:
    """Return all combinations of valid, missing and invalid values."""
    return [
        {odd.AREA: area, "rooms": rooms, odd.SOLD: sold, "kind": kind, "note": note}
        for area in (0.1, 9, 9.5, None)
        for rooms in (None, 2, 3e38, 1e39)
        for sold in (None, "2001-01-01", "2000-02-29", "2010-06-30", "not a day")
        for kind in ("a", None, "c")
        for note in NOTES
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_are_answered_or_quarantined_as_the_server_answers_or_refuses_them(
    kind: str, client: httpx.Client, odd_server: Server, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    rows = [row for row in odd_rows() if kind == "parquet" or row["note"] != ""]  # CSV has no empty text
    (tmp_path / "in").mkdir()
    table = pd.DataFrame(rows)
    path = tmp_path / f"in/odd.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path, index=False)
    asked = [ask(client, odd_server, [row]) for row in rows]
    first = 2
    expected = {i: each[0]["prediction"] for i, each in enumerate(asked, first) if isinstance(each, list)}
    assert 20 < len(expected) < len(rows) - 100
    run(odd_bundle)
    found = answers(tmp_path / "out", path.name)
    assert dict(zip(found["row"], found["prediction"], strict=True)) == expected
    refused = quarantined(tmp_path / "out", path.name)
    assert refused.keys() == set(range(first, len(rows) + first)) - expected.keys()
    one = rows.index({odd.AREA: 9.5, "rooms": 2, odd.SOLD: "not a day", "kind": "a", "note": "x"}) + first
    assert refused[one] == (
        f"column {odd.AREA!r}: Input should be less than or equal to 9; "
        f"column {odd.SOLD!r}: Input should be a date from 2000-03-01 to 2010-06-30, as YYYY-MM-DD"
    )
    infinite = rows.index({odd.AREA: 9, "rooms": 3e38, odd.SOLD: None, "kind": "a", "note": "x"}) + first
    assert refused[infinite] == "the prediction is not a finite number"


def test_a_time_of_the_day_is_not_a_date(odd_bundle: Path, run: Score, tmp_path: Path) -> None:
    times = pd.to_datetime(["2001-01-01 00:00", "2001-01-01 00:01", None])
    (tmp_path / "in").mkdir()
    pd.DataFrame({odd.AREA: 1.0, "note": "x", odd.SOLD: times}).to_parquet(tmp_path / "in/odd.parquet", index=False)
    run(odd_bundle)
    predicted = answers(tmp_path / "out", "odd.parquet")
    days = (date(2001, 1, 1) - date(1970, 1, 1)).days
    assert dict(zip(predicted["row"], predicted["prediction"], strict=True)) == {2: 1 + 100 * days, 4: 1}
    assert [*quarantined(tmp_path / "out", "odd.parquet")] == [3]

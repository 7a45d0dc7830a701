"""The quarantine has the rejected rows of all deliveries, also if there are more than fit into memory."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest

from slipway.pipeline import quarantine
from tests.slipway.conftest import Result, edit

Run = Callable[..., Result]


def test_rows_of_deliveries_with_other_columns_are_in_one_table(
    slipway: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(workplace / "params.yaml", "max_invalid_share: 0.10", "max_invalid_share: 0.50")
    rows = pd.read_csv("data/1997B.csv", dtype=str)
    rows.loc[[5, 17, 18, 40], "price"] = "-1"
    rows.loc[40, "wall"] = None
    size = len(rows) // 4
    for number, added in enumerate([{}, {"appraised": "1"}, {}, {"owner": "Ann, Bo"}]):
        part = rows.iloc[number * 10 : (number + 1) * 10] if number < 3 else rows.iloc[30:size]
        part.assign(**added).to_csv(f"data/1997B{number}.csv", index=False)
    Path("data/1997B.csv").unlink()
    written = []
    for batch_rows in (quarantine.BATCH_ROWS, 1, 2):
        monkeypatch.setattr(quarantine, "BATCH_ROWS", batch_rows)
        assert slipway("validate").code == 0
        written.append(Path("build/quarantine.csv").read_bytes())
    assert written[1:] == written[:1] * 2
    found = pd.read_csv("build/quarantine.csv", dtype=str, keep_default_na=False)
    assert found["delivery"].tolist() == ["1997B0", "1997B1", "1997B1", "1997B3"]
    assert found["row"].tolist() == ["7", "9", "10", "12"]
    assert found["appraised"].tolist() == ["", "1", "1", ""]
    assert (found["owner"].tolist()[-1], found["wall"].tolist()[-1]) == ("Ann, Bo", "")
    assert [path.name for path in workplace.joinpath("build").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("mark", ["drop", "hash"])
def test_values_of_private_columns_are_replaced_by_their_lengths(mark: str) -> None:
    columns = {
        "age": pa.Column(float, metadata={"private": mark}),
        "town": pa.Column(str, metadata={"private": mark}),
        "size": pa.Column(float, metadata={"private": "no"}),
    }
    model: Any = SimpleNamespace(SCHEMA=pa.DataFrameSchema(columns), FEATURES=tuple(columns))
    rows = pd.DataFrame(
        {"reason": ["x"], "age": ["47"], "town": ["Toledo"], "size": ["-1"], "extra": ["Ann"]}, dtype="str"
    )
    shown = quarantine.without_unpublished(rows, model)
    assert shown.iloc[0].tolist() == ["x", "(2 characters)", "(6 characters)", "-1", "(3 characters)"]


def test_a_failed_validation_keeps_the_earlier_quarantine(slipway: Run, workplace: Path) -> None:
    assert slipway("validate").code == 0
    before = Path("build/quarantine.csv").read_bytes()
    rows = pd.read_csv("data/1997B.csv", dtype=str)
    rows.loc[3, "price"] = "-1"
    rows.to_csv("data/1997B.csv", index=False)
    (workplace / "data/1997C.csv").write_text("no header\n")
    assert slipway("validate").code == 2
    assert Path("build/quarantine.csv").read_bytes() == before
    assert [path.name for path in workplace.joinpath("build").iterdir() if path.name.startswith(".")] == []

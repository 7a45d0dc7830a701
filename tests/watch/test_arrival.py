"""A delivery is taken in once, whole, or not at all."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import Result

Run = Callable[..., Result]


@pytest.fixture
def source(workplace: Path) -> Path:
    """data/ has 1997A under DVC; 1997B, and after it 1997C, wait in the source."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    waiting = workplace / "sample/source"
    waiting.mkdir(parents=True)
    later = pd.read_csv("data/1997B.csv", dtype=str)
    middle = later["sale_date"][len(later) // 2]
    later[later["sale_date"] <= middle].to_csv(waiting / "1997B.csv", index=False)
    later[later["sale_date"] > middle].to_csv(waiting / "1997C.csv", index=False)
    Path("data/1997B.csv").unlink()
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], check=True)
    return Path("sample/source")


def state() -> tuple[str, dict[str, bytes]]:
    return Path("data.dvc").read_text(), {path.name: path.read_bytes() for path in Path("data").iterdir()}


def test_deliveries_arrive_oldest_first(slipway: Run, source: Path) -> None:
    for name in ("1997B", "1997C"):
        result = slipway("ingest")
        assert (result.code, f"{name} taken in" in result.out) == (0, True), result.err
        assert (Path("data") / f"{name}.csv").read_bytes() == (source / f"{name}.csv").read_bytes()
        tracked = yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"]
        assert tracked == len(list(Path("data").iterdir()))
    before = state()
    result = slipway("ingest")
    assert (result.code, "no new delivery" in result.out) == (0, True)
    assert state() == before


def test_a_delivery_that_was_copied_before_a_kill_is_tracked_by_the_next_call(slipway: Run, source: Path) -> None:
    for name in ("1997B", "1997C"):
        (Path("data") / f"{name}.csv").write_bytes((source / f"{name}.csv").read_bytes())
    assert slipway("ingest").code == 0
    assert yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"] == 3


def test_taking_in_the_same_twice_changes_nothing(slipway: Run, source: Path) -> None:
    assert source
    slipway("ingest", "1997B")
    before = state()
    assert slipway("ingest", "1997B").code == 0
    assert state() == before


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), 2, "sample/source/1997B.csv is truncated"),
        (lambda path: path.write_text(""), 2, "sample/source/1997B.csv is empty"),
        (lambda path: path.write_bytes(Path("data/1997A.csv").read_bytes()), 1, "already delivered in 1997A"),
        (lambda path: path.rename(path.with_name("1996B.csv")), 1, "sorts before data/1997A.csv"),
        (lambda _: Path("data/1997B.csv").write_text("other\n"), 1, "differs from data/1997B.csv"),
    ],
)
def test_what_is_not_fit_is_not_taken_in(
    slipway: Run, source: Path, spoil: Callable[[Path], object], code: int, words: str
) -> None:
    spoil(source / "1997B.csv")
    before = state()
    result = slipway("ingest")
    assert result.code == code
    assert words in result.err
    assert "/tmp" not in result.err
    assert state() == before


@pytest.mark.parametrize(
    "lose",
    [
        lambda: shutil.rmtree("data"),
        lambda: Path("data/1997A.csv").unlink(),
        lambda: Path("data/1997A.csv").write_text("edited\n"),
        lambda: Path("data/1996Z.csv").write_text("unknown\n"),
    ],
)
def test_data_that_is_not_what_dvc_says_is_left_alone(slipway: Run, source: Path, lose: Callable[[], object]) -> None:
    """As in a clone before `dvc pull`: `dvc add` would forget the deliveries that are not there."""
    assert source
    lose()
    before = Path("data.dvc").read_text()
    result = slipway("ingest")
    assert (result.code, "run `dvc pull data.dvc`" in result.err) == (2, True)
    assert Path("data.dvc").read_text() == before


def test_an_ingest_that_is_refused_lists_the_rows(slipway: Run, source: Path) -> None:
    rows = pd.read_csv(source / "1997B.csv", dtype=str)
    rows.assign(price="-1").to_csv(source / "1997B.csv", index=False)
    assert slipway("ingest").code == 1
    assert set(pd.read_csv("build/quarantine.csv")["delivery"]) == {"1997B"}


def test_a_source_or_a_delivery_that_is_not_there_is_named(slipway: Run, source: Path) -> None:
    assert "1997X.csv does not exist" in slipway("ingest", "1997X").err
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    result = slipway("ingest")
    assert (result.code, "`ingest.source` is sample/source, which is no folder" in result.err) == (2, True)

"""Requests in a shipped prediction log are counted as the servers count them."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway import artifacts
from slipway.bundle import load_bundle, read_reference
from slipway.config import Live, load_params
from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring import alert_issue, drift_sources
from slipway.monitoring.alert_issue import Checked
from slipway.monitoring.drift import DRIFT, Drift, compare, noise
from slipway.monitoring.log_counts import count_log
from slipway.monitoring.metric_counts import RequestCounts, read_page, request_counts
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import ROOT, Result
from tests.slipway.monitoring.counted import page
from tests.slipway.monitoring.test_join_log import START, log_and_ship
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, ROW, SOLD
from tests.slipway.serving.test_prediction_log import marked

NOON = datetime.fromtimestamp((START + 10) * 86_400 + 43_200, UTC)
RECORDS: list[dict[str, Any]] = [
    {AREA: 1, "rooms": None, SOLD: "2001-01-01", "kind": "a", "note": "never seen"},
    {AREA: 2.5, "rooms": 2, SOLD: None, "kind": None, "note": "a"},
    {AREA: 9, "rooms": 4, SOLD: "2002-01-01", "kind": "b", "note": "b"},
]
Run = Callable[..., Result]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle whose log has the records, each on its own day, and an old request."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    path = marked(odd.write_bundle(tmp_path / "odd"), tmp_path)
    days = [(8, RECORDS[0]), (9, RECORDS[1]), (10, RECORDS[2]), (2, ROW)]
    log_and_ship(path, tmp_path / "shipped", days, monkeypatch)
    return path


def counted(bundle: Path, window: str = "3d", now: datetime = NOON) -> RequestCounts:
    return count_log(LogStore("shipped"), load_bundle(bundle), read_reference(bundle), window, now)


def test_the_log_has_the_counts_of_the_metrics(bundle: Path) -> None:
    served = ServedModel(bundle, "model", 1000)
    served.predict(served.records.from_rows(RECORDS, str))
    expected = request_counts(read_page(page(served.metrics), served.hash), read_reference(bundle))
    assert counted(bundle) == expected


@pytest.mark.parametrize(("window", "rows"), [("1d", 1), ("30h", 1), ("2d", 2), ("9d", 4)])
def test_only_requests_in_the_window_are_counted(bundle: Path, window: str, rows: int) -> None:
    assert counted(bundle, window).rows == rows


def test_a_copied_file_is_not_counted(bundle: Path) -> None:
    for path in [*Path("shipped").rglob("*.parquet")]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    with pytest.raises(InputError, match=r"copy-.* is not a file of a prediction log; remove it"):
        counted(bundle)


def test_requests_dated_after_now_are_not_counted(bundle: Path) -> None:
    assert counted(bundle, "9d", NOON - timedelta(days=1)).rows == 3


def test_a_log_without_requests_to_the_champion_is_an_error(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / "more").write_text("another hash")
    for path, window in ((other, "3d"), (bundle, "1h")):
        with pytest.raises(InputError, match=r"^shipped has no request to the champion .* in the last"):
            counted(path, window)


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize("mark", ["drop", "hash"])
def test_private_columns_are_left_out(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = marked(tmp_path / "odd", tmp_path / "private", **{AREA: "drop", "note": mark})
    shutil.rmtree("shipped")
    log_and_ship(private, tmp_path / "shipped", [(10, each) for each in RECORDS], monkeypatch, "a secret of the team")
    counts = counted(private)
    assert set(counts.features) == {"kind", "rooms", SOLD}
    rule = load_params(ROOT / "params.yaml").drift
    found = compare("c" * 32, load_bundle(private).schema, read_reference(private), counts, rule)
    assert {each.name for each in found.moved} == {"kind", "rooms", SOLD, "price"}


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize("shown", [[], ["kind"]])
def test_a_private_date_does_not_change_the_limits(
    shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chance of a false alarm is divided among the distributions that are compared."""
    marks = {each.name: "drop" for each in odd.SCHEMA_OF_IT.columns if each.name not in shown}
    private = marked(tmp_path / "odd", tmp_path / "private", **marks)
    shutil.rmtree("shipped")
    log_and_ship(private, tmp_path / "shipped", [(10, each) for each in RECORDS], monkeypatch, "a secret of the team")
    rule = load_params(ROOT / "params.yaml").drift
    counts, reference = counted(private), read_reference(private)
    found = compare("c" * 32, load_bundle(private).schema, reference, counts, rule)
    assert [each.name for each in found.moved if each.what != "prediction"] == shown
    (prediction,) = (each for each in found.moved if each.what == "prediction")
    now, before = counts.prediction["price"], reference.prediction["price"]
    rows = (np.array([*each.counts, each.missing]) for each in (before, now))
    assert prediction.noise == noise(*rows, (1 - rule.confidence) / (1 + len(shown)))


def test_a_file_whose_times_are_texts_is_reported(bundle: Path) -> None:
    file = max(Path("shipped").rglob("*.parquet"))
    table = pq.read_table(file)
    texts = pa.array(["now"] * len(table))
    pq.write_table(table.set_column(table.column_names.index("time"), "time", texts), file)
    with pytest.raises(InputError, match=rf"{file.name} is not a file of a prediction log"):
        counted(bundle)


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", None], ids=["empty", "truncated", "without columns"])
def test_a_file_that_is_not_a_log_is_reported(bundle: Path, content: bytes | None) -> None:
    file = max(Path("shipped").rglob("*.parquet"))
    file.write_bytes(content if content is not None else (ROOT / "tests/slipway/__init__.py").read_bytes())
    with pytest.raises(InputError, match=rf"{file.name} is not a file of a prediction log"):
        counted(bundle)


def test_the_verb_and_the_monitor_use_the_log(
    bundle: Path, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.rename(artifacts.CHAMPION)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr(drift_sources, "datetime", type("Now", (), {"now": staticmethod(lambda _: NOON)}))
    result = slipway("drift", "--log", "shipped", "--window", "3d")
    assert (result.code, "NO ALARM: 3 rows are too few to judge" in result.out) == (0, True), result.err
    assert Drift.read(DRIFT).rows == 3
    assert "cannot be combined" in slipway("drift", "--log", "shipped", "--delivery", "a").err
    params = load_params(tmp_path / "params.yaml")
    live = params.model_copy(update={"live": Live(log="shipped", labels="labels.csv")})
    (finding,) = alert_issue._drift(Checked(live, None, date(2024, 1, 1), {}))  # type: ignore[arg-type]
    assert (finding.check, finding.alarm) == ("drift of requests", False)
    assert re.match(r"bundle \w{12}, 1d until 2024-01-01: 1 rows are too few to judge", finding.reason)
    down = {"PROMETHEUS_URL": "http://127.0.0.1:9"}
    (again,) = alert_issue._drift(Checked(live, None, date(2024, 1, 1), down))  # type: ignore[arg-type]
    assert again.reason.startswith(f"{finding.reason}; the log was used, because Prometheus failed: ")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        alert_issue._drift(Checked(params, None, date(2024, 1, 1), down))  # type: ignore[arg-type]
    assert alert_issue._drift(Checked(params, None, date(2024, 1, 1), {})) == []  # type: ignore[arg-type]

"""Logged requests of production are replayed for the report, without trusting them."""

import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from slipway.bundle import MODEL, SCHEMA
from slipway.config import Params, load_params
from slipway.config import Replay as ReplaySettings
from slipway.review.layout import Text, lay_out
from slipway.review.markdown import render_summary
from slipway.review.replay import replay
from slipway.review.report import Replay, Report
from tests.slipway.conftest import ROOT
from tests.slipway.monitoring.test_join_log import date_of, log_and_ship
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, ROW
from tests.slipway.serving.test_prediction_log import marked

LATER = date.fromisoformat(date_of(30))
ROWS: list[tuple[int, dict[str, Any]]] = [
    (day, ROW | {AREA: i / 10, "rooms": i, "kind": "ab"[i % 2]}) for day in range(3) for i in range(40)
]


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    (tmp_path / "odd").mkdir()
    return marked(odd.write_bundle(tmp_path / "odd"), tmp_path / "champion")


@pytest.fixture
def challenger(champion: Path, tmp_path: Path) -> Path:
    """Return a bundle with another weight of the second number, that refuses areas above 3.5."""
    bundle = Path(shutil.copytree(champion, tmp_path / "challenger"))
    model = onnx.load(bundle / MODEL)
    weights = next(each for each in model.graph.initializer if each.name == "weights")
    values = numpy_helper.to_array(weights).copy()
    values[1] += 2
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    onnx.save(model, bundle / MODEL)
    schema = json.loads((bundle / SCHEMA).read_text())
    next(each for each in schema["columns"] if each["name"] == AREA)["maximum"] = 3.5
    (bundle / SCHEMA).write_text(json.dumps(schema))
    return bundle


def with_replay(log: Path | str, slices: dict[str, Any] | None = None, **more: Any) -> Params:
    params = load_params(ROOT / "params.yaml")
    settings = ReplaySettings.model_validate({"log": str(log), "feedback": "none"} | more)
    evaluate = params.evaluate.model_copy(update={"slices": slices or {"kind": "values"}})
    return params.model_copy(update={"replay": settings, "evaluate": evaluate})


@pytest.fixture
def log(champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log_and_ship(champion, tmp_path / "shipped", ROWS, monkeypatch)
    return tmp_path / "shipped"


def test_the_replay_counts_moved_answers_and_refused_requests(log: Path, champion: Path, challenger: Path) -> None:
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert (found.requests, found.refused, found.unavailable) == (120, 12, None)
    assert (str(found.first), str(found.last)) == (date_of(0), date_of(2))
    assert found.moved == pytest.approx(30 / 36)  # six small changes are within the tolerance
    assert found.changes == pytest.approx((35.0, 68.0, 70.0), abs=1)
    assert [(part.column, part.value, part.requests) for part in found.slices] == [("kind", "a", 54), ("kind", "b", 54)]
    assert found.slices[0].moved == pytest.approx(15 / 18)


def test_the_replay_is_deterministic_and_ignores_the_current_day(
    log: Path, champion: Path, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, today = with_replay(log, requests=50), date.fromisoformat(date_of(5))
    found = replay(params, champion, challenger, today)
    assert found is not None
    assert (found.requests, found.first) == (50, date.fromisoformat(date_of(1)))
    log_and_ship(champion, log, [(5, ROW), (6, ROW)], monkeypatch)
    assert replay(params, champion, challenger, today) == found


def test_equal_models_move_no_answer(log: Path, champion: Path) -> None:
    found = replay(with_replay(log), champion, champion, LATER)
    assert found is not None
    assert (found.refused, found.moved, found.changes) == (0, 0.0, (0.0, 0.0, 0.0))


def test_hostile_rows_do_no_harm(
    champion: Path, challenger: Path, tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can send any text in a category without a list of values."""
    notes = ["<img src=x onerror=alert(1)>", "](http://example.com) | a | `b`\n# c", "x" * 1_000_000, "\u202e@team"]
    rows = [(0, ROW | {"note": note}) for note in notes for _ in range(50)]
    log_and_ship(champion, tmp_path / "shipped", rows, monkeypatch)
    found = replay(with_replay(tmp_path / "shipped", {"note": "values"}), champion, challenger, LATER)
    assert found is not None
    assert found.requests == 200
    assert len(found.model_dump_json()) < 5_000
    text = render_summary(with_result(report, found))
    assert re.findall(r"(?<!\\)<img|(?<!\\)\]\(http", text) == []  # a backslash makes them plain text
    assert "\u202e" not in text
    assert "x" * 101 not in text


def with_result(report: Report, found: Replay) -> Report:
    assert report.result
    return report.model_copy(update={"result": report.result.model_copy(update={"replay": found})})


@pytest.mark.parametrize(
    ("feedback", "warns"),
    [("none", False), ("possible", True)],
)
def test_the_report_has_the_replay_and_is_honest_about_feedback(
    log: Path, champion: Path, challenger: Path, report: Report, feedback: str, warns: bool
) -> None:
    found = replay(with_replay(log, feedback=feedback), champion, challenger, LATER)
    assert found is not None
    section = next(each for each in lay_out(with_result(report, found)).sections if each.title.startswith("Replay"))
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert texts[0].startswith(
        f"The challenger answered 120 requests that production received from {date_of(0)} to {date_of(2)}: "
        "83.3% get another answer, and 12 are refused. The answer changes by $35"
    )
    assert any("Answers can influence the truth" in text for text in texts) == warns


def test_the_report_has_no_replay_by_default(champion: Path, challenger: Path, report: Report) -> None:
    assert replay(load_params(ROOT / "params.yaml"), champion, challenger, LATER) is None
    assert not [each for each in lay_out(report).sections if each.title.startswith("Replay")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private": "drop"}, "the column area/m²~'% is private"),
        ({}, "cannot be used"),
    ],
)
def test_a_log_that_cannot_be_replayed_is_a_sentence_in_the_report(
    champion: Path, challenger: Path, report: Report, change: dict[str, str], words: str
) -> None:
    schema = json.loads((champion / SCHEMA).read_text())
    next(each for each in schema["columns"] if each["name"] == AREA).update(change)
    (champion / SCHEMA).write_text(json.dumps(schema))
    found = replay(with_replay("nosuch://bucket"), champion, challenger, LATER)
    assert found is not None
    assert found.unavailable is not None
    assert words in found.unavailable
    assert "The log was not replayed, because" in render_summary(with_result(report, found))


def test_files_that_are_not_of_a_log_are_a_sentence(champion: Path, challenger: Path, tmp_path: Path) -> None:
    (tmp_path / "shipped" / f"day={date_of(0)}").mkdir(parents=True)
    (tmp_path / "shipped" / f"day={date_of(0)}" / "a.parquet").write_text("<b>")
    found = replay(with_replay(tmp_path / "shipped"), champion, challenger, LATER)
    assert found is not None
    assert "a.parquet is not a file of a prediction log" in str(found.unavailable)
    empty = replay(with_replay(tmp_path / "empty"), champion, challenger, LATER)
    assert empty is not None
    assert "it has no request from before" in str(empty.unavailable)


def test_a_log_without_a_column_of_the_challenger_refuses_all(log: Path, champion: Path, challenger: Path) -> None:
    schema = json.loads((challenger / SCHEMA).read_text())
    next(each for each in schema["columns"] if each["name"] == "rooms")["name"] = "floors"
    (challenger / SCHEMA).write_text(json.dumps(schema))
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert (found.requests, found.refused, found.moved) == (120, 120, 0.0)

"""Logged requests of production are replayed for the report, without trusting them."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper

from slipway.bundle import MODEL, SCHEMA, TRAINING_ROWS
from slipway.config import Params, load_params
from slipway.config import Replay as ReplaySettings
from slipway.pipeline.row_ids import row_ids
from slipway.review import replay as module
from slipway.review.layout import Text, lay_out
from slipway.review.markdown import render_summary
from slipway.review.report import Replay, Report
from slipway.serving.log_segments import METADATA_KEY
from tests.slipway.conftest import ROOT
from tests.slipway.monitoring.test_join_log import date_of, log_and_ship, model_of_odd
from tests.slipway.serving import arrays, odd
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


said: list[str] = []
"""Sentences for the log of the run."""


def replay(params: Params, champion: Path, challenger: Path, before: date) -> Replay | None:
    return module.replay(params, champion, challenger, before, model_of_odd(), said.append, is_fork=False)


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


def test_a_copied_file_is_replayed_once(log: Path, champion: Path, challenger: Path) -> None:
    once = replay(with_replay(log), champion, challenger, LATER)
    for path in [*log.rglob("*.parquet")]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    assert replay(with_replay(log), champion, challenger, LATER) == once


def test_requests_to_an_earlier_bundle_with_hashed_columns_are_left_out(
    champion: Path, challenger: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the model would read the hash of a text as the text."""
    earlier = marked(champion, tmp_path / "earlier", note="hash")
    log_and_ship(earlier, log, [(5, each) for _, each in ROWS[:10]], monkeypatch, secret="a secret of the team")
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert (found.requests, found.unavailable, str(found.last)) == (120, None, date_of(2))


@pytest.fixture
def joined(champion: Path, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a joined log of 12 days. The truth of each row is the answer of the challenger."""
    rows = [(day, ROW | {AREA: (day * 10 + i) / 40, "rooms": i + 1}) for day in range(12) for i in range(10)]
    log_and_ship(champion, tmp_path / "shipped", rows, monkeypatch)
    for path in (tmp_path / "shipped").rglob("*.parquet"):
        table = pq.read_table(path)
        truth = table["answer"].to_numpy() + 2 * table["record_rooms"].to_numpy()
        known = pa.array([date.fromisoformat(date_of(20))] * len(table), pa.date32())
        pq.write_table(table.append_column("truth", pa.array(truth)).append_column("known_at", known), path)
    for bundle in (champion, challenger):
        np.save(bundle / TRAINING_ROWS, np.zeros(0, dtype=np.uint64))
    return tmp_path / "shipped"


def test_the_replay_shows_which_model_is_closer_to_the_truth(
    joined: Path, champion: Path, challenger: Path, report: Report
) -> None:
    found = replay(with_replay(joined), champion, challenger, LATER)
    assert found is not None
    assert found.truth is not None
    assert (found.truth.requests, found.truth.unavailable) == (120, None)
    assert found.truth.champion == pytest.approx(11.0)
    assert found.truth.challenger == pytest.approx(0.0, abs=0.01)
    assert found.truth.interval == pytest.approx((11.0, 11.0), abs=0.01)
    text = render_summary(with_result(report, found))
    assert "The truth of 120 of them is known. On these, the mean absolute error is \\$11 for the champion" in text
    assert "the challenger is closer (95% interval of the difference +11 to +11)" in text
    assert "This assumes that answers do not influence the truth" in text
    assert replay(with_replay(joined), champion, challenger, LATER) == found
    swapped = replay(with_replay(joined), challenger, champion, LATER)
    assert swapped is not None
    assert swapped.truth is not None
    assert swapped.truth.difference == pytest.approx(-11.0, abs=0.01)
    assert "the champion is closer" in render_summary(with_result(report, swapped))
    possible = replay(with_replay(joined, feedback="possible"), champion, challenger, LATER)
    assert possible is not None
    assert "so they cannot show which model is better" in render_summary(with_result(report, possible))


def test_a_truth_of_zero_is_not_compared_by_percentage(joined: Path, champion: Path, challenger: Path) -> None:
    percentage = load_params(ROOT / "params.yaml").task.model_copy(update={"loss": "mean_absolute_percentage_error"})
    params = with_replay(joined).model_copy(update={"task": percentage})

    def change(table: pa.Table) -> pa.Table:
        truth = np.where(table["record_rooms"].to_numpy() > 5, table["truth"].to_numpy(), 0.0)
        return table.set_column(table.column_names.index("truth"), "truth", pa.array(truth))

    change_files(joined, change)
    found = replay(params, champion, challenger, LATER)
    assert found is not None
    assert found.truth is not None
    assert found.truth.requests == 60
    assert found.truth.champion < 1


def test_truths_that_are_known_after_the_commit_are_not_compared(
    joined: Path, champion: Path, challenger: Path
) -> None:
    found = replay(with_replay(joined), champion, challenger, date.fromisoformat(date_of(20)))
    assert found is not None
    assert (found.requests, found.truth) == (120, None)


def test_requests_for_training_rows_are_not_compared(joined: Path, champion: Path, challenger: Path) -> None:
    """The challenger was trained on the rows of all requests except for the first 30."""
    ids = sorted(row_ids(pd.DataFrame({AREA: [i / 40 for i in range(30, 120)]}), model_of_odd()))
    np.save(challenger / TRAINING_ROWS, np.array(ids, dtype=np.uint64))
    found = replay(with_replay(joined), champion, challenger, LATER)
    assert found is not None
    assert found.truth is not None
    assert (found.truth.requests, found.truth.trained_on, found.truth.interval) == (30, 90, None)
    everything = row_ids(pd.DataFrame({AREA: np.arange(120) / 40}), model_of_odd())
    np.save(challenger / TRAINING_ROWS, np.sort(everything))
    found = replay(with_replay(joined), champion, challenger, LATER)
    assert found is not None
    assert found.truth is not None
    assert found.truth.unavailable == "a model was trained on their rows"


def private_keys(files: list[Path]) -> None:
    for path in files:
        table = pq.read_table(path)
        header = json.loads(table.schema.metadata[METADATA_KEY]) | {"keyed": True}
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(header)}), path)


def hostile_keys(files: list[Path]) -> None:
    """Replace keys by texts of other lengths. Together they have as many digits as hashes."""
    for path in files:
        table = pq.read_table(path)
        place = table.column_names.index("key")
        texts = pa.array([("ab" * 4, "ab" * 12, "<b>")[i % 3] for i in range(len(table))])
        pq.write_table(table.set_column(place, "key", texts), path)


def hostile_truths(files: list[Path]) -> None:
    """Replace truths by text, and the header by markup."""
    for path in files:
        table = pq.read_table(path).drop_columns("truth")
        texts = pa.array(["<img src=x onerror=alert(1)>" * 1_000] * len(table))
        pq.write_table(table.append_column("truth", texts).replace_schema_metadata({METADATA_KEY: "<b>"}), path)


def hostile_dates(files: list[Path]) -> None:
    for path in files:
        table = pq.read_table(path).drop_columns("known_at")
        pq.write_table(table.append_column("known_at", pa.array(["<b>"] * len(table))), path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (private_keys, "requests do not show whether a model was trained on their rows"),
        (hostile_keys, "requests do not show whether a model was trained on their rows"),
        (hostile_truths, None),
        (hostile_dates, None),
    ],
)
def test_truths_that_are_not_usable_are_not_compared(
    joined: Path,
    champion: Path,
    challenger: Path,
    report: Report,
    change: Callable[[list[Path]], None],
    reason: str | None,
) -> None:
    change([*joined.rglob("*.parquet")])
    found = replay(with_replay(joined), champion, challenger, LATER)
    assert found is not None
    assert found.requests == 120
    assert (found.truth.unavailable if found.truth else None) == reason
    text = render_summary(with_result(report, found))
    assert "img src" not in text
    assert ("is known, but not compared" in text) == (reason is not None)


def test_the_models_are_not_compared_on_requests_if_rows_have_weights(
    joined: Path, champion: Path, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.pipeline.measure.check_weight", lambda *_: None)  # the model lacks the column
    params = with_replay(joined)
    params = params.model_copy(update={"task": params.task.model_copy(update={"weight": "value"})})
    found = replay(params, champion, challenger, LATER)
    assert found is not None
    assert found.truth is not None
    assert found.truth.unavailable == "the weights of requests are not known"


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
    notes = ["<img src=x onerror=alert(1)>", "](http://example.com) | a | `b`\n# c", "x" * 100_000, "\u202e@team"]
    # In all, less than the log keeps for a slow disk, so that no row is dropped.
    rows = [(0, ROW | {"note": note}) for note in ["y" * 1_000_000, *notes * 50]]
    log_and_ship(champion, tmp_path / "shipped", rows, monkeypatch)
    found = replay(with_replay(tmp_path / "shipped", {"note": "values"}), champion, challenger, LATER)
    assert found is not None
    assert found.requests == 201
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
def test_the_report_has_the_replay_and_warns_about_feedback(
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


def change_files(log: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    for path in sorted(log.rglob("*.parquet")):
        pq.write_table(change(pq.read_table(path)), path)


def with_seconds(seconds: Any) -> Callable[[pa.Table], pa.Table]:
    """Return a change of files after which one row of the second day has the time `seconds`."""

    def change(table: pa.Table) -> pa.Table:
        days = table["time"].to_numpy().astype("datetime64[D]").astype(str)
        slow = (table["record_rooms"].to_numpy() == 7) & (days == date_of(1))
        place = table.column_names.index("seconds")
        return table.set_column(place, "seconds", pa.array([seconds if each else 0.002 for each in slow]))

    return change


def test_the_report_names_the_slowest_request_and_the_log_of_the_run_its_times(
    log: Path, champion: Path, challenger: Path, report: Report
) -> None:
    """The report has only logged values, and is the same in each run. It has no id, which a client can choose."""
    change_files(log, with_seconds(0.25))
    said.clear()
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert found.slowest is not None
    assert (found.slowest.seconds, found.slowest.records) == (0.25, 1)
    text = render_summary(with_result(report, found))
    assert f"The slowest request, with 1 record, took production 250 ms ({date_of(1)} 01:00:00 UTC)." in text
    (sentence,) = said
    times = r"takes the challenger \d\S* ms on this machine, and the champion \d\S* ms"
    assert re.search(times, sentence)
    assert replay(with_replay(log), champion, challenger, LATER) == found


def test_the_records_of_the_slowest_request_are_counted(
    champion: Path, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [(0, ROW), (1, [ROW | {AREA: i} for i in range(5)])]
    log_and_ship(champion, tmp_path / "shipped", rows, monkeypatch)
    change_files(
        tmp_path / "shipped",
        lambda table: table.set_column(
            table.column_names.index("seconds"),
            "seconds",
            pa.array([0.5 if each == "r-1" else 0.1 for each in table["request_id"].to_pylist()]),
        ),
    )
    found = replay(with_replay(tmp_path / "shipped"), champion, challenger, LATER)
    assert found is not None
    assert found.slowest is not None
    assert (found.slowest.records, str(found.slowest.at.date())) == (5, date_of(1))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e308])
def test_hostile_times_do_no_harm(log: Path, champion: Path, challenger: Path, report: Report, seconds: float) -> None:
    change_files(log, with_seconds(seconds))
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert found.slowest is not None
    assert found.slowest.seconds == (seconds if seconds > 1e300 and np.isfinite(seconds) else 0.002)
    assert len(render_summary(with_result(report, found))) < 60_000


@pytest.mark.parametrize("time", [2**62, -(2**62), -1])
def test_requests_outside_of_the_replayed_time_are_left_out(
    log: Path, champion: Path, challenger: Path, report: Report, time: int
) -> None:
    def change(table: pa.Table) -> pa.Table:
        times = table["time"].cast(pa.int64()).to_pylist()
        return table.set_column(0, "time", pa.array([time, *times[1:]], pa.timestamp("us", "UTC")))

    change_files(log, change)
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert (found.requests, str(found.last)) == (117, date_of(2))
    assert render_summary(with_result(report, found))


def test_the_day_of_a_truth_can_have_a_time_zone(joined: Path, champion: Path, challenger: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        known = table["known_at"].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        return table.set_column(table.column_names.index("known_at"), "known_at", known)

    expected = replay(with_replay(joined), champion, challenger, LATER)
    change_files(joined, change)
    assert replay(with_replay(joined), champion, challenger, LATER) == expected
    assert expected
    assert expected.truth


def test_a_log_without_times_has_no_slowest_request(
    log: Path, champion: Path, challenger: Path, report: Report
) -> None:
    change_files(log, lambda table: table.drop_columns("seconds"))
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert (found.requests, found.slowest) == (120, None)
    assert "slowest" not in render_summary(with_result(report, found))


WRONG_TYPES: dict[str, Any] = {"time": ["now"], "request_id": [7], "row": ["first"], f"record_{AREA}": [[1.0, 2.0]]}


@pytest.mark.parametrize("column", [*WRONG_TYPES])
def test_columns_of_wrong_types_do_no_harm(log: Path, champion: Path, challenger: Path, column: str) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = pa.array(WRONG_TYPES[column] * len(table))
        return table.set_column(table.column_names.index(column), column, values)

    change_files(log, change)
    found = replay(with_replay(log), champion, challenger, LATER)
    assert found is not None
    assert found.requests == (120 if column == "request_id" else 0)
    assert ("is not a file of a prediction log" in str(found.unavailable)) == (column in ("time", "row"))


def test_vectors_and_images_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arrays").mkdir()
    bundle = marked(arrays.write_bundle(tmp_path / "arrays"), tmp_path)
    other = {**arrays.ROW, "size": 9, "other": None}
    log_and_ship(bundle, tmp_path / "shipped", [(0, arrays.ROW), (0, other)], monkeypatch)
    found = replay(with_replay(tmp_path / "shipped", {"size": [5]}), bundle, bundle, LATER)
    assert found is not None
    assert (found.requests, found.refused, found.moved, found.unavailable) == (2, 0, 0.0, None)


def test_the_report_has_no_replay_by_default(champion: Path, challenger: Path, report: Report) -> None:
    assert replay(load_params(ROOT / "params.yaml"), champion, challenger, LATER) is None
    assert not [each for each in lay_out(report).sections if each.title.startswith("Replay")]


def test_a_pull_request_from_a_fork_gets_no_replay(
    joined: Path, champion: Path, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is not even opened."""
    params = with_replay(joined)
    assert replay(params, champion, challenger, LATER) is not None
    monkeypatch.setattr(module, "LogStore", pytest.fail)
    assert module.replay(params, champion, challenger, LATER, model_of_odd(), pytest.fail, is_fork=True) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private": "drop"}, "the column area/m²~'% is private"),
        ({}, "cannot be used"),
    ],
)
def test_a_log_that_cannot_be_replayed_is_explained_in_the_report(
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


def test_files_that_do_not_belong_to_a_log_are_explained_in_the_report(
    champion: Path, challenger: Path, tmp_path: Path
) -> None:
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

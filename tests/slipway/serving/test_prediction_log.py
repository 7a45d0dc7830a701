"""The prediction log: its contents, and failures of the disk, the clock and the process."""

import fcntl
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from slipway.bundle import SCHEMA
from slipway.errors import InputError
from slipway.pipeline.row_ids import hash_rows
from slipway.serving import prediction_log
from slipway.serving.log_segments import (
    MAGIC,
    PARTIAL,
    PIECE,
    SUFFIX,
    LoggedColumn,
    Row,
    Segment,
    SingleRows,
    read_segment,
    remove_unfinished,
    segments,
)
from slipway.serving.logged_columns import hash_key, is_sampled
from slipway.serving.predict import PredictionHandler
from slipway.serving.prediction_log import PredictionLog
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.slipway.serving.conftest import Serve, Server
from tests.slipway.serving.odd import AREA, ROW, SCHEMA_OF_IT, SOLD, expected
from tests.slipway.serving.test_server import run

NAMES = [AREA, "rooms", SOLD, "kind", "note"]
SECRET = "a secret of the team"
JSON = {b"content-type": b"application/json"}
KILLS = 50


def marked(odd_bundle: Path, folder: Path, **marks: str | None) -> Path:
    """Copy the bundle. All columns are marked as not private, except for those in `marks`."""
    bundle = folder / "bundle"
    shutil.copytree(odd_bundle, bundle)
    schema = json.loads((bundle / SCHEMA).read_text())
    for column in schema["columns"]:
        column["private"] = marks.get(column["name"], "no")
    (bundle / SCHEMA).write_text(json.dumps(schema))
    return bundle


@pytest.fixture
def public(odd_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle without private columns."""
    return marked(odd_bundle, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


Handler = Callable[..., PredictionHandler]


@pytest.fixture
def handler(folder: Path, public: Path) -> Handler:
    """Return a handler with a log in this process. Its thread does not run until the log is entered."""

    def make(bundle: Path = public, **settings: Any) -> PredictionHandler:
        model = ServedModel(bundle, "odd", 1000)
        given = Settings.model_validate({f"prediction_log_{name}": value for name, value in settings.items()})
        return PredictionHandler(model, given, log=PredictionLog(folder, model, given))

    return make


def predict(handler: PredictionHandler, body: Any, route: str = "/predict", request_id: str = "") -> int:
    headers = JSON | ({b"x-request-id": request_id.encode()} if request_id else {})
    return post_body(handler, json.dumps(body).encode(), headers, route)


def post_body(handler: PredictionHandler, body: bytes, headers: dict[bytes, bytes], route: str = "/predict") -> int:
    started = time.monotonic()
    answer = handler.answer(handler.routes[route], "POST", headers, body)
    handler.record(route, route, "POST", answer, time.monotonic() - started)
    return answer.status


def log_of(handler: PredictionHandler) -> PredictionLog:
    assert isinstance(handler._log, PredictionLog)
    return handler._log


def variables(folder: Path, **more: str) -> dict[str, str]:
    return {"SLIPWAY_PREDICTION_LOG": str(folder), "SLIPWAY_PREDICTION_LOG_SECONDS": "0.05"} | more


def rows(found: Segment) -> Iterator[dict[str, Any]]:
    """Yield each row of a segment with its request, its values by name, and its answer."""
    names = [column.name for column in found.header.columns]
    for block in found.blocks:
        answers = np.frombuffer(block.answers, "<f4").reshape(-1, len(found.header.outputs)).tolist()
        for i, (request, row) in enumerate(zip(block.request, block.row, strict=True)):
            request_id, at, seconds = block.requests[request]
            record = {name: column[i] for name, column in zip(names, block.columns, strict=True)}
            key = block.keys[i] if block.keys else None
            yield {"id": request_id, "time": at, "seconds": seconds, "row": row, "key": key} | {
                "record": record,
                "answer": answers[i],
            }


def logged_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in segments(folder) for row in rows(read_segment(path))]


def account(server: Server) -> dict[str, float]:
    """Return the numbers of rows in the metrics of a server."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    values = {name: float(value) for name, _, value in samples}
    start = "slipway_prediction_log_"
    kept = {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}
    dropped = sum(value for name, value in kept.items() if 'outcome="dropped"' in name)
    return {
        "answered": kept["answered_rows_total"],
        "logged": kept['rows_total{outcome="logged",reason=""}'],
        "sampled_out": kept['rows_total{outcome="sampled_out",reason=""}'],
        "dropped": dropped,
        "waiting": kept["waiting_rows"],
    }


def balances(numbers: dict[str, float]) -> bool:
    return numbers["answered"] == sum(numbers.values()) - numbers["answered"]


def post(server: Server, body: Any, path: str = "/predict", **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, headers=headers)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


OTHER = {AREA: 4.5, "note": "ü"}
RECORD_OF_ROW = {AREA: 3.0, "rooms": 2.0, SOLD: "2001-01-01", "kind": "b", "note": "x"}
RECORD_OF_OTHER = {AREA: 4.5, "rooms": None, SOLD: None, "kind": None, "note": "ü"}


def infer(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kinds = {AREA: "FP32", "rooms": "FP32", SOLD: "BYTES", "kind": "BYTES", "note": "BYTES"}
    return {
        "inputs": [
            {"name": name, "shape": [len(records)], "datatype": kind, "data": [each.get(name) for each in records]}
            for name, kind in kinds.items()
        ]
    }


BODIES: list[tuple[str, Any, int]] = [
    ("/predict", ROW, 1),
    ("/predict", [ROW], 1),
    ("/predict", [ROW, OTHER], 2),
    ("/invocations", {"dataframe_records": [ROW, OTHER]}, 2),
    ("/invocations", {"dataframe_split": {"columns": [*ROW], "data": [[*ROW.values()]]}}, 1),
    ("/invocations", {"inputs": {name: [value] for name, value in ROW.items()}}, 1),
    ("/invocations", {"instances": [ROW | {SOLD: "2001-01-01T00:00:00"}, OTHER]}, 2),
    ("/v2/models/odd/infer", infer([ROW]), 1),
    ("/v2/models/odd/infer", infer([ROW, OTHER]), 2),
]


@pytest.mark.parametrize(("route", "body", "count"), BODIES)
def test_each_protocol_logs_the_records_and_the_answers(
    handler: Handler, folder: Path, route: str, body: Any, count: int
) -> None:
    made = handler()
    with log_of(made):
        before = time.time()
        assert predict(made, body, route, request_id="r-1") == 200
        after = time.time()
    found = logged_rows(folder)
    wanted = [RECORD_OF_ROW, RECORD_OF_OTHER][:count]
    assert [row["record"] for row in found] == wanted
    assert [row["answer"] for row in found] == [[expected(each)] for each in wanted]
    assert [(row["id"], row["row"]) for row in found] == [("r-1", i) for i in range(count)]
    assert all(before <= row["time"] <= after and 0 < row["seconds"] < after - before + 1 for row in found)


def test_a_segment_names_its_bundle_and_columns(handler: Handler, folder: Path) -> None:
    made = handler()
    with log_of(made):
        predict(made, ROW)
    (path,) = segments(folder)
    header = read_segment(path).header
    assert (header.bundle, header.model, header.rows) == (made.routes["/predict"].protocol.model.hash, "odd", 1)
    assert [(each.name, each.type) for each in header.columns] == [
        (AREA, "number"),
        ("rooms", "number"),
        (SOLD, "date"),
        ("kind", "category"),
        ("note", "category"),
    ]
    assert (header.outputs, header.key, header.keyed) == (("price",), (LoggedColumn(AREA, "number"),), False)
    assert path.name == f"{header.day}-{header.instance}-00000000{SUFFIX}"


def test_refused_requests_are_not_logged(handler: Handler, folder: Path) -> None:
    made = handler()
    with log_of(made):
        assert predict(made, ROW) == 200
        assert predict(made, ROW | {"rooms": "two"}) == 422
        assert predict(made, [ROW, {}]) == 422
    assert len(logged_rows(folder)) == log_of(made).account().answered == 1


def test_without_a_folder_nothing_is_captured(serve: Serve, public: Path) -> None:
    """The server then has the handler and the reader of a server without a log."""
    with serve(public) as server:
        assert post(server, ROW).status_code == 200
        assert "prediction_log" not in httpx.get(f"{server.url}/metrics").text


def test_the_metrics_balance_and_sigterm_writes_what_waits(serve: Serve, public: Path, folder: Path) -> None:
    with serve(public, **variables(folder, SLIPWAY_PREDICTION_LOG_SECONDS="600")) as server:
        for i in range(70):
            assert post(server, [ROW] if i % 7 else [ROW, OTHER, OTHER]).status_code == 200
        numbers = account(server)
        assert numbers["answered"] == 90
        assert numbers["waiting"] == 90
        assert segments(folder) == []
    assert server.process.returncode == 0
    assert len(logged_rows(folder)) == 90
    (path,) = segments(folder)
    assert read_segment(path).header.account.logged == 90


def test_rows_are_written_within_the_time_of_the_setting(serve: Serve, public: Path, folder: Path) -> None:
    with serve(public, **variables(folder)) as server:
        post(server, ROW)
        until(lambda: account(server)["logged"] == 1)
        assert len(logged_rows(folder)) == 1


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"rooms": None}, "the column 'rooms' of the bundle has no mark `private`"),
        ({"rooms": None, "kind": None, "note": None}, "the column 'rooms' and 2 more"),
        ({"rooms": "hash"}, "set SLIPWAY_PREDICTION_LOG_SECRET"),
        ({AREA: "drop"}, "set SLIPWAY_PREDICTION_LOG_SECRET"),
    ],
)
def test_a_bundle_without_marks_or_secret_is_served_and_not_logged(
    serve: Serve, odd_bundle: Path, tmp_path: Path, folder: Path, marks: dict[str, str | None], words: str
) -> None:
    """A rollback can restore a bundle that is older than its marks."""
    with serve(marked(odd_bundle, tmp_path, **marks), **variables(folder)) as server:
        for body in (ROW, [ROW] * 3):
            assert post(server, body).status_code == 200
        until(lambda: account(server)["dropped"] == 4)
        assert 'outcome="dropped",reason="not_allowed"} 4' in httpx.get(f"{server.url}/metrics").text
    assert words in server.log.read_text()
    assert not folder.exists()


def test_a_short_secret_is_refused_and_not_shown(public: Path, folder: Path) -> None:
    result = run(public, **variables(folder, SLIPWAY_PREDICTION_LOG_SECRET="too-short"))
    assert result.code == 2
    assert "is too short" in result.err
    assert "too-short" not in result.err + result.out


def test_a_secret_that_cannot_be_read_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="SLIPWAY_PREDICTION_LOG_SECRET is not UTF-8") as error:
        hash_key(os.fsdecode(b"a secret of the team \xff"))
    assert "team" not in str(error.value)


def test_a_bundle_without_marks_is_served_without_a_log(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle) as server:
        assert post(server, ROW).status_code == 200


def test_private_values_are_in_no_stored_byte(serve: Serve, odd_bundle: Path, tmp_path: Path, folder: Path) -> None:
    names = {"note": "drop", SOLD: "drop", "kind": "hash", AREA: "hash"}
    bundle = marked(odd_bundle, tmp_path, **names)
    record = {AREA: 7.123456789, "rooms": 3.25, SOLD: "2009-11-21", "kind": "b", "note": "Ada Lovelace"}
    secrets = [b"Ada", b"2009-11-21", np.float64(7.123456789).tobytes(), np.float64(7.123456789).tobytes()[::-1]]
    secrets += [np.float32(7.123456789).tobytes(), b"7.12345", SECRET.encode()]
    with serve(
        bundle, **variables(folder, SLIPWAY_PREDICTION_LOG_SECRET=SECRET, SLIPWAY_LOG_REQUESTS="true")
    ) as server:
        for body in (record, [record] * 3):
            assert post(server, body).status_code == 200
        assert post(server, record | {"rooms": "x"}).status_code == 422
    stored = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert stored
    for content in (*stored, server.log.read_bytes()):
        assert [each for each in secrets if each in content] == []
    found = logged_rows(folder)
    assert len(found) == 4
    digest = blake2b(b"kind\0" + (1).to_bytes(8, "little") + b"b", digest_size=16, key=hash_key(SECRET)).hexdigest()
    assert {row["record"]["kind"] for row in found} == {digest}
    assert {*found[0]["record"]} == {AREA, "rooms", "kind"}
    assert found[0]["record"]["rooms"] == 3.25
    assert len({row["key"] for row in found}) == 1


def test_the_search_for_private_values_finds_logged_values(serve: Serve, public: Path, folder: Path) -> None:
    record = ROW | {AREA: 7.123456789, "note": "Ada Lovelace"}
    with serve(public, **variables(folder)) as server:
        post(server, record)
    (content,) = [path.read_bytes() for path in segments(folder)]
    assert b"Ada" in content
    assert np.float64(7.123456789).tobytes()[::-1] in content


def test_a_hash_depends_on_the_secret_and_the_column(odd_bundle: Path, tmp_path: Path) -> None:
    bundle = marked(odd_bundle, tmp_path, kind="hash", note="hash")
    hashes = set()
    for secret in (SECRET, SECRET + "!"):
        model = ServedModel(bundle, "odd", 5)
        settings = Settings.model_validate({"prediction_log_secret": secret})
        log = PredictionLog(tmp_path / secret, model, settings)
        made = PredictionHandler(model, settings, log=log)
        with log:
            predict(made, ROW | {"kind": "a", "note": "a"})
        (row,) = logged_rows(tmp_path / secret)
        hashes |= {row["record"]["kind"], row["record"]["note"]}
    assert len(hashes) == 4


def test_all_rows_of_a_key_are_in_the_sample_or_out(handler: Handler, folder: Path) -> None:
    made = handler(share=0.3)
    bodies: list[Any] = [ROW | {AREA: i / 40, "rooms": i % 7} for i in range(300)] * 2
    with log_of(made):
        for body in bodies:
            predict(made, body)
        for start in range(0, 600, 60):
            predict(made, bodies[start : start + 60])
        numbers = log_of(made).account
    found = [row["record"][AREA] for row in logged_rows(folder)]
    assert {found.count(area) for area in found} == {4}
    assert 60 <= len(set(found)) <= 120
    assert numbers().balances
    assert (numbers().answered, numbers().logged, numbers().dropped) == (1200, len(found), 0)
    assert {row["key"] for row in logged_rows(folder)} == {
        f"{int(each).to_bytes(8, 'little').hex()}" for each in hash_rows([pd.Series(sorted(set(found)))])
    }


def test_ids_of_rows_outside_the_sample_are_not_stored(handler: Handler, folder: Path) -> None:
    made = handler(share=0.3)
    with log_of(made):
        for i in range(100):
            predict(made, ROW | {AREA: i / 20}, request_id=f"id-{i:03}")
    ids = {row["id"] for row in logged_rows(folder)}
    content = b"".join(path.read_bytes() for path in segments(folder))
    assert {f"id-{i:03}" for i in range(100) if f"id-{i:03}".encode() in content} == ids
    assert 0 < len(ids) < 100


def test_the_sample_has_the_share_of_the_setting() -> None:
    for share in (0.01, 0.5):
        sampled = sum(is_sampled(str(i), share) for i in range(20_000)) / 20_000
        assert abs(sampled - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
    assert all(is_sampled(str(i), 1) for i in range(1000))


def test_requests_without_the_key_are_sampled_by_their_id(odd_bundle: Path, tmp_path: Path, folder: Path) -> None:
    bundle = marked(odd_bundle, tmp_path)
    schema = SCHEMA_OF_IT.model_dump() | {"key": ["customer"]}
    schema["columns"] = [column | {"private": "no"} for column in schema["columns"]]
    (bundle / SCHEMA).write_text(json.dumps(schema))
    model = ServedModel(bundle, "odd", 5)
    settings = Settings.model_validate({"prediction_log_share": 0.5})
    log = PredictionLog(folder, model, settings)
    with log:
        for i in range(100):
            predict(PredictionHandler(model, settings, log=log), ROW, request_id=f"id-{i}")
    found = logged_rows(folder)
    assert {row["id"] for row in found} == {f"id-{i}" for i in range(100) if is_sampled(f"id-{i}", 0.5)}
    assert {row["key"] for row in found} == {None}


def test_the_key_of_a_private_column_needs_the_secret(odd_bundle: Path, tmp_path: Path, folder: Path) -> None:
    model = ServedModel(marked(odd_bundle, tmp_path, **{AREA: "drop"}), "odd", 5)
    settings = Settings.model_validate({"prediction_log_secret": SECRET})
    log = PredictionLog(folder, model, settings)
    with log:
        predict(PredictionHandler(model, settings, log=log), ROW)
    (row,) = logged_rows(folder)
    value = np.float64(ROW[AREA]).tobytes()
    assert row["key"] == blake2b(value, digest_size=8, key=hash_key(SECRET)).hexdigest()
    assert row["key"] != blake2b(value, digest_size=8).hexdigest()


# Failures


def test_a_full_disk_loses_rows_but_no_prediction(serve: Serve, public: Path, folder: Path) -> None:
    big = ROW | {"note": "x" * 100_000}
    with serve(public, **variables(folder)) as server:
        post(server, ROW)
        until(lambda: account(server)["logged"] == 1)
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        for _ in range(3):
            assert post(server, big).json() == {"prediction": expected(ROW)}
        until(lambda: account(server)["waiting"] == 0)
        assert account(server)["dropped"] == 3
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        post(server, big)
        until(lambda: account(server)["waiting"] == 0)
        numbers = account(server)
    assert numbers == {"answered": 5, "logged": 2, "sampled_out": 0, "dropped": 3, "waiting": 0}
    assert len(logged_rows(folder)) == 2
    assert [path.name for path in folder.iterdir() if not path.name.endswith(SUFFIX)] == []
    assert server.log.read_text().count("the prediction log loses rows") == 1


def test_a_folder_that_cannot_be_written_loses_rows_but_no_prediction(
    serve: Serve, public: Path, tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with serve(public, **variables(occupied)) as server:
        assert post(server, ROW).status_code == 200
        until(lambda: account(server)["dropped"] == 1)
        assert balances(account(server))


def test_a_folder_at_its_limit_takes_no_further_rows(serve: Serve, public: Path, folder: Path) -> None:
    """A shipper that never ships must not fill the disk."""
    with serve(public, **variables(folder, SLIPWAY_PREDICTION_LOG_MAX_BYTES="5000")) as server:
        for _ in range(40):
            assert post(server, [ROW, OTHER] * 5).status_code == 200
            until(lambda: account(server)["waiting"] == 0)
        numbers = account(server)
        assert balances(numbers)
        assert 0 < numbers["logged"] < numbers["answered"] == 400
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 6000
        for path in segments(folder):
            path.unlink()
        post(server, ROW)
        until(lambda: account(server)["logged"] == numbers["logged"] + 1)


def test_a_disk_that_is_too_slow_drops_rows_beyond_the_queue(
    handler: Handler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "MAX_QUEUE", 100_000)
    made = handler()  # its thread has not started, like a thread whose disk does not answer
    for _ in range(2_000):
        predict(made, [ROW, OTHER])
    numbers = log_of(made).account()
    assert numbers.balances
    assert numbers.dropped > 0
    assert numbers.waiting > 0
    with log_of(made):
        pass
    assert len(logged_rows(folder)) == numbers.waiting == log_of(made).account().logged


def test_large_bodies_do_not_wait_in_memory(handler: Handler) -> None:
    made = handler()
    for _ in range(10):
        predict(made, ROW | {"note": "x" * 500_000})
    assert log_of(made)._pending == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_predictions_go_on_after_the_writer_has_ended(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: Any) -> None:
        raise SystemExit

    made = handler(seconds=0.01)
    log = log_of(made)
    monkeypatch.setattr(prediction_log, "write_segment", end)
    with log:
        predict(made, ROW)
        until(lambda: not log._thread.is_alive())
        for _ in range(prediction_log.BLOCK_ROWS):
            assert predict(made, ROW) == 200
        assert log.account().balances
        assert (log.account().waiting, log.account().dropped) == (0, 1 + prediction_log.BLOCK_ROWS)


def test_a_bug_in_the_log_does_not_fail_the_request(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    made = handler()
    monkeypatch.setattr(prediction_log, "encode", lambda _: 1 / 0)
    with log_of(made):
        assert predict(made, [ROW, OTHER]) == 200
    assert (log_of(made).account().dropped, log_of(made).account().balances) == (2, True)


def test_clock_steps_lose_no_row_and_each_segment_is_of_one_day(
    handler: Handler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = {"2026-11-26": 1795651200.0, "2026-11-27": 1795737600.0}
    first, second = days.values()
    clock = [first + 86_399.9, second, second + 5, first, first + 1, second + 86_399, 0.0, second]
    made = handler()
    with log_of(made):
        for i, now in enumerate(clock):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            predict(made, ROW | {"rooms": i})
            predict(made, [ROW | {"rooms": i}] * 2)
    read = [read_segment(path) for path in segments(folder)]
    for found in read:
        assert {time.strftime("%Y-%m-%d", time.gmtime(row["time"])) for row in rows(found)} == {found.header.day}
    assert sorted(row["record"]["rooms"] for found in read for row in rows(found)) == sorted([*range(len(clock))] * 3)
    assert {found.header.day for found in read} == {*days, "1970-01-01"}
    assert log_of(made).account().balances


def test_segments_are_closed_by_their_size(handler: Handler, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_BYTES", 20_000)
    made = handler(seconds=600)
    with log_of(made):
        for _ in range(100):
            predict(made, [ROW, OTHER] * 10)
        until(lambda: len(segments(folder)) >= 3)
    assert len(logged_rows(folder)) == 2000
    assert max(path.stat().st_size for path in segments(folder)) < 25_000


def test_what_a_killed_server_left_unfinished_is_removed(serve: Serve, public: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / f"2026-11-26-0-00000000{PARTIAL}").write_bytes(MAGIC)
    with serve(public, **variables(folder)):
        until(lambda: list(folder.iterdir()) == [])


def test_an_unfinished_segment_of_a_running_server_is_kept(tmp_path: Path) -> None:
    """Two servers may write to one folder."""
    names = [f"2026-11-26-{i}-00000000{PARTIAL}" for i in range(3)]
    running, killed, link = (tmp_path / name for name in names)
    target = tmp_path / "target"
    target.write_text("of another program")
    killed.touch()
    link.symlink_to(target)
    with running.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_unfinished(tmp_path)
        assert {*tmp_path.iterdir()} == {running, target}
    remove_unfinished(tmp_path)
    assert {*tmp_path.iterdir()} == {target}


def test_a_segment_is_locked_while_it_is_written(
    handler: Handler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second server starts while the first one writes."""
    monkeypatch.setattr(os, "fsync", lambda _: remove_unfinished(folder))
    made = handler()
    with log_of(made):
        predict(made, ROW)
    assert len(logged_rows(folder)) == log_of(made).account().logged == 1


def test_corrupt_segments_count_as_part_of_the_folder(handler: Handler, folder: Path) -> None:
    folder.mkdir()
    (folder / f"x{SUFFIX}.corrupt").write_bytes(b"x" * 5_000)
    made = handler(max_bytes=5_000)
    with log_of(made):
        predict(made, ROW)
    assert (log_of(made).account().logged, log_of(made).account().dropped) == (0, 1)


def log_until_killed(bundle: Path, folder: Path, answered: Any) -> None:
    """Answer requests, and count them in the shared memory `answered`, until this process is killed."""
    model = ServedModel(bundle, "odd", 1000)
    settings = Settings.model_validate({"prediction_log_seconds": 0.005})
    log = PredictionLog(folder, model, settings)
    made = PredictionHandler(model, settings, log=log)
    with log:
        while True:
            for body, count in ((ROW, 1), ([ROW, OTHER], 2)):
                answered.value += count  # before the answer, so that it is never smaller than the account
                predict(made, body)


def check_account(folder: Path) -> tuple[int, int]:
    """Check that every segment is whole, and that every account balances. Return the numbers of servers and rows."""
    logged: dict[str, int] = {}
    written: dict[str, int] = {}
    for each in sorted(map(read_segment, segments(folder)), key=lambda each: each.header.number):
        assert each.header.account.balances
        assert (each.header.account.dropped, each.header.account.sampled_out) == (0, 0)
        logged[each.header.instance] = each.header.account.logged
        written[each.header.instance] = written.get(each.header.instance, 0) + each.header.rows
    assert logged == written
    return len(written), sum(written.values())


def test_a_kill_at_any_moment_leaves_whole_segments_and_a_balanced_account(public: Path, folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    answered = fork.Value("q", 0, lock=False)
    moments = random.Random(20)
    for _ in range(KILLS):
        process = fork.Process(target=log_until_killed, args=(public, folder, answered))
        before = answered.value
        process.start()
        until(lambda before=before: answered.value > before)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    servers, written = check_account(folder)
    assert 0 < servers <= KILLS
    assert 0 < written <= answered.value


def test_a_killed_server_leaves_what_it_has_written(serve: Serve, public: Path, folder: Path) -> None:
    with serve(public, **variables(folder)) as server:
        for _ in range(20):
            post(server, ROW)
        until(lambda: account(server)["logged"] == 20)
        server.process.kill()
        server.process.wait()
    assert check_account(folder) == (1, 20)


def test_a_segment_is_written_in_pieces_with_pauses(
    handler: Handler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[float, int]] = []
    monkeypatch.setattr(
        "time.sleep", lambda pause: sizes.append((pause, next(folder.glob(f"*{PARTIAL}")).stat().st_size))
    )
    made = handler()
    with log_of(made):
        for _ in range(10):
            predict(made, ROW | {"note": "x" * PIECE})
    assert len(sizes) > 1
    assert {pause for pause, _ in sizes} == {prediction_log.PAUSE}
    assert all(written >= number * PIECE for number, (_, written) in enumerate(sizes))
    assert len(logged_rows(folder)) == 10


def test_a_truncated_segment_is_an_error(handler: Handler, folder: Path) -> None:
    made = handler()
    with log_of(made):
        predict(made, [ROW, OTHER])
        for _ in range(2):
            predict(made, ROW)
    (path,) = segments(folder)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match="not a complete segment"):
            read_segment(path)
    path.write_bytes(content)
    assert read_segment(path).header.rows == 4


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", 1.0, 0.1, None, [1.0], b"1234"), ("b", 1.0, 0.1, None, [1.0, 2.0], b"1234")],
        [("a", 1.0, 0.1, None, [1.0], b"1234"), ("b", 1.0, 0.1, None, [1.0], b"12345678")],
    ],
    ids=["no row", "a further column", "a further output"],
)
def test_rows_of_different_shapes_are_refused(rows: list[Row]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SingleRows(rows).as_block()

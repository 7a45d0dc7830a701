"""Prediction logs are shipped exactly once, kept for the days of the setting, and erased by key."""

import errno
import fcntl
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway.errors import CheckFailed, InputError
from slipway.integrations.batch_storage import BatchInput
from slipway.integrations.label_source import LabelSource, fetched_labels
from slipway.integrations.log_store import LogStore
from slipway.monitoring.erase_log import Erased, erase
from slipway.monitoring.erasures import FOLDER, KEEP_DAYS, Erasures, delete_old_records, record_erasure
from slipway.monitoring.log_tables import expired_folders
from slipway.monitoring.ship_log import Shipped, delete_expired, ship
from slipway.pipeline.row_ids import hash_rows
from slipway.serving.log_segments import MAGIC, LoggedColumn, encode, read_segment, segment_name, segments
from slipway.serving.logged_columns import key_hashes
from slipway.serving.predict import Answer, Predicted, PredictionHandler
from slipway.serving.prediction_log import PredictionLog
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.slipway.conftest import ROOT, Result
from tests.slipway.outside import BUCKET, Store, s3
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, ROW, SOLD, expected
from tests.slipway.serving.test_prediction_log import marked, post_body, predict

SECRET = "a secret of the team"
KILLS = 50


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a bundle without private columns, and one whose key is private."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "odd").mkdir()
    plain = odd.write_bundle(folder / "odd")
    return {
        "public": marked(plain, folder / "public"),
        "private": marked(plain, folder / "private", **{AREA: "drop", "note": "hash"}),
    }


def write_log(folder: Path, bundle: Path, bodies: Sequence[Any], secret: str | None = None) -> None:
    """Answer requests, and write one segment for each."""
    model = ServedModel(bundle, "odd", 1000)
    settings = Settings.model_validate({"prediction_log_secret": secret} if secret else {})
    for i, body in enumerate(bodies):
        log = PredictionLog(folder, model, settings)
        with log:
            assert predict(PredictionHandler(model, settings, log=log), body, request_id=f"r-{i}") == 200


def areas(*values: float) -> list[dict[str, Any]]:
    return [ROW | {AREA: value} for value in values]


def shipped(address: Path) -> pd.DataFrame:
    """Read a shipped log as pandas does, with the columns of its folders."""
    return pd.read_parquet(address)


def never(text: str) -> None:
    pytest.fail(text)


def test_a_shipped_log_has_the_records_and_the_answers(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    other = {AREA: 4.5, "note": "ü"}
    write_log(folder, bundles["public"], [ROW, [ROW, other]])
    assert ship(folder, LogStore(str(address)), never) == Shipped(2, 3)
    assert segments(folder) == []
    found = shipped(address).sort_values(["request_id", "row"])
    assert found["request_id"].tolist() == ["r-0", "r-1", "r-1"]
    assert found["row"].tolist() == [0, 0, 1]
    assert found["answer"].tolist() == [expected(ROW), expected(ROW), expected(other)]
    assert found[f"record_{AREA}"].tolist() == [3, 3, 4.5]
    assert found["record_kind"].isna().tolist() == [False, False, True]
    assert found[f"record_{SOLD}"].tolist()[:2] == [date(2001, 1, 1)] * 2
    ids = hash_rows([pd.Series([3.0, 3.0, 4.5])])
    assert found["key"].tolist() == [int(each).to_bytes(8, "little").hex() for each in ids]
    assert (abs(found["time"] - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=5)).all()
    assert found["day"].astype(str).tolist() == found["time"].dt.strftime("%Y-%m-%d").tolist()
    assert found["bundle"].nunique() == 1


def test_a_log_of_a_classifier_has_the_probability_of_each_class(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    model = ServedModel(bundles["public"], "odd", 5)
    log = PredictionLog(folder, model, Settings())
    log._outputs = ("no", "yes")
    values = (3.0, 2.0, date(2001, 1, 1), "b", "x")
    with log:
        predicted = Predicted(values, True, 10, np.array([[0.25, 0.75]], dtype=np.float32))
        log.add(Answer(200, b"x-request-id: r\r\n", b""), predicted, 0.1)
    ship(folder, LogStore(str(address)), never)
    assert shipped(address)[["answer_no", "answer_yes"]].to_numpy().tolist() == [[0.25, 0.75]]


def test_an_existing_file_is_not_shipped_again(tmp_path: Path, bundles: dict[str, Path]) -> None:
    """The shipper was killed before it deleted the segment, and the key was erased meanwhile."""
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(1, 2))
    kept = {path: path.read_bytes() for path in segments(folder)}
    ship(folder, store, never)
    erase(store, {AREA: "1"}, None)
    for path, content in kept.items():
        path.write_bytes(content)
    ship(folder, store, never)
    assert segments(folder) == []
    assert shipped(tmp_path / "shipped")[f"record_{AREA}"].tolist() == [2]


def test_equal_segments_give_equal_files(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder = tmp_path / "log"
    write_log(folder, bundles["public"], [ROW])
    (path,) = segments(folder)
    content = path.read_bytes()
    for name in ("one", "two"):
        path.write_bytes(content)
        ship(folder, LogStore(str(tmp_path / name)), never)
    one, two = (sorted((tmp_path / name).rglob("*.parquet")) for name in ("one", "two"))
    assert [each.read_bytes() for each in one] == [each.read_bytes() for each in two]


def test_a_corrupt_segment_does_not_stop_the_others(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, said = tmp_path / "log", list[str]()
    write_log(folder, bundles["public"], areas(1, 2, 3))
    first = segments(folder)[0]
    first.write_bytes(first.read_bytes()[:-3])
    assert ship(folder, LogStore(str(tmp_path / "shipped")), said.append) == Shipped(2, 2)
    assert [path.name for path in folder.iterdir()] == [f"{first.name}.corrupt"]
    assert len(said) == 1
    assert "is not a complete segment" in said[0]


HOSTILE = {
    "day": {"day": "../../other"},
    "not a day": {"day": "2026-13-01"},
    "bundle": {"bundle": "../../../other"},
    "instance": {"instance": "../../../other"},
    "types": {"columns": (LoggedColumn(AREA, "date"), *[LoggedColumn(str(i), "text") for i in range(4)])},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_segment_is_not_shipped_and_does_not_stop_the_others(
    tmp_path: Path, bundles: dict[str, Path], changes: dict[str, Any]
) -> None:
    """Anyone who controls the server controls the content of the folder, but not where it is shipped."""
    folder, said = tmp_path / "log", list[str]()
    write_log(folder, bundles["public"], areas(1, 2))
    first = segments(folder)[0]
    found = read_segment(first)
    header = msgspec.structs.replace(found.header, **changes)
    blocks = [encode(block) for block in found.blocks]
    first.unlink()
    path = folder / Path(segment_name(header)).name
    frames = [len(each).to_bytes(4, "little") + each for each in (encode(header), *blocks)]
    path.write_bytes(MAGIC + b"".join(frames))
    before = {*tmp_path.rglob("*")}
    assert ship(folder, LogStore(str(tmp_path / "a/b/shipped")), said.append) == Shipped(1, 1)
    assert {each for each in {*tmp_path.rglob("*")} - before if not each.is_relative_to(tmp_path / "a/b/shipped")} == {
        tmp_path / "a",
        tmp_path / "a/b",
        path.with_name(f"{path.name}.corrupt"),
    }
    assert len(said) == 1


def test_links_folders_and_renamed_segments_are_not_shipped(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, other = tmp_path / "log", tmp_path / "other"
    write_log(folder, bundles["public"], areas(1))
    write_log(other, bundles["public"], areas(2, 3))
    linked, renamed = segments(other)
    (folder / linked.name).symlink_to(linked)
    (folder / "folder.segment").mkdir()
    renamed.rename(folder / "x.segment")
    said = list[str]()
    assert ship(folder, LogStore(str(tmp_path / "shipped")), said.append) == Shipped(1, 1)
    assert ["is not a complete segment" in each for each in said] == [True]
    assert linked.is_file()
    assert shipped(tmp_path / "shipped")[f"record_{AREA}"].tolist() == [1]


def read_only(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment was shipped, so that it is not shipped again when the volume can be written."""
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        for _ in range(2):
            with pytest.raises(
                InputError, match=r"The folder .*/log cannot be used \(Read-only file system\); check its volume"
            ):
                ship(folder, store, never)
    ship(folder, store, never)
    assert len(shipped(tmp_path / "shipped")) == 1


def test_another_shipper_may_rename_a_corrupt_segment(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(1, 2))
    first = segments(folder)[0]
    first.write_bytes(b"")
    rename = Path.rename

    def twice(path: Path, target: Path) -> Path:
        rename(path, target)
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", twice)
        assert ship(folder, store, lambda _: None) == Shipped(1, 1)


def test_hostile_texts_are_shipped_unchanged(tmp_path: Path, bundles: dict[str, Path]) -> None:
    texts = ["\0" * 9, "x" * 1_000_000, "<script>|`\r\n", "\U0001f600\u202e", "../../etc", "=1+1"]
    folder, model, settings = tmp_path / "log", ServedModel(bundles["public"], "odd", 1000), Settings()
    with PredictionLog(folder, model, settings) as log:
        handler = PredictionHandler(model, settings, log=log)
        for i, text in enumerate(texts):
            assert predict(handler, ROW | {"note": text, AREA: i}) == 200
        for bad in (b"\xed\xa0\x80", rb"\ud800"):
            body = json.dumps(ROW).encode().replace(b'"x"', b'"' + bad + b'"')
            assert post_body(handler, body, {}) in (400, 422)
        assert predict(handler, ROW | {f"unknown-{i}": "text" for i in range(10_000)}) == 422
    assert (log.account().answered, log.account().logged) == (len(texts), len(texts))
    ship(folder, LogStore(str(tmp_path / "shipped")), never)
    assert shipped(tmp_path / "shipped").sort_values(f"record_{AREA}")["record_note"].tolist() == texts


class Full(LogStore):
    """Storage that takes only half of each file."""

    def size(self, name: str) -> int | None:
        found = super().size(name)
        return None if found is None else found // 2


def test_a_segment_stays_if_its_file_is_incomplete(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder = tmp_path / "log"
    write_log(folder, bundles["public"], [ROW])
    with pytest.raises(InputError, match="was not written completely"):
        ship(folder, Full(str(tmp_path / "shipped")), never)
    assert len(segments(folder)) == 1


def test_a_full_disk_is_not_filled_further_by_each_attempt(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], [ROW])

    def half(path: str, content: bytes) -> None:
        Path(path).write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store._files, "pipe_file", half)
        for _ in range(2):
            with pytest.raises(InputError, match="No space left on device"):
                ship(folder, store, never)
    assert contents(tmp_path / "shipped") == b""
    assert ship(folder, store, never) == Shipped(1, 1)


def ship_forever(folder: Path, address: str, options: dict[str, Any]) -> None:
    store = LogStore(address, **options)
    while True:
        ship(folder, store, never)


def kill_shippers(
    folder: Path, bundle: Path, address: str, options: dict[str, Any], kills: int, longest: float
) -> None:
    """Start shippers, and kill each at a random moment, while a server writes three segments for each."""
    fork, moments = multiprocessing.get_context("fork"), random.Random(20)
    for i in range(kills):
        write_log(folder, bundle, areas(i / 100, i / 100, i / 100 + 0.005))
        process = fork.Process(target=ship_forever, args=(folder, address, options))
        process.start()
        time.sleep(moments.uniform(0, longest))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    ship(folder, LogStore(address, **options), never)
    assert segments(folder) == []


def areas_of_kills(kills: int) -> Counter[float]:
    return Counter([i / 100 for i in range(kills) for _ in range(2)] + [i / 100 + 0.005 for i in range(kills)])


def test_shippers_killed_at_any_moment_ship_each_row_once(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    kill_shippers(folder, bundles["public"], str(address), {}, KILLS, 0.1)
    assert Counter(shipped(address)[f"record_{AREA}"]) == areas_of_kills(KILLS)


def test_readers_ignore_the_unfinished_file_of_a_killed_shipper(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log", bundles["public"], areas(1))
    store = LogStore(str(tmp_path / "shipped"))
    assert ship(tmp_path / "log", store, never).rows == 1
    monkeypatch.setattr(store._files, "mv", lambda *_: sys.exit())  # a kill before the rename
    with pytest.raises(SystemExit):
        store.write(f"{store.files()[0]}.parquet", b"unfinished")
    assert list((tmp_path / "shipped").rglob("*.partial"))
    assert list(shipped(tmp_path / "shipped")[f"record_{AREA}"]) == [1]


# A real bucket


def options(store: Store) -> dict[str, Any]:
    config = {"connect_timeout": 20, "read_timeout": 20, "retries": {"max_attempts": 0}}
    return {
        "key": store.key,
        "secret": store.secret,
        "endpoint_url": store.url,
        "client_kwargs": {"region_name": "eu-central-1"},
        "config_kwargs": config,
    }


def in_bucket(store: Store, address: str) -> pd.DataFrame:
    files = fsspec.filesystem("s3", **options(store), skip_instance_cache=True)
    names = [path for path in files.find(address) if path.endswith(".parquet")]
    return pd.concat([pd.read_parquet(files.open(path)) for path in names])


def test_a_bucket_that_is_stopped_and_started_gets_each_row_once(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "segments", f"s3://{BUCKET}/logs/houses"
    with s3(tmp_path) as store:
        kill_shippers(folder, bundles["public"], address, options(store), 10, 0.5)
        write_log(folder, bundles["public"], areas(5, 6))
    with pytest.raises(InputError, match=f"The storage {address} cannot be used"):
        ship(folder, LogStore(address, **options(store)), never)
    assert len(segments(folder)) == 2
    with s3(tmp_path, store):
        assert ship(folder, LogStore(address, **options(store)), never) == Shipped(2, 2)
        found = in_bucket(store, address)
        assert Counter(found[f"record_{AREA}"]) == areas_of_kills(10) + Counter([5.0, 6.0])
        bucket = LogStore(address, **options(store))
        assert erase(bucket, {AREA: "5"}, None).rows == 1
        assert 5 not in in_bucket(store, address)[f"record_{AREA}"].tolist()
        _, day = bucket.folders()  # and the record of the erasure
        assert delete_expired(bucket, 1, date(2100, 1, 1)) == [day]
        assert bucket.files() == []


# Retention and erasure


def test_days_older_than_the_setting_are_deleted(tmp_path: Path) -> None:
    days = ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-26"]
    for name in [*(f"day={day}" for day in days), "other", "day=unknown"]:
        (tmp_path / name / "bundle=1").mkdir(parents=True)
        (tmp_path / name / "bundle=1/0.parquet").write_text("")
    store = LogStore(str(tmp_path))
    assert delete_expired(store, 2, date(2026, 11, 26)) == ["day=2026-11-22", "day=2026-11-23"]
    assert store.folders() == ["day=2026-11-24", "day=2026-11-26", "day=unknown", "other"]
    assert delete_expired(store, 2, date(2026, 11, 26)) == []
    assert expired_folders(["day=2026-11-26"], 1, date(2026, 11, 26)) == []


def contents(address: Path) -> bytes:
    return b"".join(path.read_bytes() for path in address.rglob("*") if path.is_file())


def test_erasing_a_key_leaves_nothing_of_it(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    bodies = [ROW | {AREA: 7.25, "note": "Ada"}, [ROW | {AREA: 7.25, "note": "Ada"}, ROW], ROW]
    write_log(folder, bundles["public"], bodies)
    ship(folder, LogStore(str(address)), never)
    assert b"Ada" in contents(address)
    key = shipped(address).set_index(f"record_{AREA}")["key"][7.25].iloc[0].encode()
    assert key in contents(address)
    assert erase(LogStore(str(address)), {AREA: "7.25"}, None) == Erased(rows=2, files=2, searched=3)
    assert b"Ada" not in contents(address)
    assert key not in contents(address)
    assert b"r-0" not in contents(address)
    assert shipped(address)[f"record_{AREA}"].tolist() == [3, 3]
    assert erase(LogStore(str(address)), {AREA: "7.25"}, None).rows == 0


def test_a_private_key_is_erased_with_the_secret(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["private"], areas(1, 2, 2), SECRET)
    ship(folder, LogStore(str(address)), never)
    store = LogStore(str(address))
    assert f"record_{AREA}" not in shipped(address)
    with pytest.raises(InputError, match="set SLIPWAY_PREDICTION_LOG_SECRET"):
        erase(store, {AREA: "2"}, None)
    assert erase(store, {AREA: "2"}, "another secret of theirs").rows == 0
    assert erase(store, {AREA: "2"}, SECRET).rows == 2
    assert len(shipped(address)) == 1


def test_a_key_is_erased_from_the_rows_of_all_bundles(tmp_path: Path, bundles: dict[str, Path]) -> None:
    for name, bundle in bundles.items():
        write_log(tmp_path / name, bundle, areas(1, 2), SECRET)
        ship(tmp_path / name, LogStore(str(tmp_path / "shipped")), never)
    store = LogStore(str(tmp_path / "shipped"))
    assert erase(store, {AREA: "2"}, SECRET) == Erased(rows=2, files=2, searched=4)
    assert erase(store, {AREA: "2"}, SECRET) == Erased(rows=0, files=0, searched=4)


def test_unfinished_files_of_killed_shippers_are_erased(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], [ROW | {"note": "Ada"}])
    ship(folder, LogStore(str(address)), never)
    (path,) = address.rglob("*.parquet")
    path.with_name(f".{path.name}.0123abcd.partial").write_bytes(path.read_bytes())
    assert erase(LogStore(str(address)), {AREA: "3"}, None).rows == 1
    assert b"Ada" not in contents(address)


class Slow(LogStore):
    """Storage in which much can happen before a file is written."""

    def write(self, name: str, content: bytes) -> None:
        time.sleep(0.03)
        super().write(name, content)


def ship_slowly(folder: Path, address: str) -> None:
    while True:
        ship(folder, Slow(address), never)


def test_two_shippers_leave_nothing_of_a_key_that_is_erased_meanwhile(tmp_path: Path, bundles: dict[str, Path]) -> None:
    """One shipper is killed and started again. All rows of other keys are shipped once."""
    folder, address, fork = tmp_path / "log", tmp_path / "shipped", multiprocessing.get_context("fork")
    write_log(folder, bundles["public"], areas(1))
    ship(folder, LogStore(str(address)), never)
    write_log(folder, bundles["public"], [[ROW | {AREA: 7.25, "note": "Ada"}, ROW | {AREA: i / 10}] for i in range(20)])
    key = key_hashes(["number"], [[7.25]])[0].encode()
    start = partial(fork.Process, target=ship_slowly, args=(folder, str(address)))
    shippers = [start(), start()]
    for each in shippers:
        each.start()
    while len(segments(folder)) > 15:
        time.sleep(0.01)
    assert erase(LogStore(str(address)), {AREA: "7.25"}, None).rows > 0
    shippers[0].kill()
    shippers[0].join()
    shippers[0] = start()
    shippers[0].start()
    while segments(folder):
        time.sleep(0.01)
    for each in shippers:
        each.kill()
        each.join()
    assert Counter(shipped(address)[f"record_{AREA}"]) == Counter([1.0, *(i / 10 for i in range(20))])
    for place in (folder, address):
        assert b"Ada" not in contents(place)
        assert key not in contents(place)


def test_a_killed_shipper_leaves_nothing_of_a_key_that_was_erased_while_it_wrote(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    """It was killed after the write and before it read the erasure. The next shipper repairs the file."""
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], areas(1))
    ship(folder, LogStore(str(address)), never)
    write_log(folder, bundles["public"], areas(7.25, 2))
    before = {path: path.read_bytes() for path in segments(folder)}
    ship(folder, LogStore(str(address)), never)
    found = {path: path.read_bytes() for path in address.rglob("*.parquet")}
    assert erase(LogStore(str(address)), {AREA: "7.25"}, None).rows == 1
    for path, content in {**before, **found}.items():  # as if it had written them only now
        path.write_bytes(content)
    ship(folder, LogStore(str(address)), never)
    assert sorted(shipped(address)[f"record_{AREA}"]) == [1, 2]
    assert segments(folder) == []


def test_a_damaged_file_is_shipped_again(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], areas(1))
    kept = {path: path.read_bytes() for path in segments(folder)}
    ship(folder, LogStore(str(address)), never)
    (file,) = address.rglob("*.parquet")
    for content in (b"", b"PAR1 and nothing else", file.read_bytes()[:-1]):
        for path, each in kept.items():
            path.write_bytes(each)
        file.write_bytes(content)
        assert ship(folder, LogStore(str(address)), never) == Shipped(1, 1)
        assert shipped(address)[f"record_{AREA}"].tolist() == [1]


def test_a_segment_of_another_shipper_is_left_out(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(1))
    with segments(folder)[0].open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ship(folder, store, never) == Shipped(0, 0)
    assert ship(folder, store, never) == Shipped(1, 1)


def test_a_request_after_the_erasure_of_its_key_is_shipped(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(2))
    ship(folder, store, never)
    assert erase(store, {AREA: "2"}, None).rows == 1
    write_log(folder, bundles["public"], areas(2))
    now = round(time.time())
    monkeypatch.setattr(time, "time", lambda: now + 3_600)
    monkeypatch.setattr(LogStore, "now", lambda _: datetime.fromtimestamp(now + 3_600, UTC))
    write_log(folder, bundles["public"], areas(2))
    ship(folder, store, never)
    assert shipped(tmp_path / "shipped")["time"].tolist() == [pd.Timestamp(now + 3_600, unit="s", tz="UTC")]


def test_rows_of_a_server_with_a_fast_clock_are_left_out(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of this server was shipped before. Its shipper compares their clock with the clock of the storage."""
    folder, store, hour, now = tmp_path / "log", LogStore(str(tmp_path / "shipped")), 3_600, round(time.time())
    write_log(tmp_path / "other", bundles["public"], areas(1))
    ship(tmp_path / "other", store, never)

    def at(hours: int, ahead: int) -> None:
        monkeypatch.setattr(time, "time", lambda: now + hours * hour + ahead * hour)
        monkeypatch.setattr(LogStore, "now", lambda _: datetime.fromtimestamp(now + hours * hour, UTC))

    at(0, ahead=5)
    write_log(folder, bundles["public"], areas(2))
    at(0, ahead=-5)
    erase(store, {AREA: "2"}, None)
    at(1, ahead=5)
    write_log(folder, bundles["public"], areas(2))
    ship(folder, store, never)
    times = shipped(tmp_path / "shipped").set_index(f"record_{AREA}")["time"]
    assert times[2.0] == pd.Timestamp(now + 6 * hour, unit="s", tz="UTC")


def test_rows_dated_after_the_present_are_left_out(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of their server was set back before they were shipped. Later rows are kept."""
    folder, store, now = tmp_path / "log", LogStore(str(tmp_path / "shipped")), round(time.time())
    write_log(folder, bundles["public"], areas(1))
    ship(folder, store, never)
    monkeypatch.setattr(time, "time", lambda: now + 1_000 * 86_400)
    write_log(folder, bundles["public"], areas(2))
    monkeypatch.undo()
    erase(store, {AREA: "2"}, None)
    monkeypatch.setattr(time, "time", lambda: now + 3_600)
    monkeypatch.setattr(LogStore, "now", lambda _: datetime.fromtimestamp(now + 3_600, UTC))
    write_log(folder, bundles["public"], areas(2))
    ship(folder, store, never)
    times = shipped(tmp_path / "shipped").set_index(f"record_{AREA}")["time"]
    assert times[2.0] == pd.Timestamp(now + 3_600, unit="s", tz="UTC")


def test_a_fast_clock_deletes_neither_days_nor_records(
    slipway: Callable[..., Result], tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], areas(1, 2))
    ship(folder, LogStore(str(address)), never)
    erase(LogStore(str(address)), {AREA: "2"}, None)
    before = {path: path.read_bytes() for path in address.rglob("*") if path.is_file()}
    later = datetime.now(UTC) + timedelta(days=1_000)
    monkeypatch.setattr("slipway.cli.terminal.datetime", SimpleNamespace(now=lambda _: later))
    result = slipway("ship-log", str(folder), str(address), "--keep-days", "3")
    assert result.code == 0, result
    assert before.items() <= {path: path.read_bytes() for path in address.rglob("*") if path.is_file()}.items()


def test_a_bundle_with_new_private_columns_is_erased_before_its_first_file(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    folder, store = tmp_path / "log", LogStore(str(tmp_path / "shipped"))
    write_log(folder, bundles["public"], areas(1))
    ship(folder, store, never)
    write_log(folder, bundles["private"], areas(1, 2), SECRET)
    assert erase(store, {AREA: "1"}, SECRET).rows == 1
    ship(folder, store, never)
    assert len(shipped(tmp_path / "shipped")) == 1


def test_an_address_without_a_log_is_not_erased(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing has no file of a prediction log; correct the address"):
        erase(LogStore(str(tmp_path / "nothing")), {AREA: "1"}, None)
    assert not (tmp_path / "nothing").exists()


def test_records_of_erasures_are_deleted_after_a_month(tmp_path: Path) -> None:
    store, now = LogStore(str(tmp_path)), datetime.now(UTC)
    record_erasure(store, ["0" * 16])
    delete_old_records(store, now + timedelta(days=KEEP_DAYS - 1))
    assert len(store.names_in(FOLDER)) == 1
    delete_old_records(store, now + timedelta(days=KEEP_DAYS + 1))
    assert store.names_in(FOLDER) == []


def test_a_damaged_record_of_an_erasure_is_one_sentence(tmp_path: Path) -> None:
    store = LogStore(str(tmp_path))
    store.write(f"{FOLDER}/x.json", b"{}")
    with pytest.raises(InputError, match=r"_erased/x\.json is not a record of an erasure; remove it"):
        Erasures(store).refresh()


def test_shippers_of_one_file_write_to_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second shipper would otherwise truncate the file that the first one renames."""
    store, names = LogStore(str(tmp_path)), list[str]()
    mv = store._files.mv
    monkeypatch.setattr(store._files, "mv", lambda partial, path: (names.append(partial), mv(partial, path)))
    for _ in range(2):
        store.write("day=2026-11-26/0.parquet", b"rows")
    assert len({*names}) == 2
    assert store.files() == ["day=2026-11-26/0.parquet"]


def test_foreign_files_do_not_stop_an_erasure(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], areas(1, 2))
    ship(folder, LogStore(str(address)), never)
    pd.DataFrame({"a": [1]}).to_parquet(address / "a.parquet")
    (address / "b.parquet").write_bytes(b"PAR1 and nothing else")
    (address / "_SUCCESS").write_bytes(b"")
    with pytest.raises(CheckFailed, match=r"1 rows were removed, but 2 files are not .*, such as .*/a\.parquet"):
        erase(LogStore(str(address)), {AREA: "2"}, None)
    for name in ("a.parquet", "b.parquet"):
        (address / name).unlink()
    assert shipped(address)[f"record_{AREA}"].tolist() == [1]


def test_a_file_without_usable_keys_does_not_stop_an_erasure(tmp_path: Path, bundles: dict[str, Path]) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    write_log(folder, bundles["public"], areas(1, 2, 2, 3))
    ship(folder, LogStore(str(address)), never)
    files = sorted(address.rglob("*.parquet"), key=lambda path: pq.read_table(path)[f"record_{AREA}"][0].as_py())
    table = pq.read_table(files[0])
    pq.write_table(table.drop_columns("key"), files[0])
    place, lists = table.column_names.index("key"), pa.array([[1]])
    pq.write_table(pq.read_table(files[1]).set_column(place, "key", lists), files[1])
    pq.write_table(pq.read_table(files[3]).set_column(place, "key", pa.array([None], pa.string())), files[3])
    with pytest.raises(CheckFailed, match="1 rows were removed, but 2 files are not"):
        erase(LogStore(str(address)), {AREA: "2"}, None)
    assert [len(pq.read_table(path)) for path in files] == [1, 1, 0, 1]  # a row without a key is another one


def test_a_day_that_expires_meanwhile_does_not_stop_an_erasure(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LogStore(str(tmp_path / "shipped"))
    write_log(tmp_path / "log", bundles["public"], areas(1))
    ship(tmp_path / "log", store, never)
    names = ["day=2001-01-01/bundle=1/0.parquet", *store.files()]
    monkeypatch.setattr(store, "files", lambda: names)
    assert erase(store, {AREA: "1"}, None).rows == 1


def test_a_name_that_leads_out_of_the_folder_is_refused() -> None:
    fsspec.filesystem("memory").pipe_file("/hostile/../../x.parquet", b"")
    with pytest.raises(
        InputError, match=r"memory://hostile has a file with the name '\.\./\.\./x\.parquet'; remove it"
    ):
        LogStore("memory://hostile").files()
    fsspec.filesystem("memory").rm_file("/hostile/../../x.parquet")


def read_labels(address: str) -> None:
    with fetched_labels(LabelSource(address), ()):
        pass


@pytest.mark.parametrize("use", [LogStore, BatchInput, read_labels])
def test_errors_do_not_show_the_password_of_an_address(use: Callable[[str], Any]) -> None:
    with pytest.raises(InputError) as error:
        use("ftp://ada:ge@heim@127.0.0.1:9/logs?signature=geheim")
    assert "ftp://***@127.0.0.1:9/logs?***" in str(error.value)
    assert "heim" not in str(error.value)


@pytest.mark.parametrize(("secret", "words"), [("", "set SLIPWAY_PREDICTION_LOG_SECRET"), ("short", "is too short")])
def test_an_empty_or_short_secret_finds_nothing_and_is_an_error(
    tmp_path: Path, bundles: dict[str, Path], secret: str, words: str
) -> None:
    """A workflow sets a secret that does not exist to an empty text."""
    write_log(tmp_path / "log", bundles["private"], areas(1), SECRET)
    store = LogStore(str(tmp_path / "shipped"))
    ship(tmp_path / "log", store, never)
    with pytest.raises(InputError, match=words):
        erase(store, {AREA: "1"}, secret)


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ({AREA: "large"}, InputError, "is not a number"),
        ({AREA: "nan"}, InputError, "'nan' of .* is not a number"),
        ({AREA: "1e400"}, InputError, "'1e400' of .* is not a number"),
        ({"rooms": "1"}, CheckFailed, "2 files identify rows by other columns than rooms"),
    ],
)
def test_a_key_that_does_not_fit_fails_with_one_sentence(
    tmp_path: Path, bundles: dict[str, Path], key: dict[str, str], error: type[Exception], words: str
) -> None:
    write_log(tmp_path / "log", bundles["public"], areas(1, 2))
    store = LogStore(str(tmp_path / "shipped"))
    ship(tmp_path / "log", store, never)
    with pytest.raises(error, match=words):
        erase(store, key, None)


# The verbs


def test_the_verbs_ship_and_erase(
    slipway: Callable[..., Result], tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run outside of a repository, as in the image of a shipper."""
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log", bundles["public"], areas(1, 2))
    result = slipway("ship-log", "log", str(tmp_path / "shipped"), "--keep-days", "30")
    assert (result.code, "2 rows in 2 segments shipped" in result.out) == (0, True), result
    result = slipway("erase-log", str(tmp_path / "shipped"), f"{AREA}=2")
    assert (result.code, "1 rows removed from 1 of 2 files" in result.out) == (0, True), result
    result = slipway("erase-log", str(tmp_path / "shipped"), AREA)
    assert (result.code, "Write the key as COLUMN=VALUE" in result.err) == (2, True), result


@pytest.mark.parametrize("text", ["1", "1.0", "true", "True"])
def test_a_boolean_key_is_erased(tmp_path: Path, bundles: dict[str, Path], text: str) -> None:
    write_log(tmp_path / "log", bundles["public"], areas(0, 1))
    store = LogStore(str(tmp_path / "shipped"))
    ship(tmp_path / "log", store, never)
    assert erase(store, {AREA: text}, None).rows == 1
    assert shipped(tmp_path / "shipped")[f"record_{AREA}"].tolist() == [0]


@pytest.mark.parametrize("pause", ["0", "-1", "nan", "inf", "1e300"])
def test_an_impossible_pause_of_the_shipper_is_one_sentence(
    slipway: Callable[..., Result], tmp_path: Path, pause: str
) -> None:
    result = slipway("ship-log", str(tmp_path), str(tmp_path / "shipped"), "--every", pause)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "must be more than 0 and at most 86,400 seconds" in result.err


def test_a_folder_that_does_not_exist_is_not_shipped(slipway: Callable[..., Result], tmp_path: Path) -> None:
    result = slipway("ship-log", str(tmp_path / "nothing"), str(tmp_path / "shipped"))
    assert (result.code, "nothing is not a folder; name the one" in result.err) == (2, True)


def test_storage_without_its_package_fails_with_one_sentence(slipway: Callable[..., Result], tmp_path: Path) -> None:
    result = slipway("ship-log", str(tmp_path), "nosuch://bucket")
    assert result.code == 2
    assert "The storage nosuch://bucket cannot be used" in result.err


@pytest.fixture
def shipper(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `ship-log` as the image does: without the model, git or a repository."""
    shutil.copytree(ROOT / "src/slipway", tmp_path / "app/slipway")
    environment = {"PYTHONPATH": str(tmp_path / "app"), "PATH": "", "HOME": str(tmp_path)}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "slipway", "ship-log", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def test_the_shipper_retries_and_ships_the_last_segments_after_sigterm(
    shipper: Callable[..., subprocess.Popen[str]], tmp_path: Path, bundles: dict[str, Path]
) -> None:
    folder, address = tmp_path / "log", tmp_path / "shipped"
    address.write_text("a file, so that no folder can be written")
    write_log(folder, bundles["public"], areas(1))
    with shipper("--every", "0.05", str(folder), str(address)) as process:
        assert process.stdout
        assert "cannot be used" in process.stdout.readline()
        assert len(segments(folder)) == 1
        address.unlink()
        while "1 rows in 1 segments shipped" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        write_log(folder, bundles["public"], areas(2, 3))
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 0
    assert segments(folder) == []
    assert sorted(shipped(address)[f"record_{AREA}"]) == [1, 2, 3]


WAITING = """
import signal
from slipway.cli.prediction_log import StopSignal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
for _ in range(5_000):
    StopSignal(0.0001).wait()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


def test_a_signal_at_any_moment_of_a_pause_does_not_stop_the_process_forever() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        ends = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ends:
            process.send_signal(signal.SIGTERM)
        if process.poll() is None:
            process.kill()
        assert process.wait() == 0


def test_the_shipper_fails_if_the_last_segments_cannot_be_shipped(
    shipper: Callable[..., subprocess.Popen[str]], tmp_path: Path, bundles: dict[str, Path]
) -> None:
    write_log(tmp_path / "log", bundles["public"], areas(1))
    (tmp_path / "shipped").write_text("")
    with shipper(str(tmp_path / "log"), str(tmp_path / "shipped")) as process:
        assert process.wait(timeout=60) == 2
    assert len(segments(tmp_path / "log")) == 1

"""Labels that arrive late are joined with the prediction log, and give the live performance and the skew."""

import gzip
import json
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest
from pandera.engines.pandas_engine import DateTime

from slipway.bundle import SCHEMA, load_bundle
from slipway.config import Live as LiveSection
from slipway.config import Params, load_params
from slipway.errors import CheckFailed, InputError
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.integrations.ports import free_port
from slipway.monitoring import join_log
from slipway.monitoring.erase_log import erase
from slipway.monitoring.join_file import MAX_LABEL
from slipway.monitoring.join_log import Live
from slipway.monitoring.joined_rows import deliver
from slipway.monitoring.labels import collect, key_ids, read_labels, request_ids
from slipway.monitoring.live_performance import MAX_SLICES, UNKNOWN, Collected, maturity, performance
from slipway.monitoring.live_text import sentences
from slipway.monitoring.ship_log import ship
from slipway.pipeline.row_ids import hash_rows
from slipway.serving.log_segments import METADATA_KEY
from slipway.serving.predict import PredictionHandler
from slipway.serving.prediction_log import PredictionLog
from slipway.serving.records import Records
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.serving import arrays, odd
from tests.slipway.serving.odd import AREA, ROW, SOLD, expected
from tests.slipway.serving.test_prediction_log import marked, predict

SECRET = "a secret of the team"
DAY = 86_400
START = 20_000  # days since 1970
TODAY = date(2026, 1, 1)


def model_of_odd() -> Any:
    """Return the model of the bundle of `odd`, as a fork would have written it."""
    schema = pa.DataFrameSchema(
        {
            AREA: pa.Column(float),
            "rooms": pa.Column(float, nullable=True),
            "kind": pa.Column(str, nullable=True),
            "note": pa.Column(str),
            SOLD: pa.Column(DateTime(to_datetime_kwargs={"format": "%Y-%m-%d"}), nullable=True),
            "price": pa.Column(float),
        }
    )
    return SimpleNamespace(
        SCHEMA=schema, KEY=(AREA,), TIME=None, TARGET="price", FEATURES=("kind", AREA, "rooms", "note", SOLD)
    )


@pytest.fixture
def params() -> Params:
    found = load_params(ROOT / "params.yaml")
    evaluate = found.evaluate.model_copy(update={"slices": {"kind": "values", "rooms": [2.5]}})
    return found.model_copy(update={"evaluate": evaluate})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "odd").mkdir()
    return marked(odd.write_bundle(tmp_path / "odd"), tmp_path)


def log_and_ship(
    bundle: Path,
    address: Path,
    rows: Sequence[tuple[int, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    secret: str | None = None,
    kind: type[ServedModel] = ServedModel,
    prefix: str = "r-",
) -> None:
    """Log one request for each row, at a number of days after START. The id of a request ends with its position."""
    served = kind(bundle, "odd", 1000)
    settings = Settings.model_validate({"prediction_log_secret": secret})
    log = PredictionLog(address.parent / "segments", served, settings)
    handler = PredictionHandler(served, settings, log=log)
    with monkeypatch.context() as patch, log:
        for i, (day, row) in enumerate(rows):
            patch.setattr(time, "time", lambda day=day: (START + day) * DAY + 3600.0)
            assert predict(handler, row, request_id=f"{prefix}{i}") == 200
    ship(address.parent / "segments", LogStore(str(address)), pytest.fail)


def date_of(day: int) -> str:
    return str(np.datetime64(START + day, "D"))


Join = Callable[..., Live]


@pytest.fixture
def join(params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Join:
    """Log rows, write labels, and join them."""

    def run(rows: Sequence[tuple[int, dict[str, Any]]], labels: pd.DataFrame, **more: Any) -> Live:
        path = more.pop("bundle", bundle)
        settings = more.pop("params", params)
        log_and_ship(
            path or bundle, tmp_path / "shipped", rows, monkeypatch, more.get("secret"), more.pop("kind", ServedModel)
        )
        labels.to_csv(tmp_path / "labels.csv", index=False)
        given: dict[str, Any] = {"bundle": load_bundle(path) if path else None} | more
        store = LogStore(str(tmp_path / "shipped"))
        return join_log.run(settings, model_of_odd(), TODAY, store, LabelSource(str(tmp_path / "labels.csv")), **given)

    return run


def area(value: float, **more: Any) -> dict[str, Any]:
    return ROW | {AREA: value} | more


def labels_of(*rows: tuple[float, float, int]) -> pd.DataFrame:
    """Return labels by KEY: area, price, and the day on which it was known."""
    return pd.DataFrame({AREA: a, "price": price, "known_at": date_of(day)} for a, price, day in rows)


def test_labels_with_a_repeated_column_are_one_sentence(join: Join) -> None:
    labels = labels_of((1, 1, 1))
    with pytest.raises(InputError, match="The labels have the column 'price' several times; remove or rename one"):
        join([(0, area(1))], pd.concat([labels, labels[["price"]]], axis=1))


def test_labels_by_request_id_and_by_key_are_not_mixed(tmp_path: Path) -> None:
    """The labels of one of the two kinds would silently match nothing."""
    tables = {"a.csv": labels_of((1, 1, 1)), "b.csv": labels_of((1, 1, 1)).assign(request_id="r-0")}
    for name, table in tables.items():
        table.to_csv(tmp_path / name, index=False)
    files = {name: tmp_path / name for name in tables}
    with pytest.raises(InputError, match=r"^b\.csv has the column request_id, and a\.csv lacks it; identify .*KEY\.$"):
        list(read_labels(files))


def test_request_ids_can_be_bytes() -> None:
    chunk = pd.DataFrame({"request_id": [b"r-0", b"\xff"], "price": [1, 1], "known_at": [date_of(0)] * 2})
    found = collect([chunk], model_of_odd(), False, request_ids, TODAY)
    assert (found.counts.labels, found.counts.invalid) == (2, 1)
    assert found.ids.tolist() == request_ids(pd.DataFrame({"request_id": ["r-0"], "row": [0]})).tolist()


def test_a_full_disk_is_one_sentence_and_keeps_the_last_result(join: Join, params: Params) -> None:
    rows, labels = [(0, area(1))], labels_of((1, 1, 1))
    join(rows, labels)
    before = {path: path.read_bytes() for path in Path("build").rglob("*") if path.is_file()}
    store, limits = LogStore("shipped"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))  # less than the joined rows
    try:
        with pytest.raises(InputError, match=r"^File too large \(build/joined\); free some space"):
            join_log.run(params, model_of_odd(), TODAY, store, LabelSource("labels.csv"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in Path("build").rglob("*") if path.is_file()} == before


def test_the_leftover_of_a_killed_join_is_removed(join: Join) -> None:
    leftover = Path("build/.joined.0.partial/joined")
    leftover.mkdir(parents=True)
    (leftover / "0.parquet").touch()
    join([(0, area(1))], labels_of((1, 1, 1)))
    assert {path.name for path in Path("build").iterdir()} == {"joined", "live.json"}


def test_the_truth_of_each_request_is_found_by_its_key(join: Join, tmp_path: Path) -> None:
    off = expected(area(2)) + 5
    live = join([(0, area(1)), (1, area(2)), (1, area(3))], labels_of((1, expected(area(1)), 4), (2, off, 1)))
    assert (live.counts.rows, live.counts.joined, live.counts.missing) == (3, 2, 1)
    (found,) = live.bundles
    assert (found.whole.rows, found.whole.known, found.whole.loss) == (3, 2, 2.5)
    assert [(part.value, part.rows, part.known, part.loss) for part in found.days] == [
        (date_of(0), 1, 1, 0.0),
        (date_of(1), 2, 1, 5.0),
    ]
    joined = pd.read_parquet(tmp_path / "build/joined").set_index(f"record_{AREA}").sort_index()
    assert joined["truth"].tolist()[:2] == [expected(area(1)), off]
    assert joined["truth"].isna().tolist() == [False, False, True]
    assert [str(each) for each in joined["known_at"]][:2] == [date_of(4), date_of(1)]
    assert Live.read(join_log.LIVE) == live
    assert not live.alarm


def test_the_loss_of_the_model_is_computed_from_the_logged_records(
    params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:
        return abs(truth - answers[:, 0]) * rows["rooms"]

    log_and_ship(bundle, tmp_path / "shipped", [(0, area(1, rooms=3)), (1, area(2))], monkeypatch)
    labels_of((1, expected(area(1, rooms=3)) + 5, 4)).to_csv(tmp_path / "labels.csv", index=False)
    own = params.model_copy(update={"task": params.task.model_copy(update={"loss": "own_by_room"})})
    model, store = model_of_odd(), LogStore(str(tmp_path / "shipped"))
    model.loss = loss
    live = join_log.run(own, model, TODAY, store, LabelSource(str(tmp_path / "labels.csv")))
    assert (live.loss, live.bundles[0].whole.known, live.bundles[0].whole.loss) == ("own_by_room", 1, 15.0)


def test_labels_can_be_joined_by_request(join: Join) -> None:
    labels = pd.DataFrame({"request_id": ["r-1", "r-7"], "price": [0.0, 1.0], "known_at": date_of(2)})
    live = join([(0, area(1)), (0, area(1))], labels)
    assert (live.counts.joined, live.counts.missing, live.counts.labels_unknown) == (1, 1, 1)
    assert live.bundles[0].whole.loss == expected(area(1))


def test_a_request_id_that_a_client_repeats_gets_no_truth(
    params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can send the id of the request of another client, even on another day."""
    labels = {"request_id": ["r-0", "r-1", "r-2"], "price": [1.0, 2.0, 3.0], "known_at": date_of(4)}
    pd.DataFrame(labels).to_csv(tmp_path / "labels.csv", index=False)
    store = LogStore(str(tmp_path / "shipped"))
    log_and_ship(bundle, tmp_path / "shipped", [(0, area(1)), (0, area(2)), (0, area(3))], monkeypatch)
    log_and_ship(bundle, tmp_path / "shipped", [(1, area(7))], monkeypatch)  # its id is r-0
    live = join_log.run(params, model_of_odd(), TODAY, store, LabelSource("labels.csv"))
    assert (live.counts.joined, live.counts.repeated_request, live.counts.missing) == (2, 2, 0)
    joined = pd.read_parquet(join_log.JOINED).set_index("request_id")["truth"]
    assert joined["r-0"].isna().all()
    assert joined[["r-1", "r-2"]].tolist() == [2.0, 3.0]


def test_request_ids_may_be_whole_numbers(
    params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(0, area(1)), (0, area(2))]
    log_and_ship(bundle, tmp_path / "shipped", rows, monkeypatch, prefix="")
    labels = {"request_id": [1, None], "price": [1.0, 1.0], "known_at": date_of(4)}
    pd.DataFrame(labels).to_parquet(tmp_path / "labels.parquet")
    source = LabelSource("labels.parquet")
    counts = join_log.run(params, model_of_odd(), TODAY, LogStore("shipped"), source).counts
    assert (counts.joined, counts.labels_invalid) == (1, 1)


@pytest.mark.parametrize("column", ["price", "row", AREA])
@pytest.mark.parametrize(
    "values",
    [
        arrow.array([1_735_689_600, None], arrow.timestamp("s")),
        arrow.array([1_735_689_600, None], arrow.timestamp("ns", "UTC")),
        arrow.array([1, None], arrow.duration("us")),
        arrow.array([[1.0], None]),
        arrow.array(["one", ""]),
    ],
)
def test_values_of_other_types_than_numbers_are_invalid(column: str, values: Any) -> None:
    columns: dict[str, Any] = {"price": [1.0, 2.0], "known_at": ["2025-01-01"] * 2, column: values}
    columns |= {} if column == AREA else {"request_id": ["a", "b"]}
    table = arrow.table(columns).to_pandas()
    found = collect([table], model_of_odd(), False, lambda rows: np.arange(len(rows), dtype=np.uint64), TODAY)
    assert (found.counts.invalid, len(found.ids)) == (2, 0)


@pytest.mark.parametrize(
    ("dtype", "labels", "classes"),
    [
        (str, [1.0, None, 0.0], ("1", "0")),  # whole numbers with a missing class, as pandas reads them from Parquet
        (int, [1.0, None, 0.0], ("1", "0")),
        (int, ["1", "one", "0.0"], ("1", "0")),
        (float, ["1", "", 0], ("1.0", "0.0")),
        (bool, ["true", "", "False"], ("True", "False")),
        (bool, [1, 2, 0], ("True", "False")),
        (bool, [True, None, False], ("True", "False")),
    ],
)
def test_classes_have_the_names_that_bundles_give_them(dtype: Any, labels: list[Any], classes: Any) -> None:
    model = model_of_odd()
    model.SCHEMA = model.SCHEMA.update_column("price", dtype=dtype)
    rows = pd.DataFrame({"request_id": ["a", "b", "c"], "price": labels, "known_at": date_of(1)})
    found = collect([rows.replace("", None)], model, True, request_ids, TODAY)
    assert (found.classes, found.counts.invalid) == (classes, 1)


@pytest.mark.parametrize("labels", [["true", "0"], [1, 0], [True, False]])
def test_a_key_can_be_a_boolean(labels: list[Any]) -> None:
    model = model_of_odd()
    model.SCHEMA = model.SCHEMA.update_column(AREA, dtype=bool)
    rows = pd.DataFrame({AREA: labels, "price": [1.0, 2.0], "known_at": date_of(1)})
    found = collect([rows], model, False, lambda rows: key_ids(rows, model, b""), TODAY)
    assert sorted(found.ids) == sorted(hash_rows([pd.Series([True, False])]))


def test_a_label_from_the_future_does_not_make_young_days_old(join: Join) -> None:
    rows = [(day, area(day / 4)) for day in range(20)]
    labels = labels_of(*((day / 4, expected(area(day / 4)), day + 7) for day in range(10)))
    future = pd.DataFrame({AREA: [0.0], "price": [1.0], "known_at": ["2100-01-01"]})
    live = join(rows, pd.concat([labels, future]))
    assert live.counts.labels_invalid == 1
    assert [part.young for part in live.bundles[0].days] == [day > 9 for day in range(20)]


def test_a_loss_that_is_not_defined_is_left_out(join: Join, params: Params) -> None:
    """A percentage of a truth of 0 is infinite."""
    percentage = params.task.model_copy(update={"loss": "mean_absolute_percentage_error"})
    labels = labels_of((1, 0.0, 1), (2, expected(area(2)) * 2, 1))
    live = join([(0, area(1)), (0, area(2))], labels, params=params.model_copy(update={"task": percentage}))
    assert (live.counts.joined, live.bundles[0].whole.known, live.bundles[0].whole.loss) == (2, 1, 0.5)
    assert Live.read(join_log.LIVE) == live


def test_rows_of_a_bundle_of_another_task_get_no_truth(join: Join, params: Params) -> None:
    """The log can be older than the task. Its bundle need not exist any more."""
    task = params.task.model_copy(update={"kind": "classification", "loss": "log_loss"})
    live = join([(0, area(1))], labels_of((1, 1.0, 1)), params=params.model_copy(update={"task": task}), bundle=None)
    assert (live.counts.joined, live.counts.other_class) == (0, 1)
    assert live.skew[0].unchecked == "it is not the champion"


def test_each_row_of_a_request_has_its_label(
    params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_and_ship(bundle, tmp_path / "shipped", [(0, [area(1), area(2)])], monkeypatch)  # type: ignore[list-item]
    labels = {"request_id": "r-0", "row": [1, 0], "price": [expected(area(2)), expected(area(1))]}
    pd.DataFrame(labels | {"known_at": date_of(0)}).to_parquet(tmp_path / "labels.parquet")
    source = LabelSource(str(tmp_path / "labels.parquet"))
    live = join_log.run(params, model_of_odd(), TODAY, LogStore(str(tmp_path / "shipped")), source)
    assert (live.counts.joined, live.bundles[0].whole.loss) == (2, 0.0)


def test_each_kind_of_label_is_counted(join: Join) -> None:
    truth = [expected(area(i)) for i in range(9)]
    labels = labels_of(
        (0, truth[0], 3),
        (1, truth[1], 3),
        (1, truth[1], 3),  # repeated
        (2, truth[2] + 9, 3),
        (2, truth[2], 5),  # corrected
        (3, truth[3], 3),
        (3, truth[3] + 9, 3),  # contradictory
        (4, truth[4], -1),  # known before the request
        (8, 1.0, 3),  # not in the log
    )
    invalid = pd.DataFrame(
        {
            AREA: [5, 6, None, "wide", 6],
            "price": ["large", 1.0, 1.0, 1.0, 1.0],
            "known_at": [date_of(3), "soon", date_of(3), date_of(3), TODAY + timedelta(days=2)],
        }
    )
    live = join([(0, area(i)) for i in range(7)], pd.concat([labels, invalid]))
    assert live.counts.model_dump() == {
        "rows": 7,
        "joined": 3,
        "missing": 2,
        "contradictory": 1,
        "known_before": 1,
        "repeated_request": 0,
        "other_class": 0,
        "labels": 14,
        "labels_invalid": 5,
        "labels_repeated": 3,
        "labels_corrected": 1,
        "labels_unknown": 1,
    }
    assert live.bundles[0].whole.loss == 0.0


def test_a_private_key_is_joined_with_the_secret(join: Join, tmp_path: Path) -> None:
    private = marked(tmp_path / "odd", tmp_path / "private", **{AREA: "drop"})
    labels = labels_of((1, expected(area(1)), 1))
    live = join([(0, area(1))], labels, bundle=private, secret=SECRET)
    assert live.counts.joined == 1
    assert live.skew[0].unchecked == f"the column {AREA} is private"
    shutil.rmtree(tmp_path / "shipped")
    assert join([(0, area(1))], labels, bundle=private, secret=SECRET + "!").counts.joined == 1
    with pytest.raises(InputError, match="set SLIPWAY_PREDICTION_LOG_SECRET"):
        join_log.run(
            load_params(ROOT / "params.yaml"),
            model_of_odd(),
            TODAY,
            LogStore(str(tmp_path / "shipped")),
            LabelSource(str(tmp_path / "labels.csv")),
        )


def test_labels_are_read_in_the_formats_of_deliveries(join: Join, params: Params, tmp_path: Path) -> None:
    """Compressed files and Parquet next to CSV, from any storage. Lines with another number of columns are invalid."""
    rows = [(0, area(1)), (0, area(2)), (0, area(3))]
    join(rows, labels_of((1, 1.0, 1)))
    folder = "memory://labels"
    first = labels_of((1, expected(area(1)), 1)).to_csv(index=False) + "1,2,3,4,5\n"
    fsspec.filesystem("memory").pipe_file("/labels/a.csv.gz", gzip.compress(first.encode()))
    labels_of((2, expected(area(2)) + 3, 1)).to_parquet(tmp_path / "b.parquet")
    fsspec.filesystem("memory").pipe_file("/labels/new/b.parquet", (tmp_path / "b.parquet").read_bytes())
    fsspec.filesystem("memory").pipe_file("/labels/_SUCCESS", b"")
    live = join_log.run(params, model_of_odd(), TODAY, LogStore(str(tmp_path / "shipped")), LabelSource(folder))
    assert (live.counts.labels, live.counts.labels_invalid, live.counts.joined) == (3, 1, 2)
    assert live.bundles[0].whole.loss == 1.5
    fsspec.filesystem("memory").pipe_file("/labels/c.parquet", b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"labels/c\.parquet is truncated or damaged"):
        join_log.run(params, model_of_odd(), TODAY, LogStore(str(tmp_path / "shipped")), LabelSource(folder))


# Live performance


def test_slices_have_their_own_loss(join: Join) -> None:
    rows = [(0, area(1, kind="a", rooms=1)), (0, area(2, kind="b", rooms=3)), (0, area(3, kind="b", rooms=3))]
    labels = labels_of(*((row[AREA], expected(row) + row[AREA], 1) for _, row in rows))
    (found,) = join(rows, labels).bundles
    assert {(part.column, part.value): (part.rows, part.loss) for part in found.slices} == {
        ("kind", "a"): (1, 1.0),
        ("kind", "b"): (2, 2.5),
        ("rooms", "under 2.5"): (1, 1.0),
        ("rooms", "2.5 or more"): (2, 2.5),
    }


def collected(losses: np.ndarray, days: np.ndarray, delays: np.ndarray) -> Collected:
    rows = Collected()
    for part in np.array_split(np.arange(len(losses)), 3):
        slices = pd.DataFrame({"wall": np.where(part % 2, "brick", "wood")}, dtype="category")
        rows.add(losses[part], days[part].astype(np.int32), delays[part].astype(np.int32), slices)
    return rows


def test_the_interval_contains_the_true_loss_as_often_as_the_confidence() -> None:
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(30), 20)
    inside = 0
    for _ in range(300):
        losses = 1.0 + random.normal(0, 0.3, 30)[days] + random.normal(0, 1, len(days))  # days are correlated
        found = performance("b", collected(losses, days, np.zeros(len(days))), (), 0, 0.95)
        assert found.whole.interval is not None
        inside += found.whole.interval[0] <= 1.0 <= found.whole.interval[1]
    assert 0.91 <= inside / 300 <= 0.985


def test_the_maturity_counts_only_rows_that_are_old_enough() -> None:
    days = np.array([0, 0, 0, 0, 8, 8, 9, 10])
    delays = np.array([0, 3, 8, UNKNOWN, 1, UNKNOWN, UNKNOWN, 0])
    curve = {each.days: (each.rows, each.share) for each in maturity(days, delays, 10)}
    assert curve == {0: (8, 2 / 8), 1: (7, 2 / 7), 2: (6, 2 / 6), 3: (4, 2 / 4), 7: (4, 2 / 4)}


def test_a_day_is_young_while_truths_are_still_to_come(join: Join) -> None:
    """Each truth arrives seven days after its request."""
    rows = [(day, area(day / 4)) for day in range(20)]
    labels = labels_of(*((day / 4, expected(area(day / 4)), day + 7) for day in range(10)))
    live = join(rows, labels)
    young = {part.value: part.young for part in live.bundles[0].days}
    assert young == {date_of(day): day > 9 for day in range(20)}
    assert {each.days: each.share for each in live.maturity}[3] == 0
    assert {each.days: each.share for each in live.maturity}[7] == 1


# Joined rows


def test_joined_rows_are_copied_and_erased_rows_leave_the_copy(join: Join, tmp_path: Path) -> None:
    copy = LogStore(str(tmp_path / "joined"))
    copy.write("day=2001-01-01/bundle=b/0-00000000.parquet", b"expired")
    copy.write("other/file.parquet", b"of another program")
    rows = [(0, area(1)), (1, area(2))]
    labels = labels_of((1, 5.0, 1), (2, 6.0, 2))
    join(rows, labels, to=copy)
    assert [pd.read_parquet(tmp_path / "joined" / f"day={date_of(day)}")["truth"].tolist() for day in (0, 1)] == [
        [5.0],
        [6.0],
    ]
    assert sorted(copy.folders()) == [f"day={date_of(0)}", f"day={date_of(1)}", "other"]
    log = LogStore(str(tmp_path / "shipped"))
    erase(log, {AREA: "1"}, None)
    join([], labels, to=copy)
    assert pd.read_parquet(tmp_path / "joined" / f"day={date_of(0)}").empty
    for place in ("shipped", "shipped/joined", ""):
        with pytest.raises(InputError, match=r"^The address .* of the joined rows is that of the log"):
            join([], labels, to=LogStore(str(tmp_path / place)))
    assert log.files()
    join([], labels, to=LogStore(str(tmp_path / "shipped-joined")))


def test_only_the_newest_request_of_a_key_is_delivered(join: Join, tmp_path: Path) -> None:
    rows = [(0, area(1)), (1, area(1, rooms=9)), (1, area(2)), (2, area(2, rooms=8)), (2, area(3)), (4, area(4))]
    join(rows, labels_of((1, 5.0, 4), (2, 6.0, 4), (4, 7.0, 4)))
    source, names = LogStore(str(tmp_path / "source")), LogStore(str(tmp_path / "shipped")).files()
    first, last = (date.fromisoformat(date_of(day)) for day in (0, 2))
    assert deliver(join_log.JOINED, names, (first, last), model_of_odd(), "r-", source) == f"r-{last}.parquet"
    delivered = pd.read_parquet(tmp_path / f"source/r-{date_of(2)}.parquet").sort_values(AREA)
    assert [*zip(delivered[AREA], delivered["rooms"], delivered["price"], strict=True)] == [(1, 9, 5.0), (2, 8, 6.0)]
    assert list(delivered.columns) == list(model_of_odd().SCHEMA.columns)


def test_requests_with_private_columns_are_not_delivered(join: Join, tmp_path: Path) -> None:
    private = marked(tmp_path / "odd", tmp_path / "private", note="hash", rooms="drop")
    join([(0, area(1))], labels_of((1, 5.0, 1)), bundle=private, secret=SECRET)
    source, day = LogStore(str(tmp_path / "source")), date.fromisoformat(date_of(0))
    with pytest.raises(InputError, match=r"cannot be delivered, because rooms is not in the log"):
        deliver(join_log.JOINED, LogStore("shipped").files(), (day, day), model_of_odd(), "r-", source)
    assert not source.files()


# Training-serving skew


class AlteredRecords(Records):
    """Preprocessing that doubles all numbers of single records."""

    def _single(self, values: list[Any]) -> Any:
        tensors = super()._single(values)
        self._numbers *= 2
        return tensors


class Altered(ServedModel):
    """A model whose preprocessing is altered after the check of the golden rows."""

    reader: type[Records] = AlteredRecords

    def __init__(self, path: Path, name: str, max_records: int) -> None:
        super().__init__(path, name, max_records)
        self.records = self.reader(self.schema, max_records)
        self.records.keeps_values = True


def test_a_server_with_altered_preprocessing_is_an_alarm(join: Join) -> None:
    live = join([(0, area(1)), (0, area(2))], labels_of((1, 1.0, 1)), kind=Altered)
    (skew,) = live.skew
    assert live.alarm
    assert (skew.rows, skew.different, skew.example) == (2, 2, "r-0")
    assert any(
        each.startswith("ALARM: 2 of 2 answers")
        and each.endswith(f"for the first time on {date_of(0)}, in the answer to request r-0")
        for each in sentences(live)
    )


class AlteredForOne(AlteredRecords):
    """Preprocessing that alters the records of one slice only."""

    def _single(self, values: list[Any]) -> Any:
        alter = super() if values[3] == "b" else super(AlteredRecords, self)
        return alter._single(values)


def test_an_alarm_of_skew_names_the_bundle_the_day_and_the_slice(join: Join) -> None:
    kind = type("AlteredModel", (Altered,), {"reader": AlteredForOne})
    rows = [(i, area(i + 1.0, kind="ab"[i % 2], rooms=1)) for i in range(6)]
    live = join(rows, labels_of((1, 1.0, 9)), kind=kind)
    (sentence,) = [each for each in sentences(live) if each.startswith("ALARM: ")]
    assert sentence.startswith(f"ALARM: 3 of 6 answers of bundle {live.skew[0].bundle[:12]} differ")
    assert sentence.endswith(
        f" on {date_of(1)}, in the answer to request r-1; the worst slice is kind b (3 of 3 answers)"
    )


def test_logged_answers_are_those_of_the_pipeline(join: Join) -> None:
    other = {AREA: 4.5, "note": "ü"}
    live = join([(0, ROW), (0, other)], labels_of((3, 1.0, 1)))
    (skew,) = live.skew
    assert (skew.rows, skew.different, skew.unchecked) == (2, 0, None)
    assert not live.alarm


def test_answers_to_vectors_and_images_are_scored_again(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "arrays").mkdir()
    bundle = marked(arrays.write_bundle(tmp_path / "arrays"), tmp_path / "marked")
    log_and_ship(bundle, tmp_path / "shipped", [(0, arrays.ROW), (0, arrays.ROW | {"other": None})], monkeypatch)
    labels = {"request_id": ["r-0"], "price": [1.0], "known_at": [date_of(1)]}
    pd.DataFrame(labels).to_csv(tmp_path / "labels.csv", index=False)
    store, source = LogStore(str(tmp_path / "shipped")), LabelSource("labels.csv")
    live = join_log.run(params, model_of_odd(), TODAY, store, source, bundle=load_bundle(bundle))
    (skew,) = live.skew
    assert (skew.rows, skew.different, skew.unchecked) == (2, 0, None)


def test_rows_of_another_bundle_are_not_scored_again(join: Join, tmp_path: Path) -> None:
    other = marked(tmp_path / "odd", tmp_path / "other")
    schema = json.loads((other / SCHEMA).read_text())
    (other / SCHEMA).write_text(json.dumps(schema, indent=3))
    live = join([(0, ROW)], labels_of((3, 1.0, 1)), bundle=tmp_path / "bundle")
    assert live.skew[0].unchecked is None
    shutil.rmtree(tmp_path / "shipped")
    assert load_bundle(other).hash != load_bundle(tmp_path / "bundle").hash


# Errors


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"price": [1.0], "known_at": ["2026-01-01"]}, "The labels lack the column"),
        ({"request_id": ["r"], "known_at": ["2026-01-01"]}, "The labels lack the column 'price'"),
        ({"request_id": ["r"], "price": [1.0]}, "The labels lack the column 'known_at'"),
    ],
)
def test_wrong_labels_fail_with_one_sentence(join: Join, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        join([(0, ROW)], pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("checks", "truths"),
    [
        ([], [-1e308, 0, 1, 10, 1e308]),
        ([pa.Check.ge(0)], [0, 1, 10, 1e308]),
        ([pa.Check.gt(0), pa.Check.lt(10)], [1]),
        ([pa.Check.in_range(1, 10)], [1, 10]),
    ],
)
def test_a_truth_outside_of_the_range_of_the_schema_is_invalid(checks: list[pa.Check], truths: list[float]) -> None:
    """A delivery with such a row would quarantine it, and a single huge truth would be an alarm."""
    model = model_of_odd()
    model.SCHEMA = model.SCHEMA.update_column("price", checks=checks)
    given = pd.Series([-1e308, 0, 1, 10, 1e308])
    rows = pd.DataFrame({"request_id": list("abcde"), "price": given, "known_at": "2025-01-01"})
    found = collect([rows], model, False, request_ids, TODAY)
    assert (sorted(found.truth), found.counts.invalid) == (truths, 5 - len(truths))


def test_a_missing_log_or_missing_labels_fail_with_one_sentence(
    params: Params, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LogStore(str(tmp_path / "shipped"))
    with pytest.raises(InputError, match="has no file of a prediction log"):
        join_log.run(params, model_of_odd(), TODAY, store, LabelSource("labels"))
    log_and_ship(bundle, tmp_path / "shipped", [(0, ROW)], monkeypatch)
    with pytest.raises(InputError, match=r"has no \.csv or \.parquet file"):
        join_log.run(params, model_of_odd(), TODAY, store, LabelSource("labels"))


def test_a_foreign_file_in_the_log_is_one_sentence(join: Join, tmp_path: Path) -> None:
    join([(0, ROW)], labels_of((3, 1.0, 1)))
    for content in (b"PAR1 and nothing else", pd.DataFrame({"a": [1]}).to_parquet()):
        (tmp_path / "shipped/a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"shipped/a\.parquet cannot be joined: .*; remove it, or name"):
            join([], labels_of((3, 1.0, 1)))


@pytest.mark.parametrize("place", ["day=2030-01-01/bundle=0/{name}", "backup/{name}", "{folder}/copy-{name}"])
def test_a_copy_of_a_file_is_not_counted_twice(join: Join, tmp_path: Path, place: str) -> None:
    join([(0, ROW)], labels_of((3, 1.0, 1)))
    (file,) = (tmp_path / "shipped").rglob("*.parquet")
    folder = file.parent.relative_to(tmp_path / "shipped")
    copy = tmp_path / "shipped" / place.format(name=file.name, folder=folder)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
    with pytest.raises(InputError, match=r"cannot be joined: it is a copy of day=.*\.parquet; remove it"):
        join([], labels_of((3, 1.0, 1)))


@pytest.mark.parametrize("time", [2**62, -1])
def test_a_time_that_is_out_of_range_is_one_sentence(join: Join, tmp_path: Path, time: int) -> None:
    join([(0, ROW)], labels_of((3, 1.0, 1)))
    (file,) = (tmp_path / "shipped").rglob("*.parquet")
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, "time", arrow.array([time], arrow.timestamp("us", "UTC"))), file)
    with pytest.raises(InputError, match=r"cannot be joined: a time is out of range; remove it"):
        join([], labels_of((3, 1.0, 1)))


def test_keys_that_only_add_up_to_hashes_are_refused(join: Join, tmp_path: Path) -> None:
    labels = labels_of((3, 1.0, 1))
    join([(0, ROW), (0, ROW)], labels)
    (path,) = (tmp_path / "shipped").rglob("*.parquet")
    table = pq.read_table(path)
    keys = arrow.array(["ab" * 4, "ab" * 12])
    pq.write_table(table.set_column(table.column_names.index("key"), "key", keys), path)
    with pytest.raises(InputError, match="has a key that is not a hash"):
        join([], labels)


HOSTILE: dict[str, tuple[Any, ...]] = {
    "time": (arrow.array(["now"]),),
    "request_id": (arrow.array([None], "string"),),
    "row": (arrow.array([1.5]),),
    "key": (arrow.array(["zz"]), arrow.array([None], "string"), arrow.array(["00"])),
    "answer": (arrow.array(["much"]), arrow.array([None], "float32")),
    f"record_{AREA}": (arrow.array(["wide"]),),
}


@pytest.mark.parametrize("column", [*HOSTILE])
def test_a_file_with_columns_of_wrong_types_is_one_sentence(join: Join, tmp_path: Path, column: str) -> None:
    labels = labels_of((3, 1.0, 1))
    join([(0, ROW)], labels)
    (path,) = (tmp_path / "shipped").rglob("*.parquet")
    table = pq.read_table(path)
    for values in HOSTILE[column]:
        pq.write_table(table.set_column(table.column_names.index(column), column, values), path)
        with pytest.raises(InputError, match=r"cannot be joined: .*; remove it|has a key that is not a hash") as error:
            join([], labels)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", [b"<b>", b"{}", b"\xff", b'{"bundle": 7}'])
def test_a_file_with_a_damaged_header_is_one_sentence(join: Join, tmp_path: Path, header: bytes) -> None:
    labels = labels_of((3, 1.0, 1))
    join([(0, ROW)], labels)
    (path,) = (tmp_path / "shipped").rglob("*.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({METADATA_KEY: header}), path)
    with pytest.raises(InputError, match="cannot be joined: it has no header of a prediction log"):
        join([], labels)
    with pytest.raises(CheckFailed, match="1 files are not files of a prediction log"):
        erase(LogStore(str(tmp_path / "shipped")), {AREA: "3"}, None)


@contextmanager
def pushgateway(status: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answer pushes of metrics with a status. Yield the address, and the list of paths and bodies."""
    received: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def pushing(params: Params, address: str) -> Params:
    live = LiveSection(log="shipped", labels="labels.csv", pushgateway=address)
    return params.model_copy(update={"live": live})


def test_the_loss_by_day_is_pushed_for_the_canary_analysis(join: Join, params: Params) -> None:
    answer = expected(area(1))
    rows = [(0, area(1, note=str(i))) for i in range(2)] + [(1, area(2)), (1, area(3))]
    labels = labels_of((1, answer + 5, 4), (2, expected(area(2)), 4))
    with pushgateway(202) as (address, received):
        live = join(rows, labels, params=pushing(params, address))
    ((path, body),) = received
    assert path == f"/metrics/job/{params.record.experiment}"
    samples = {line for line in body.splitlines() if not line.startswith("#")}
    day = f'bundle="{live.bundles[0].bundle}",day="{date_of(0)}"'
    assert samples == {
        f"slipway_live_loss_rows{{{day}}} 2.0",
        f"slipway_live_loss{{{day}}} 5.0",
        f"slipway_live_loss_standard_error{{{day}}} 0.0",
    }


@pytest.mark.parametrize("status", [None, 500])
def test_a_pushgateway_that_does_not_answer_is_one_sentence(join: Join, params: Params, status: int | None) -> None:
    with pushgateway(status or 202) as (address, _):
        given = pushing(params, address if status else f"http://127.0.0.1:{free_port()}")
        with pytest.raises(InputError, match=r"cannot be pushed to http://127.0.0.1:\d+ \(.+\); check"):
            join([(0, area(1))], labels_of((1, 5.0, 1)), params=given)


def test_clients_cannot_fill_the_result_with_slices(join: Join, params: Params) -> None:
    """A client chooses the values of its requests, so that each request can be a slice of its own."""
    rows = [(0, area(1, note="common"))] * 3 + [(0, area(1, note=f"{i:03}" + "x" * 9_999)) for i in range(60)]
    evaluate = params.evaluate.model_copy(update={"slices": {"note": "values"}})
    live = join(rows, labels_of((1, 5.0, 1)), params=params.model_copy(update={"evaluate": evaluate}))
    kinds = live.bundles[0].slices
    assert len(kinds) == MAX_SLICES
    assert ("common", 3) in [(part.value, part.rows) for part in kinds]
    assert max(len(part.value) for part in kinds) == MAX_LABEL


def test_a_log_with_another_key_is_one_sentence(join: Join, tmp_path: Path) -> None:
    other = marked(tmp_path / "odd", tmp_path / "other")
    schema = json.loads((other / SCHEMA).read_text()) | {"key": ["rooms"]}
    (other / SCHEMA).write_text(json.dumps(schema))
    with pytest.raises(InputError, match="because KEY had other columns then; use request_id"):
        join([(0, ROW)], labels_of((3, 1.0, 1)), bundle=other)


def test_the_verb_joins_a_log_of_the_sample_and_exits_1_on_skew(
    clone: Callable[[str], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = clone("repository")
    repository.must("dvc", "pull", "--quiet", "champion.dvc")
    champion = repository.path / "champion"
    schema = json.loads((champion / SCHEMA).read_text())
    for column in schema["columns"]:
        column["private"] = "no"
    (champion / SCHEMA).write_text(json.dumps(schema))
    (row,) = json.loads((champion / "golden.json").read_text())["rows"][:1]
    record = {name: value for name, value in row.items() if value is not None}
    labels = {name: [record[name]] for name in schema["key"]} | {"price": [100_000.0], "known_at": [date_of(2)]}
    pd.DataFrame(labels).to_csv(tmp_path / "labels.csv", index=False)
    for kind, code in ((ServedModel, 0), (Altered, 1)):
        log_and_ship(champion, tmp_path / kind.__name__, [(0, record)], monkeypatch, kind=kind)
        result = repository.run("slipway", "join", str(tmp_path / kind.__name__), str(tmp_path / "labels.csv"))
        assert result.code == code, result
        assert "1 of 1 rows have a truth" in result.out
        assert ("ALARM: 1 of 1 answers" in result.out) == bool(code)
        assert (repository.path / "build/live.json").is_file()

"""Labels come from files, from a SQL query on a real PostgreSQL, or from a Delta Lake table, with the same result."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from slipway.bundle import load_bundle
from slipway.config import Live, Params, load_params
from slipway.errors import InputError
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.monitoring import alert_issue, join_log
from slipway.monitoring.alert_issue import Checked
from tests.slipway import postgres
from tests.slipway.conftest import ROOT, Result
from tests.slipway.monitoring.test_join_log import START, TODAY, area, log_and_ship, model_of_odd
from tests.slipway.postgres import READER, SECRET, Postgres
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, expected
from tests.slipway.serving.test_prediction_log import marked

ROWS = [(day, area(number)) for number, day in enumerate([0, 0, 1, 2, 2, 3])]
Label = tuple[float, float, int]
"""Area, price, and the day on which the price was known."""
LABELS: list[Label] = [(number, expected(row) + number, day + 4) for number, (day, row) in enumerate(ROWS)]
LABELS += [
    LABELS[1],
    (2, 0.0, 4),
    (3, 9.0, 6),
    (99, 1.0, 5),
]  # repeated, corrected later, contradictory, not in the log
COUNTS = {"joined": 5, "contradictory": 1, "labels": 10, "labels_repeated": 3, "labels_unknown": 1}
QUERY = f'select area as "{AREA}", price, known_at, note from labels'


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[Postgres]:
    server.run("CREATE TABLE labels (area double precision, price numeric, known_at timestamptz, note jsonb)")
    yield server
    server.run("DROP TABLE labels")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A log of `ROWS` is shipped."""
    monkeypatch.chdir(tmp_path)
    Path("odd").mkdir()
    log_and_ship(marked(odd.write_bundle(tmp_path / "odd"), tmp_path), tmp_path / "shipped", ROWS, monkeypatch)
    return load_params(ROOT / "params.yaml")


def known(day: int) -> datetime:
    return datetime.fromtimestamp((START + day) * 86_400 + 7, UTC)


def insert(server: Postgres, labels: list[Label] = LABELS) -> None:
    rows = [(number, price, known(day), "{}") for number, price, day in labels]
    server.run("INSERT INTO labels VALUES (%s, %s, %s, %s)", rows)


def table(labels: list[Label] = LABELS) -> pa.Table:
    columns = list(zip(*labels, strict=True))
    days = pa.array([known(day) for day in columns[2]], pa.timestamp("us", "UTC"))
    return pa.table({AREA: columns[0], "price": columns[1], "known_at": days, "note": ["x"] * len(labels)})


def of(server: Postgres, query: str = QUERY, **more: Any) -> LabelSource:
    environ = {"SLIPWAY_LABELS_USER": READER, "SLIPWAY_LABELS_PASSWORD": SECRET}
    return LabelSource(**{"address": server.address, "query": query, "environ": environ} | more)


def join(params: Params, source: LabelSource) -> tuple[dict[str, Any], list[bytes]]:
    """Return the result, and the content of the joined files."""
    live = join_log.run(params, model_of_odd(), TODAY, LogStore("shipped"), source)
    return live.model_dump(), [path.read_bytes() for path in sorted(join_log.JOINED.rglob("*.parquet"))]


def test_the_same_labels_give_the_same_result_from_every_source(params: Params, database: Postgres) -> None:
    table().to_pandas().to_csv("labels.csv", index=False)
    insert(database)
    write_deltalake("table", table(LABELS[:4]))
    write_deltalake("table", table(LABELS[4:]), mode="append")
    found = join(params, LabelSource("labels.csv"))
    assert {name: found[0]["counts"][name] for name in COUNTS} == COUNTS
    assert join(params, of(database)) == found
    assert join(params, LabelSource("table", format="delta")) == found


def test_labels_of_requests_come_from_a_query(params: Params, database: Postgres) -> None:
    """The rows of a request are whole numbers, and the time has no zone."""
    insert(database, [(0, 0.0, 9), (1, 0.0, 9), (7, 0.0, 9)])
    query = "select 'r-' || area as request_id, 0 as row, price, known_at::timestamp as known_at from labels"
    counts = join(params, of(database, query))[0]["counts"]
    assert (counts["joined"], counts["labels_unknown"]) == (2, 1)


def test_the_newest_version_of_a_table_is_read(params: Params) -> None:
    """A label that was corrected in place counts once, and a deleted label does not count."""
    write_deltalake("table", table([(0, 5.0, 4), (1, 6.0, 4), (2, 7.0, 4)]))
    DeltaTable("table").update(updates={"price": "8.0"}, predicate=f'"{AREA}" = 0')
    DeltaTable("table").delete(f'"{AREA}" = 1')
    DeltaTable("table").optimize.compact()
    counts = join(params, LabelSource("table", format="delta"))[0]["counts"]
    assert (counts["joined"], counts["labels"], counts["labels_repeated"]) == (2, 2, 0)
    joined = pd.read_parquet(join_log.JOINED).set_index(f"record_{AREA}")["truth"]
    assert joined[[0, 2]].tolist() == [8.0, 7.0]


KILLED = """\
import os, signal, sys
sys.path.insert(0, sys.argv.pop())
from slipway.integrations import database
from slipway.integrations.log_store import LogStore
from slipway.monitoring import join_log
from tests.slipway.monitoring import test_label_source as test
from tests.slipway.postgres import Postgres

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

port, place = sys.argv[1:]
if place == "rows": database.RowFile.add = kill
if place == "files": join_log._add = kill
if place == "result": join_log.Live.write = kill
test.join(test.load_params(test.ROOT / "params.yaml"), test.of(Postgres(int(port), None, None)))
"""


@pytest.mark.parametrize("place", ["rows", "files", "result"])
def test_a_kill_loses_no_label_and_counts_none_twice(params: Params, database: Postgres, place: str) -> None:
    insert(database, LABELS[:5])
    join(params, of(database))
    insert(database, LABELS[5:])
    command = [sys.executable, "-c", KILLED, str(database.port), place, str(ROOT)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(pd.read_parquet(join_log.JOINED)) == len(ROWS)  # the old or the new rows, and never a part of them
    counts = join(params, of(database))[0]["counts"]
    assert {name: counts[name] for name in COUNTS} == COUNTS


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "down": ({"address": "postgresql+psycopg://127.0.0.1:1/sales"}, "cannot be read .*SLIPWAY_LABELS_USER"),
    "no table": ({"query": "select * from nothing"}, 'relation "nothing" does not exist'),
    "other columns": ({"query": "select area, price from labels"}, "The labels lack the column 'known_at'"),
    "no column": ({"query": "select 1 as one"}, "The labels lack the column 'price'"),
    "a column twice": ({"query": "select *, 1 as price from labels"}, "the query has twice the column price"),
    "no rows": ({"query": f"{QUERY} where false"}, "The source of labels .* has no rows"),
    "json": ({"query": QUERY.replace("price,", "note as price,")}, "column price of the query has values of type dict"),
    "no driver": ({"address": "oracle://127.0.0.1/sales"}, "Labels: the address is .*, which needs the package"),
    "wrong password": ({"environ": {"SLIPWAY_LABELS_PASSWORD": f"{SECRET}!"}}, "cannot be read"),
    "no Delta table": ({"address": "odd", "query": None, "format": "delta"}, "The table odd cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_labels_that_cannot_be_read_are_one_sentence_and_change_nothing(
    params: Params, database: Postgres, mistake: str
) -> None:
    settings, words = MISTAKES[mistake]
    insert(database)
    before = join(params, of(database))[1]
    with pytest.raises(InputError, match=words) as error:
        join(params, of(database, **settings))
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).count(". ") <= 1
    assert [path.read_bytes() for path in sorted(join_log.JOINED.rglob("*.parquet"))] == before


def test_a_table_whose_files_are_missing_is_one_sentence(params: Params) -> None:
    write_deltalake("table", table())
    for path in Path("table").glob("*.parquet"):
        path.unlink()
    with pytest.raises(InputError, match=r"^The table table lacks files of its newest version; rewrite the table\.$"):
        join(params, LabelSource("table", format="delta"))


def test_an_empty_table_is_one_sentence(params: Params) -> None:
    write_deltalake("table", table().slice(0, 0))
    with pytest.raises(InputError, match=r"^The source of labels table has no rows"):
        join(params, LabelSource("table", format="delta"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"labels": "postgresql://db/sales"}, "the address of the labels is a database, so it needs a query"),
        ({"labels": "folder", "labels_query": "select 1"}, "a query needs the address of a database"),
        ({"labels_query": "select 1", "labels_format": "delta"}, "either from a query or from a Delta Lake table"),
        ({"labels": "postgresql://ada:geheim@db/sales", "labels_query": "select 1"}, "contains a password"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, labels: dict[str, str], words: str) -> None:
    lines = {"log": "a", "labels": "postgresql://db/sales"} | labels
    text = (ROOT / "params.yaml").read_text() + "\nlive:\n" + "".join(f"  {k}: {v}\n" for k, v in lines.items())
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load_params(tmp_path / "params.yaml")
    assert "geheim" not in str(error.value)


def test_the_verb_refuses_a_database_without_a_query(slipway: Callable[..., Result]) -> None:
    for arguments in (["postgresql://db/sales"], ["postgresql://ada:geheim@db/sales", "--query", "select 1"]):
        result = slipway("join", "shipped", *arguments)
        assert (result.code, "geheim" in result.err) == (2, False)
        assert "The address of the labels" in result.err


def test_monitor_reads_the_labels_of_a_query(
    params: Params, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database)
    Path("champion").symlink_to("bundle")
    monkeypatch.setattr(alert_issue, "champion_at_release", lambda *_: "it is not judged")
    live = Live(log="shipped", labels=database.address, labels_query=QUERY)
    on = Checked(params.model_copy(update={"live": live}), model_of_odd(), known(9).date(), of(database).environ)
    skew, decay = alert_issue.check_requests(on)
    assert (skew.alarm, decay.reason) == (False, "it is not judged")
    assert load_bundle(Path("champion")).hash[:12] in skew.reason

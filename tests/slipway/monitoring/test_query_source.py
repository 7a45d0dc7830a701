"""A SQL query as the source, on a real PostgreSQL: no row is taken twice, and none is lost."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import model
from slipway.artifacts import BUNDLE
from slipway.bundle import folder_hash
from slipway.config import Ingest, load_params
from slipway.errors import InputError
from slipway.integrations import process
from slipway.integrations.database import RowFile
from slipway.integrations.delta_source import DeltaSource
from slipway.integrations.query_source import WORDS, QuerySource
from slipway.monitoring.taken_rows import TakenRows
from tests.slipway import postgres
from tests.slipway.conftest import ROOT, Result, edit
from tests.slipway.pipeline.test_delivery import FORMATS, typed
from tests.slipway.postgres import SECRET, Postgres

pytestmark = pytest.mark.usefixtures("warmly")
Run = Callable[..., Result]
NUMBERS = ("living_area_sqft", "lot_size_sqft", "frontage_ft", "depth_ft", "year_built", "rooms", "bedrooms")
NUMBERS += ("full_baths", "half_baths", "garage_sqft", "latitude", "longitude", "price")
SALES = "CREATE TABLE sales ({})"
SETTINGS = """\
  source: {address}
  query: select * from sales
  watermark: sale_date
  overlap: 30d
  # """


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def database(server: Postgres, sales: pd.DataFrame) -> Iterator[Postgres]:
    """The table `sales` has the sales of the workplace's first delivery."""
    types = dict.fromkeys(NUMBERS, "double precision") | {"sale_date": "date"}
    server.run(SALES.format(", ".join(f'"{name}" {types.get(name, "text")}' for name in sales.columns)))
    yield server
    server.run("DROP TABLE IF EXISTS sales, events")


def insert(server: Postgres, rows: pd.DataFrame, table: str = "sales") -> None:
    values = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    marks = ", ".join(["%s"] * len(rows.columns))
    server.run(f"INSERT INTO {table} VALUES ({marks})", values)


@pytest.fixture
def work(workplace: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/ is empty, and the database is the source."""
    for path in Path("data").iterdir():
        path.unlink()
    process.run("dvc", "init", "--no-scm", "--quiet")
    process.run("dvc", "add", "--quiet", "data")
    edit(Path("params.yaml"), "  source: ", SETTINGS.format(address=database.address))
    for name, value in database.environ.items():
        monkeypatch.setenv(name, value)
    return workplace


def delivered() -> pd.DataFrame:
    """Return the rows of all deliveries in data/."""
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted(Path("data").glob("*.parquet"))])


def same_rows(found: pd.DataFrame, sales: pd.DataFrame) -> bool:
    """Return whether both have exactly the same rows, in any order."""

    def rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
        texts = table.assign(sale_date=table["sale_date"].astype(str).str[:10])
        texts[[*NUMBERS]] = texts[[*NUMBERS]].astype(float)
        return sorted(map(str, texts[sorted(texts.columns)].itertuples(index=False, name=None)))

    return rows(found) == rows(sales)


def parts(sales: pd.DataFrame, *ends: int) -> list[pd.DataFrame]:
    """Split the sales at days, so that no day is in two parts."""
    days = [sales["sale_date"][end] for end in ends]
    bounds = list(zip(["", *days], [*days, "9999"], strict=True))
    return [sales[(sales["sale_date"] > low) & (sales["sale_date"] <= high)] for low, high in bounds]


def test_each_run_takes_the_new_rows_once(slipway: Run, work: Path, database: Postgres, sales: pd.DataFrame) -> None:
    assert work
    first, second, third = parts(sales, 400, 700)
    late = first.tail(20)
    insert(database, first.drop(index=late.index))
    assert "1997-" in slipway("ingest").out
    before = sorted(Path("data").iterdir())
    assert "no new delivery" in slipway("ingest").out
    assert sorted(Path("data").iterdir()) == before
    insert(database, second)
    assert slipway("ingest").code == 0
    insert(database, pd.concat([late, third]))  # the late rows have older watermarks than all rows of `second`
    assert slipway("ingest").code == 0
    assert len([*Path("data").iterdir()]) == 3
    assert same_rows(delivered(), sales)


def test_a_late_row_alone_makes_a_delivery_that_sorts_last(
    slipway: Run, work: Path, database: Postgres, sales: pd.DataFrame
) -> None:
    assert work
    late = sales.iloc[[-1, -5]]  # another row has the same day as the last one
    insert(database, sales.drop(index=late.index))
    newest = sales["sale_date"].iloc[-1]
    slipway("ingest")
    for number in range(2, 4):
        insert(database, late.iloc[[number - 2]])
        assert f"{newest}_{number:03} ingested: 1 rows" in slipway("ingest").out
    assert [path.stem for path in sorted(Path("data").iterdir())] == [newest, f"{newest}_002", f"{newest}_003"]


def test_rows_that_are_later_than_the_overlap_are_not_taken(
    slipway: Run, work: Path, database: Postgres, sales: pd.DataFrame
) -> None:
    assert work
    edit(Path("params.yaml"), "overlap: 30d", "overlap: 0")
    insert(database, sales.iloc[5:])
    slipway("ingest")
    insert(database, sales.iloc[:5])
    assert "no new delivery" in slipway("ingest").out


def from_query(server: Postgres, rows: pd.DataFrame) -> None:
    insert(server, rows)
    settings = {"source": server.address, "query": "select * from sales", "watermark": "sale_date", "overlap": "30d"}
    copy_to_data(QuerySource(Ingest.model_validate(settings), model.KEY, TakenRows(), server.environ))


def from_delta_table(_: Postgres, rows: pd.DataFrame) -> None:
    write_deltalake("table", pa.Table.from_pandas(typed(rows), preserve_index=False))
    copy_to_data(DeltaSource(Ingest(source="table", format="delta"), {}))


def copy_to_data(source: QuerySource | DeltaSource) -> None:
    (file,) = source.listing().deliveries.values()
    with source.fetched(file) as copy:
        shutil.copyfile(copy, Path("data") / file)


def test_the_same_rows_give_the_same_bundle_in_every_format_and_from_every_source(
    slipway: Run, workplace: Path, database: Postgres, sales: pd.DataFrame
) -> None:
    edit(Path("params.yaml"), "max_iter: 30", "max_iter: 3")
    rows = sales.head(300)
    hashes = {}
    formats = ("b.CSV", "b.csv.gz", "b.parquet", "b.csv", "b")  # the last two are folders, as Spark writes them
    for way in (*formats, from_query, from_delta_table):
        shutil.rmtree(workplace / "data")
        Path("data").mkdir()
        if isinstance(way, str):
            FORMATS[way](rows, Path("data") / way)
        else:
            way(database, rows)
        for stage in ("validate", "split", "train"):
            result = slipway(stage)
            assert result.code == 0, result.err
        hashes[str(way)] = folder_hash(BUNDLE)
    assert len({*hashes.values()}) == 1, hashes


KILLED = """\
import os, signal, sys
from slipway.integrations import process, query_source
from slipway.monitoring import ingest

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

run = process.run
def killed_by(*command, **options):
    if command[:2] == ("dvc", "add") and point == "file": kill()
    result = run(*command, **options)
    if command[:2] == ("dvc", "add"): kill()
    return result

point = sys.argv.pop()
if point == "query": query_source.QuerySource.fetched = kill
process.run = killed_by
sys.argv[0] = "slipway"
from slipway.cli import main
main()
"""


@pytest.mark.parametrize("point", ["query", "file", "dvc add"])
def test_a_kill_loses_no_row_and_takes_none_twice(
    slipway: Run, work: Path, database: Postgres, sales: pd.DataFrame, point: str
) -> None:
    first, second = parts(sales, 500)
    insert(database, first)
    assert slipway("ingest").code == 0
    insert(database, second.iloc[:100])
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-c", KILLED, "ingest", point], cwd=work, env=environment, check=False)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    insert(database, second.iloc[100:])
    result = slipway("ingest")
    assert result.code == 0, result.err
    assert same_rows(delivered(), sales)
    assert process.run("dvc", "status", "--quiet") == ""
    assert not [*Path("data").glob("*.partial")]


def source(server: Postgres, watermark: str, **settings: Any) -> QuerySource:
    """Return a source with the table `events`, whose key is `id`."""
    values = {"source": server.address, "query": "select * from events", "watermark": watermark}
    return QuerySource(Ingest(**values | settings), ("id",), TakenRows(), server.environ)


def take(found: QuerySource) -> list[int]:
    """Copy the new delivery to data/, and return the ids of its rows."""
    deliveries = found.listing().deliveries
    new = [file for file in deliveries.values() if not (Path("data") / file).exists()]
    for file in new:
        with found.fetched(file) as copy:
            (Path("data") / file).write_bytes(copy.read_bytes())
    return [row for file in new for row in pq.read_table(Path("data") / file)["id"].to_pylist()]


@pytest.fixture
def events(database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    database.run(
        "CREATE TABLE events (id bigint, number int, changed timestamptz, local timestamp, day date, exact numeric, "
        "flag boolean, note text)"
    )
    return database


def event(server: Postgres, number: int, minutes: float = 0, row: int | None = None) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    values = (row or number, number, at, at.replace(tzinfo=None), at.date(), "12.50", True, "it's: ü")
    server.run("INSERT INTO events VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", [values])


@pytest.mark.parametrize(
    ("watermark", "overlap", "name"),
    [
        ("changed", "1h", "2026-03-01T010000.000000Z"),
        ("local", "60m", "2026-03-01T010000.000000"),
        ("day", "1d", "2026-03-01"),
        ("number", 10, "0000000000000000009"),
    ],
)
def test_watermarks_may_be_timestamps_dates_or_numbers(
    events: Postgres, watermark: str, overlap: Any, name: str
) -> None:
    event(events, 1, 0.001)
    event(events, 9, 60)
    found = source(events, watermark, overlap=overlap)
    assert [*found.listing().deliveries] == [name]
    assert take(found) == [1, 9]
    event(events, 3, 30)
    event(events, 12, 90)
    assert take(source(events, watermark, overlap=overlap)) == [3, 12]
    assert take(source(events, watermark, overlap=overlap)) == []
    table = pq.read_table(Path("data") / f"{name}.parquet").to_pylist()[0]
    assert (table["exact"], table["flag"], table["note"]) == ("12.50", True, "it's: ü")


def test_a_row_that_changes_is_taken_again(events: Postgres) -> None:
    event(events, 1)
    assert take(source(events, "changed")) == [1]
    event(events, 2, 5, row=1)
    assert take(source(events, "changed")) == [1]


def test_a_row_with_the_newest_watermark_that_comes_later_is_not_lost(events: Postgres) -> None:
    event(events, 1, 5)
    assert take(source(events, "changed")) == [1]
    event(events, 2, 5)
    assert take(source(events, "changed")) == [2]


def test_a_delivery_is_made_again_without_newer_rows(events: Postgres) -> None:
    """As `auto-merge` does. Rows that came after the delivery are not in it."""
    for number in range(50):
        event(events, number, number)
    first = source(events, "changed")
    (name,) = first.listing().deliveries
    with first.fetched(f"{name}.parquet") as file:
        content = file.read_bytes()
    event(events, 77, 100)
    again = QuerySource(
        Ingest(source=events.address, query="select * from events", watermark="changed"),
        ("id",),
        TakenRows(),
        events.environ,
        until=name,
    )
    assert [*again.listing().deliveries] == [name]
    with again.fetched(f"{name}.parquet") as file:
        assert file.read_bytes() == content


def test_rows_are_streamed_by_a_cursor_of_the_server(events: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.integrations.database.ROWS", 10)
    events.run("INSERT INTO events (id, changed) SELECT i, '2026-01-01'::timestamptz + i * '1s'::interval "
               "FROM generate_series(1, 45) i")  # fmt: skip
    assert take(source(events, "changed")) == [*range(1, 46)]
    log = events.log.read_text()
    assert "DECLARE" in log
    assert log.count("FETCH FORWARD") >= 4


def test_the_type_of_a_column_can_depend_on_its_last_rows(events: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.integrations.database.ROWS", 2)
    events.run("INSERT INTO events (id, number) VALUES (1, 1), (2, 2), (3, 3)")
    events.run("INSERT INTO events (id, number, note, flag) VALUES (4, 4, 'x', true)")
    assert take(source(events, "number")) == [1, 2, 3, 4]
    (file,) = Path("data").iterdir()
    assert pq.read_table(file)["note"].to_pylist() == [None, None, None, "x"]


def test_rows_without_a_watermark_are_reported(events: Postgres) -> None:
    event(events, 1)
    events.run("INSERT INTO events (id) VALUES (2), (3)")
    (what, why), = source(events, "changed").listing().not_taken.items()  # fmt: skip
    assert (what, why) == (f"2 rows of {events.address}", "they have no changed")


def test_rows_of_csv_files_in_data_are_not_taken_again(events: Postgres) -> None:
    """As after a change from files to a database. Times without a zone are in UTC."""
    for number in (1, 2, 3):
        event(events, number, number)
    file = Path("data/a.csv")
    file.write_text("id,changed\n1,2026-03-01 00:01:00\n2,2026-03-01 00:02:00\n")
    assert take(source(events, "changed", overlap="1h", prefix="b")) == [3]
    file.write_text("id,changed\n1,yesterday\n")
    with pytest.raises(InputError, match=r"data/a.csv has values that are not of the type timestamp"):
        source(events, "changed").listing()


def test_a_prefix_lets_deliveries_sort_after_those_of_another_source(events: Postgres) -> None:
    event(events, 1)
    pd.DataFrame({"id": [7]}).to_csv("data/sales-1997.csv", index=False)
    assert [*source(events, "day", prefix="sql-").listing().deliveries] == ["sql-2026-03-01"]


def test_a_colon_or_a_percent_sign_in_a_query_is_text(events: Postgres) -> None:
    event(events, 1)
    query = "select *, ':x' as colon, '%' as percent from events where changed::date = '2026-03-01'; "
    assert take(source(events, "changed", query=query)) == [1]


def test_the_name_of_a_watermark_may_have_a_colon_and_percent_signs(events: Postgres) -> None:
    event(events, 1)
    name = "50%%: x%"
    assert take(source(events, name, query=f'select *, changed as "{name}" from events')) == [1]


MISTAKES = {
    "no table": ({"query": "select * from nothing"}, 'relation "nothing" does not exist'),
    "no SQL": ({"query": "selekt"}, "syntax error"),
    "no key": ({"query": "select changed from events"}, "result of `ingest.query` lacks the column id"),
    "no watermark": ({"watermark": "updated"}, "result of `ingest.query` lacks the column updated"),
    "a column twice": ({"query": "select *, 1 as id from events"}, "has twice the column id"),
    "text": ({"watermark": "note"}, "`ingest.watermark` is note, whose values are of type str"),
    "no unit": ({"overlap": 3}, "`ingest.overlap` is 3, but changed is a time; add a unit"),
    "a unit": ({"watermark": "number", "overlap": "3d"}, "`ingest.overlap` is 3d, but number is a number"),
    "json": (
        {"query": "select *, '{}'::jsonb as extra from events"},
        "the column extra of `ingest.query` has",
    ),
    "a value": (
        {"query": "select *, ('hunter2 ' || id)::int as extra from events"},
        "InvalidTextRepresentation: the query cannot convert a value of a row\\)",
    ),
    "no rows": ({"query": "select * from events where false"}, "returns no rows with changed"),
    "another server": ({"source": "postgresql+psycopg://127.0.0.1:1/sales"}, "Connection refused|connection failed"),
    "another database": ({"source": None}, 'database "nothing" does not exist'),
    "no driver": (
        {"source": "oracle://127.0.0.1/sales"},
        "which needs the package .*; add it to",
    ),
    "no dialect": ({"source": "nothing://127.0.0.1/sales"}, "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_fails_with_one_sentence_without_the_password(events: Postgres, mistake: str) -> None:
    settings, words = MISTAKES[mistake]
    event(events, 1)
    pd.DataFrame({"id": [0], "number": [0], "changed": ["2026-01-01T00:00:00Z"]}).to_csv("data/a.csv", index=False)
    if "source" in settings and settings["source"] is None:
        settings = {"source": events.address.replace("/sales", "/nothing")}
    with pytest.raises(InputError, match=words) as error:
        source(events, **{"watermark": "changed", **settings}).listing()
    assert not any(secret in str(error.value) for secret in (SECRET, "hunter2"))
    assert "\n" not in str(error.value)
    assert str(error.value).count(". ") <= 1
    assert [path.name for path in Path("data").iterdir()] == ["a.csv"]


@pytest.mark.parametrize("password", ["wrong", f"{SECRET} ", "", "päß%40:/"])
def test_a_wrong_password_fails_with_one_sentence_that_does_not_contain_it(
    slipway: Run, work: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    assert work
    before = Path("data.dvc").read_text()
    monkeypatch.setenv("SLIPWAY_SOURCE_PASSWORD", password)
    result = slipway("ingest")
    assert (result.code, "cannot be read" in result.err) == (2, True)
    assert "SLIPWAY_SOURCE_PASSWORD" in result.err
    for text in (result.err, result.out):
        assert not password.strip() or password.strip() not in text.replace("SLIPWAY_SOURCE_PASSWORD", "")
    assert Path("data.dvc").read_text() == before
    assert [*Path("data").iterdir()] == []


def test_the_password_is_masked_in_the_words_of_the_driver(events: Postgres) -> None:
    found = source(events, "changed")
    for form in (SECRET, repr(SECRET)[1:-1], "p%40ss%3Aw%2F%20rd%23%25%27%5C%C3%A9%3F%26%3Dx"):
        assert found._database.describe(RuntimeError(f"cannot connect with {form}!")).endswith(
            "cannot connect with ***!"
        )


QUERY = "source: postgresql://db/sales\n  query: select 1\n  watermark: id"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("source: postgresql+psycopg://ada:geheim@db/sales", "`ingest.source`: the address contains a password"),
        ("source: postgresql+psycopg://db/sales", "a database as `source` needs `query` and `watermark`"),
        ("source: postgresql+psycopg://db/sales\n  query: select 1", "a query needs `watermark`"),
        ("source: folder\n  query: select 1\n  watermark: id", "a query needs a database as `source`"),
        ("source: folder\n  watermark: id", "`watermark` and `overlap` need `query`"),
        ("source: folder\n  prefix: a", "`prefix` needs `query` or `format: delta`"),
        (f"{QUERY}\n  overlap: 2 days", "`ingest.overlap`: it must be a time such as 12h or 3d"),
        (f"{QUERY}\n  format: delta", "a source has either `query` or `format: delta`"),
        (f"{QUERY}\n  overlap: -1", "`ingest.overlap`: it must be a time such as 12h or 3d"),
        (f"{QUERY}\n  prefix: a b", "`ingest.prefix`"),
    ],
)
def test_settings_are_checked_with_their_line(workplace: Path, lines: str, words: str) -> None:
    assert workplace
    edit(Path("params.yaml"), "  source: ", f"  {lines}\n  # ")
    with pytest.raises(InputError, match=r"params.yaml, line \d+: ") as error:
        load_params(Path("params.yaml"))
    assert words in str(error.value)
    assert "geheim" not in str(error.value)


def test_a_date_of_a_database_that_has_time_zones_is_in_utc(events: Postgres) -> None:
    events.run("INSERT INTO events (id, changed) VALUES (1, '2026-03-01 01:30+02')")
    assert [*source(events, "changed").listing().deliveries] == ["2026-02-28T233000.000000Z"]


@pytest.mark.parametrize("watermark", ["changed", "local", "day"])
def test_a_watermark_in_the_future_is_an_error(events: Postgres, watermark: str) -> None:
    """Otherwise no later row would ever be found, without an error."""
    event(events, 1, 0)
    settings = Ingest(source=events.address, query="select * from events", watermark=watermark)
    for day, is_future in ((date(2026, 2, 28), False), (date(2026, 2, 27), True)):
        found = QuerySource(settings, ("id",), TakenRows(), events.environ, today=day)
        if is_future:
            with pytest.raises(
                InputError, match=rf"The newest {watermark} in .* is 2026-03-01, which is in the future"
            ):
                found.listing()
        else:
            assert len(found.listing().deliveries) == 1


def test_a_missing_file_of_sqlite_is_an_error_and_is_not_created(work: Path) -> None:
    settings = Ingest(source=f"sqlite:///{work}/missing.db", query="select * from events", watermark="id")
    with pytest.raises(InputError, match=r"params.yaml: `ingest.source` is .*, but there is no file .*missing\.db"):
        QuerySource(settings, ("id",), TakenRows(), {}).listing()
    assert not (work / "missing.db").exists()


def test_a_value_that_does_not_fit_its_column_is_not_quoted(tmp_path: Path) -> None:
    rows = RowFile(tmp_path, WORDS)
    rows.add(pa.table({"number": [2**53 + 1]}))
    rows.add(pa.table({"number": [0.5]}))
    with pytest.raises(InputError, match="because a value does not fit the type of its column") as error:
        rows.write(tmp_path / "rows.parquet", "postgresql://db/sales")
    assert str(2**53 + 1) not in str(error.value)

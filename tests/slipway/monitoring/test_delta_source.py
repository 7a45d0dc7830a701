"""A table of Delta Lake as the source: each version that adds rows is one delivery."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, convert_to_deltalake, write_deltalake

from slipway.config import Ingest
from slipway.errors import InputError
from slipway.integrations.delta_source import DeltaSource
from tests.slipway.conftest import Result

pytestmark = pytest.mark.usefixtures("warmly")
Run = Callable[..., Result]
NAMES = ["00000000000000000000", "00000000000000000001", "00000000000000000002"]


def append(*ids: int, to: str = "table", **options: object) -> None:
    write_deltalake(to, pa.table({"id": [*ids], "part": [each % 2 for each in ids]}), mode="append", **options)  # type: ignore[call-overload]


def source(**settings: str) -> DeltaSource:
    taken = {path.stem: path.name for path in Path("data").iterdir()}
    return DeltaSource(Ingest(source="table", format="delta", **settings), taken)  # type: ignore[arg-type]


def rows(found: DeltaSource, name: str) -> list[int]:
    with found.fetched(f"{name}.parquet") as file:
        return sorted(pq.read_table(file)["id"].to_pylist())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("data").mkdir()


@pytest.mark.parametrize("options", [{}, {"partition_by": ["part"]}])
def test_each_version_that_adds_rows_is_a_delivery(options: dict[str, object]) -> None:
    append(1, 2, **options)
    append(3, **options)
    append(4, 5, **options)
    found = source()
    assert [*found.listing().deliveries] == NAMES
    assert [rows(found, name) for name in NAMES] == [[1, 2], [3], [4, 5]]
    with found.fetched(f"{NAMES[0]}.parquet") as file:
        assert pq.read_schema(file).names == ["id", "part"]
        content = file.read_bytes()
    with found.fetched(f"{NAMES[0]}.parquet") as file:
        assert file.read_bytes() == content


def test_versions_in_data_are_not_read_again() -> None:
    append(1)
    append(2)
    Path(f"data/{NAMES[0]}.parquet").write_text("")
    found = source().listing().deliveries
    assert [*found] == NAMES[:2]
    assert source(prefix="sales-").listing().deliveries.keys() == {f"sales-{name}" for name in NAMES[:2]}


def test_a_version_that_only_compacts_files_adds_no_rows() -> None:
    append(1)
    append(2)
    DeltaTable("table").optimize.compact()
    append(3)
    listing = source().listing()
    assert [*listing.deliveries] == [*NAMES[:2], "00000000000000000003"]
    assert listing.not_taken == {}
    assert rows(source(), "00000000000000000003") == [3]


def test_a_version_that_changes_rows_is_reported() -> None:
    append(1, 2)
    DeltaTable("table").delete("id = 1")
    DeltaTable("table").update(updates={"part": "7"})
    write_deltalake("table", pa.table({"id": [5], "part": [1]}), mode="overwrite")
    listing = source().listing()
    assert [*listing.deliveries] == NAMES[:1]
    words = "changes or removes rows that were delivered before"
    assert listing.not_taken == {
        f"version {version} of table": f"{operation} {words}"
        for version, operation in enumerate(("DELETE", "UPDATE", "WRITE"), start=1)
    }


def test_a_table_that_was_converted_from_parquet_files_starts_with_their_rows() -> None:
    Path("table").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "part": [1, 0]}), "table/a.parquet")
    convert_to_deltalake("table")
    append(3)
    found = source()
    assert [*found.listing().deliveries] == NAMES[:2]
    assert [rows(found, name) for name in NAMES[:2]] == [[1, 2], [3]]


def rename_operation(version: int, operation: str, **parameters: str) -> None:
    """Give a version of the table the operation that another writer, such as Spark, records for it."""
    path = Path(f"table/_delta_log/{version:020}.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (info,) = (line["commitInfo"] for line in lines if "commitInfo" in line)
    info |= {"operation": operation, "operationParameters": parameters, "operationMetrics": {}}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_files_of_an_operation_of_another_writer_show_what_it_does() -> None:
    append(1, 2)
    append(3)
    write_deltalake("table", pa.table({"id": [5], "part": [1]}), mode="overwrite")
    append(6)
    DeltaTable("table").alter.set_table_properties({"delta.appendOnly": "false"})
    for version in (0, 2):
        rename_operation(version, "CREATE OR REPLACE TABLE AS SELECT", isManaged="true")
    rename_operation(1, "CLONE")
    rename_operation(3, "STREAMING UPDATE", outputMode="Complete")
    listing = source().listing()
    assert [*listing.deliveries] == NAMES[:2]
    words = "changes or removes rows that were delivered before"
    assert listing.not_taken == {
        "version 2 of table": f"CREATE OR REPLACE TABLE AS SELECT {words}",
        "version 3 of table": f"STREAMING UPDATE {words}",
    }


def test_a_column_that_is_added_later_is_in_the_deliveries_from_then_on() -> None:
    append(1)
    later = pa.table({"id": [2], "part": [0], "new": ["x"]})
    write_deltalake("table", later, mode="append", schema_mode="merge")
    found = source()
    for name, columns in ((NAMES[0], ["id", "part"]), (NAMES[1], ["id", "part", "new"])):
        with found.fetched(f"{name}.parquet") as file:
            assert pq.read_schema(file).names == columns


def test_a_vacuumed_version_fails_with_one_sentence() -> None:
    append(1)
    append(2)
    DeltaTable("table").optimize.compact()
    DeltaTable("table").vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    found = source()
    assert NAMES[1] in found.listing().deliveries
    with pytest.raises(InputError, match=r"^Version 1 of table was vacuumed, .* `dvc add data`.$"):
        rows(found, NAMES[1])


def test_a_log_that_starts_later_names_the_file_that_replaces_all_versions_before() -> None:
    for number in range(3):
        append(number)
    DeltaTable("table").create_checkpoint()
    append(3)
    for version in range(2):
        Path(f"table/_delta_log/{version:020}.json").unlink()
    advice = rf"write the rows that are missing in data/ to data/{NAMES[2]}\.parquet"
    with pytest.raises(InputError, match=rf"^Version 0 of table was vacuumed, .*{advice}"):
        source().listing()
    Path(f"data/{NAMES[2]}.parquet").write_text("")
    assert [*source().listing().deliveries] == [NAMES[2], "00000000000000000003"]
    assert rows(source(), "00000000000000000003") == [3]


@pytest.mark.parametrize("address", ["missing", "data", "s3://127.0.0.1:1/nothing"])
def test_a_table_that_cannot_be_read_fails_with_one_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=f"The table {address} cannot be read") as error:
        DeltaSource(Ingest(source=address, format="delta"), {}).listing()
    assert "\n" not in str(error.value)

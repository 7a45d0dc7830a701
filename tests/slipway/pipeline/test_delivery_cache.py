"""Deliveries that were checked before are not read again, and a result is never older than its rules."""

import types
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import model
from slipway.artifacts import CHECKED, QUARANTINE, VALIDATED, VALIDATION
from slipway.config import Validate
from slipway.errors import InputError
from slipway.pipeline import deliveries, delivery_cache
from slipway.pipeline.deliveries import read_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache
from tests.slipway.conftest import RULES, TODAY, Result

Run = Callable[..., Result]
RESULTS = (VALIDATED, QUARANTINE, VALIDATION)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the deliveries that are read."""
    names: list[str] = []
    original = deliveries.read_chunks

    def noted(path: Path, where: str | None = None) -> object:
        names.append(path.stem)
        return original(path, where)

    monkeypatch.setattr(deliveries, "read_chunks", noted)
    return names


def faulty(workplace: Path) -> None:
    """Give a delivery three kinds of faults: of a value, of a whole row, and one that only earlier deliveries show."""
    path = workplace / "data/1997B.csv"
    rows = pd.read_csv(path, dtype=str)
    rows.loc[3, "price"] = "-1"
    rows.loc[3, "wall"] = "straw"
    earlier = pd.read_csv(workplace / "data/1997A.csv", dtype=str).head(1)
    pd.concat([rows, earlier]).to_csv(path, index=False)
    with path.open("a") as file:
        file.write("only,two\n")


def test_the_results_are_the_same_bytes_with_and_without_earlier_results(
    slipway: Run, workplace: Path, read: list[str]
) -> None:
    faulty(workplace)
    found = []
    for _ in range(2):
        assert slipway("validate").code == 0
        found.append([path.read_bytes() for path in RESULTS])
    assert found[0] == found[1]
    assert read == ["1997A", "1997B"]
    quarantine = pd.read_csv(QUARANTINE)
    assert quarantine["reason"].str.split(";").map(len).tolist() == [2, 2, 1]
    assert quarantine["row"].is_monotonic_increasing


def test_only_a_new_delivery_is_read(slipway: Run, workplace: Path, read: list[str]) -> None:
    later = (workplace / "data/1997B.csv").rename(workplace / "later")
    assert slipway("validate").code == 0
    later.rename(workplace / "data/1997B.csv")
    assert slipway("validate").code == 0
    assert read == ["1997A", "1997B"]


def test_a_changed_delivery_is_read_again_and_its_old_result_is_removed(
    slipway: Run, workplace: Path, read: list[str]
) -> None:
    assert slipway("validate").code == 0
    rows = pd.read_csv(workplace / "data/1997B.csv", dtype=str)
    rows.iloc[:-1].to_csv(workplace / "data/1997B.csv", index=False)
    assert slipway("validate").code == 0
    assert read == ["1997A", "1997B", "1997B"]
    assert sum(pq.read_metadata(file).num_rows for file in CHECKED.iterdir()) == len(pd.read_parquet(VALIDATED))


def test_the_rows_of_a_removed_delivery_are_removed_from_the_file_that_it_shared(
    slipway: Run, workplace: Path, read: list[str]
) -> None:
    assert slipway("validate").code == 0
    (workplace / "data/1997A.csv").unlink()
    assert slipway("validate").code == 0
    (file,) = CHECKED.iterdir()
    assert set(pq.read_table(file)["row_id"].to_pylist()) == set(pd.read_parquet(VALIDATED)["row_id"])
    assert read == ["1997A", "1997B"]


def test_many_small_files_are_joined(
    slipway: Run, workplace: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_cache, "MOST_SMALL_FILES", 2)
    faulty(workplace)
    for name in "CDE":
        rows = (
            pd.read_csv(workplace / "data/1997B.csv", dtype=str)
            .iloc[10:15]
            .assign(sale_date="1997-12-3" + "01"[name > "D"])
        )
        rows["lot_size_sqft"] = [str(10_000 + 10 * ord(name) + each) for each in range(5)]
        rows.to_csv(workplace / f"data/1997{name}.csv", index=False)
        assert slipway("validate").code == 0
    files = [path for path in CHECKED.glob("*.parquet") if not path.name.endswith(delivery_cache.INVALID)]
    assert len(files) == 2  # the joined one, and the newest
    before = [path.read_bytes() for path in RESULTS]
    assert slipway("validate").code == 0
    assert [path.read_bytes() for path in RESULTS] == before
    assert read == ["1997A", "1997B", "1997C", "1997D", "1997E"]


def test_the_same_file_under_two_names_is_read_once_under_each_name(tmp_path: Path, sales: pd.DataFrame) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("a", "b", "c")}
    for name, path in paths.items():
        sales.iloc[:: 1 + (name == "b")].to_csv(path, index=False)

    def rows() -> list[tuple[str, int]]:
        cache = DeliveryCache(model, tmp_path / "checked", RULES)
        return [(part.name, len(part.table)) for part in read_deliveries(paths, model, RULES, TODAY, cache)]

    fresh = rows()
    assert rows() == fresh
    cache = DeliveryCache(model, tmp_path / "checked", RULES)
    assert not cache.missing(paths)
    cache.prune()
    assert rows() == fresh


def test_deliveries_without_invalid_rows_get_no_file_of_invalid_rows(slipway: Run, workplace: Path) -> None:
    for path in (workplace / "data").iterdir():
        pd.read_csv(path, dtype=str).query("year_built < '1990'").to_csv(path, index=False)
    for _ in range(2):
        assert slipway("validate").code == 0
        assert pd.read_csv(QUARANTINE).empty
        assert len(list(CHECKED.iterdir())) == 1


@pytest.mark.parametrize("change", ["model", "data of the model", "library", "settings"])
def test_an_entry_is_not_used_under_other_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sales: pd.DataFrame, change: str
) -> None:
    package = tmp_path / "model"
    package.mkdir()
    (package / "schema.py").write_text("A = 1\n")
    fake = types.SimpleNamespace(**vars(model) | {"__file__": str(package / "__init__.py")})
    path = tmp_path / "x.csv"
    sales.to_csv(path, index=False)

    def kept(rules: Validate = RULES) -> list[delivery_cache.CheckedPart]:
        cache = DeliveryCache(fake, tmp_path / "checked", rules)  # type: ignore[arg-type]
        return [*cache.read(cache.key(path), path)]

    cache = DeliveryCache(fake, tmp_path / "checked", RULES)  # type: ignore[arg-type]
    list(read_deliveries({"x": path}, fake, RULES, TODAY, cache))  # type: ignore[arg-type]
    assert len(kept()) == 1
    if change == "model":
        (package / "schema.py").write_text("A = 2\n")
    elif change == "data of the model":
        (package / "towns.json").write_text('["Toledo", "Maumee"]\n')
    elif change == "library":
        monkeypatch.setattr(delivery_cache, "version", lambda name: f"{name} 99")
    assert not kept(Validate(max_invalid_share=0.1, unknown_columns="refuse") if change == "settings" else RULES)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1 no"), lambda path: path.unlink()])
def test_a_damaged_file_is_made_again(
    slipway: Run, workplace: Path, read: list[str], damage: Callable[[Path], object]
) -> None:
    faulty(workplace)
    assert slipway("validate").code == 0
    before = [path.read_bytes() for path in RESULTS]
    for path in CHECKED.iterdir():
        damage(path)
        read.clear()
        assert slipway("validate").code == 0
        assert read == ["1997A", "1997B"]
        assert [path.read_bytes() for path in RESULTS] == before


def test_a_date_in_the_future_is_an_error_for_an_entry_too(tmp_path: Path, sales: pd.DataFrame) -> None:
    path = tmp_path / "x.csv"
    sales.to_csv(path, index=False)
    newest = pd.Timestamp(sales["sale_date"].max()).date()
    folder = tmp_path / "checked"
    assert list(read_deliveries({"x": path}, model, RULES, newest, DeliveryCache(model, folder, RULES)))
    with pytest.raises(InputError, match=r"x\.csv, row \d+: sale_date .* is in the future"):
        list(
            read_deliveries(
                {"x": path}, model, RULES, date(1997, 8, 1), DeliveryCache(model, tmp_path / "checked", RULES)
            )
        )


def test_small_deliveries_are_checked_together_with_the_same_result(
    slipway: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(workplace)
    found = []
    for size in (1_000_000, 1):
        monkeypatch.setattr(deliveries, "BATCH_ROWS", size)
        for path in CHECKED.glob("*"):
            path.unlink()
        assert slipway("validate").code == 0
        found.append([path.read_bytes() for path in RESULTS])
    assert found[0] == found[1]

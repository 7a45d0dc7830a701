"""A list of keys deletes the rows with these keys from all earlier deliveries."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import model
from slipway.artifacts import VALIDATED, Validation
from slipway.bundle import folder_hash
from slipway.config import load_params
from slipway.pipeline.validate import accepted_rows, check_deliveries
from tests.slipway.conftest import TODAY, Result, edit
from tests.slipway.pipeline.test_changes import counts

Run = Callable[..., Result]
KEY = list(model.KEY)


def rules(*lines: str) -> None:
    edit(Path("params.yaml"), "validate:\n", "validate:\n" + "".join(f"  {line}\n" for line in lines))


def rows_of(name: str) -> pd.DataFrame:
    return pd.read_csv(f"data/{name}.csv", dtype=str)


@pytest.fixture
def listed(workplace: Path) -> pd.DataFrame:
    """The first 40 rows of 1997A, of which `data/1997A.deleted.csv` lists the keys."""
    rules("deletions: accept")
    rows = pd.read_csv(workplace / "data/1997A.csv", dtype=str).iloc[:40]
    rows[KEY].to_csv(workplace / "data/1997A.deleted.csv", index=False)
    return rows


def test_the_model_is_the_same_as_if_the_rows_had_never_been_delivered(slipway: Run, listed: pd.DataFrame) -> None:
    for stage in ("validate", "split", "train"):
        result = slipway(stage)
        assert result.code == 0, result.err
    bundle, validated = folder_hash(Path("build/bundle")), VALIDATED.read_bytes()
    Path("data/1997A.deleted.csv").unlink()
    rows_of("1997A").iloc[len(listed) :].to_csv("data/1997A.csv", index=False)
    for stage in ("validate", "split", "train"):
        assert slipway(stage).code == 0
    assert VALIDATED.read_bytes() == validated
    assert folder_hash(Path("build/bundle")) == bundle


def test_keys_and_rows_are_counted(slipway: Run, listed: pd.DataFrame) -> None:
    keys = listed[KEY].copy()
    unknown = keys.iloc[:3].assign(latitude="41.501", longitude="-83.501")
    invalid = keys.iloc[[0, 0]].assign(latitude=["north", None])
    pd.concat([keys, keys.iloc[:5], unknown, invalid]).to_csv("data/1997A.deleted.csv", index=False)
    result = slipway("validate")
    assert result.code == 0, result.err
    assert "1997A.deleted: 48 keys delete 40 rows, 3 keys match no row" in result.out
    found = counts("1997A.deleted")
    assert (found["rows"], found["accepted"], found["quarantined"]) == (50, 48, 2)
    assert (found["lists_keys"], found["deleted"], found["unmatched"]) == (True, 40, 3)
    assert found["reasons"] == {"latitude is not a number": 1, "latitude is missing": 1}
    quarantine = pd.read_csv("build/quarantine.csv", dtype=str)
    assert quarantine[quarantine["delivery"] == "1997A.deleted"]["row"].tolist() == ["50", "51"]
    validation = Validation.read(Path("build/validation.json"))
    rows = sum(len(rows_of(name)) for name in ("1997A", "1997B"))
    assert (validation.rows, validation.accepted) == (rows, rows - 40)
    assert len(pd.read_parquet(VALIDATED)) == rows - 40


@pytest.mark.parametrize(
    "file", ["1997A.deleted.csv.gz", "1997A.deleted.parquet", "1997A.Deleted.CSV", "1997A.deleted"]
)
def test_a_list_of_keys_may_have_any_format(slipway: Run, listed: pd.DataFrame, file: str) -> None:
    path = Path("data/1997A.deleted.csv")
    keys = listed[KEY]
    content = path.read_bytes()
    path.unlink()
    target = path.with_name(file)
    if file.endswith(".gz"):
        target.write_bytes(gzip.compress(content))
    elif file.endswith(".parquet"):
        typed = {name: keys[name].astype(float) for name in KEY if name != model.TIME}
        keys.assign(**typed, **{str(model.TIME): pd.to_datetime(keys[str(model.TIME)])}).to_parquet(target, index=False)
    elif file.endswith(".deleted"):
        target.mkdir()
        keys.iloc[:15].to_csv(target / "part-0.csv", index=False)
        keys.iloc[15:].to_csv(target / "part-1.csv", index=False)
    else:
        target.write_bytes(content)
    assert slipway("validate").code == 0
    found = counts(file.removesuffix(".gz").removesuffix(".csv").removesuffix(".CSV").removesuffix(".parquet"))
    assert (found["deleted"], found["unmatched"]) == (40, 0)


def test_a_later_delivery_may_deliver_the_key_again(slipway: Run, listed: pd.DataFrame) -> None:
    rules("late_rows: accept")
    listed.iloc[:10].assign(price="77777").to_csv("data/1998A.csv", index=False)
    listed.iloc[:4][KEY].to_csv("data/1998A.deleted.csv", index=False)
    listed.iloc[:2].assign(price="88888").to_csv("data/1998B.csv", index=False)
    for _ in range(2):  # and the same with the deliveries in the cache
        assert slipway("validate").code == 0
        assert counts("1998A")["accepted"] == 10
        assert (counts("1998A.deleted")["deleted"], counts("1998B")["accepted"]) == (4, 2)
        prices = pd.read_parquet(VALIDATED)["price"]
        assert ((prices == 77777).sum(), (prices == 88888).sum()) == (6, 2)


def test_a_row_that_follows_a_deleted_row_does_not_count_as_its_change(slipway: Run, listed: pd.DataFrame) -> None:
    rules("late_rows: accept", "repeated_keys: replace")
    listed.iloc[:10].assign(price="77777").to_csv("data/1998A.csv", index=False)
    listed.iloc[9:11].assign(price="88888").to_csv("data/1998B.csv", index=False)
    listed.iloc[:4][KEY].to_csv("data/1998B.deleted.csv", index=False)
    listed.iloc[3:5].assign(price="99999").to_csv("data/1998C.csv", index=False)
    assert slipway("validate").code == 0
    found = {name: (counts(name)["replaced"], counts(name)["changed"]) for name in ("1998A", "1998B", "1998C")}
    assert found == {"1998A": (0, 0), "1998B": (1, 1), "1998C": (1, 1)}


def test_lists_of_keys_without_a_delivery_are_an_error(slipway: Run, listed: pd.DataFrame) -> None:
    assert len(listed)
    for name in ("1997A", "1997B"):
        Path(f"data/{name}.csv").unlink()
    result = slipway("validate")
    words = "data/ has only lists of keys (1997A.deleted), and no delivery with rows; run `dvc pull`, or add the"
    assert (result.code, words in result.err) == (2, True), result.err


def test_all_versions_of_a_corrected_row_are_deleted(slipway: Run, listed: pd.DataFrame) -> None:
    rules("repeated_keys: replace")
    listed.assign(price="77777").to_csv("data/1997A-corrected.csv", index=False)
    assert slipway("validate").code == 0
    assert (counts("1997A-corrected")["replaced"], counts("1997A.deleted")["deleted"]) == (40, 40)
    rows = pd.read_parquet(VALIDATED)
    assert not (rows["price"] == 77777).any()
    assert len(rows) == len(rows_of("1997A")) + len(rows_of("1997B")) - 40


def test_a_list_deletes_no_rows_of_later_deliveries(slipway: Run, listed: pd.DataFrame) -> None:
    later = rows_of("1997B").iloc[:7]
    pd.concat([listed, later])[KEY].to_csv("data/1997A.deleted.csv", index=False)
    assert slipway("validate").code == 0
    assert (counts("1997A.deleted")["deleted"], counts("1997A.deleted")["unmatched"]) == (40, 7)
    assert (pd.read_parquet(VALIDATED)["delivery"] == "1997B").sum() == len(rows_of("1997B"))


def test_the_accepted_rows_of_all_deliveries_lack_deleted_rows(slipway: Run, listed: pd.DataFrame) -> None:
    """The checks for decay and drift read the accepted rows of data/ without build/validated.parquet."""
    assert slipway("validate").code == 0
    parts = list(check_deliveries(Path("data"), model, load_params(Path("params.yaml")).validate_, TODAY))
    rows = accepted_rows(parts)
    assert {*rows["row_id"]} == {*pd.read_parquet(VALIDATED)["row_id"]}
    assert len(rows) == len(rows_of("1997A")) + len(rows_of("1997B")) - len(listed)


def test_the_training_rows_of_a_champion_stay_known(slipway: Run, listed: pd.DataFrame) -> None:
    """A row that is deleted and delivered again must not be in the holdout of a champion that was trained on it."""
    rules("late_rows: accept")
    kept = Path("data/1997A.deleted.csv").rename("kept")
    for stage in ("validate", "split", "train"):
        assert slipway(stage).code == 0
    trained = np.load("build/bundle/training_rows.npy")
    kept.rename("data/1997A.deleted.csv")
    listed.to_csv("data/1998A.csv", index=False)
    assert slipway("validate").code == 0
    again = pd.read_parquet(VALIDATED).query("delivery == '1998A'")
    assert len(again) == len(listed)
    assert np.isin(again["row_id"], trained).all()


@pytest.mark.parametrize(
    ("setting", "columns", "message"),
    [
        ("refuse", KEY, "data/1997A.deleted.csv has only the columns of KEY; to delete the rows with these keys, set"),
        ("accept", [*KEY, "price"], "data/1997A.deleted.csv has the unknown column price; a list of keys has exactly"),
        ("accept", KEY[1:], f"data/1997A.deleted.csv lacks the column {KEY[0]}; a list of keys has exactly"),
    ],
)
def test_a_list_with_other_columns_or_without_the_setting_is_refused(
    slipway: Run, listed: pd.DataFrame, setting: str, columns: list[str], message: str
) -> None:
    edit(Path("params.yaml"), "deletions: accept", f"deletions: {setting}")
    listed[columns].to_csv("data/1997A.deleted.csv", index=False)
    result = slipway("validate")
    assert (result.code, message in result.err) == (2, True), result.err


def test_a_list_with_another_name_is_refused(slipway: Run, listed: pd.DataFrame) -> None:
    assert len(listed)
    Path("data/1997A.deleted.csv").rename("data/1997A-deleted.csv")
    result = slipway("validate")
    assert (result.code, "and let the name of the delivery end in .deleted" in result.err) == (2, True), result.err


def test_a_list_with_too_many_invalid_keys_is_refused(slipway: Run, listed: pd.DataFrame) -> None:
    listed[KEY].assign(latitude="north").to_csv("data/1997A.deleted.csv", index=False)
    result = slipway("validate")
    assert (result.code, "data/1997A.deleted.csv: 40 of 40 rows are invalid" in result.err) == (1, True), result.err


def test_whole_rows_may_have_any_name_without_the_setting(slipway: Run, workplace: Path) -> None:
    (workplace / "data/1997B.csv").rename(workplace / "data/1997B.deleted.csv")
    assert slipway("validate").code == 0
    assert counts("1997B.deleted")["lists_keys"] is False

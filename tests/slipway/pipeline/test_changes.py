"""Deliveries change: columns are added and removed, rows are corrected, and rows arrive late."""

import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

import model
from slipway.artifacts import VALIDATED, Validation
from slipway.config import Validate
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.deliveries import read_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache
from slipway.pipeline.validate import accepted_rows, check_deliveries
from tests.slipway.conftest import RULES, TODAY, Result, edit

Run = Callable[..., Result]


def counts(name: str) -> dict[str, object]:
    return Validation.read(Path("build/validation.json")).deliveries[name].model_dump()


def rules(workplace: Path, *lines: str) -> None:
    edit(workplace / "params.yaml", "validate:\n", "validate:\n" + "".join(f"  {line}\n" for line in lines))


class TestColumns:
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_an_unknown_column_is_ignored_and_reported(self, slipway: Run, workplace: Path, suffix: str) -> None:
        assert workplace
        assert slipway("validate").code == 0
        before = VALIDATED.read_bytes()
        rows = pd.read_csv("data/1997B.csv", dtype=str)
        changed = rows.assign(appraised="1", reason="delivered", **{"Unnamed: 0": "2"})
        Path("data/1997B.csv").unlink()
        if suffix == ".csv":
            changed.to_csv("data/1997B.csv", index=True)
        else:
            changed.assign(nested=[[1]] * len(rows), **{"": 1}).to_parquet("data/1997B.parquet", index=False)
        for _ in range(2):  # and the same from the earlier result
            result = slipway("validate")
            assert (result.code, "1997B: ignored columns: " in result.out) == (0, True), result.err
            assert "appraised" in result.out
            assert {"", "appraised", "reason", "Unnamed: 0"} <= {*counts("1997B")["unknown_columns"]}  # type: ignore[misc]
        assert VALIDATED.read_bytes() == before

    def test_an_unknown_column_is_refused_with_the_setting_refuse(self, slipway: Run, workplace: Path) -> None:
        rules(workplace, "unknown_columns: refuse")
        rows = pd.read_csv("data/1997B.csv", dtype=str)
        rows.assign(appraised="1").to_csv("data/1997B.csv", index=False)
        result = slipway("validate")
        assert (result.code, "data/1997B.csv has the unknown column appraised" in result.err) == (2, True)

    def test_a_quarantined_row_keeps_its_unknown_columns(self, slipway: Run, workplace: Path) -> None:
        assert workplace
        rows = pd.read_csv("data/1997B.csv", dtype=str).assign(appraised="17")
        rows.loc[3, "price"] = "-1"
        rows.to_csv("data/1997B.csv", index=False)
        for _ in range(2):
            assert slipway("validate").code == 0
            assert pd.read_csv("build/quarantine.csv", dtype=str)["appraised"].tolist() == ["17"]

    @pytest.mark.parametrize("kind", [float, str, pa.DateTime])
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_a_nullable_column_that_an_older_delivery_lacks_is_missing_there(
        self, tmp_path: Path, kind: object, suffix: str
    ) -> None:
        schema = pa.DataFrameSchema(
            {"id": pa.Column(str), "y": pa.Column(float), "new": pa.Column(kind, nullable=True)}  # type: ignore[arg-type]
        )
        fake = keyed(schema)
        old, new = (
            pd.DataFrame({"id": ["a"], "y": [1.0]}),
            pd.DataFrame({"id": ["b"], "y": [2.0], "new": ["2020-01-02"]}),
        )
        new = new.assign(new=[1.5] if kind is float else new["new"])
        for name, rows in (("1", old), ("2", new)):
            if suffix == ".csv":
                rows.to_csv(tmp_path / f"{name}.csv", index=False)
            else:
                rows.to_parquet(tmp_path / f"{name}.parquet", index=False)
        parts = list(check_deliveries(tmp_path, fake, RULES, pd.Timestamp("2021-01-01").date()))
        assert [part.columns.missing for part in parts] == [("new",), ()]
        assert accepted_rows(parts)["new"].isna().tolist() == [True, False]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("New é", "whose name has another case"),
            (" new é", "with a space around its name"),
            ("new e\u0301", "whose accents src/model/schema.py encodes in another Unicode form"),
            ("New é ", "but src/model/schema.py has 'new é'; use exactly this name"),
            ("newé", "but src/model/schema.py has 'new é'"),
            ("\ufeffnew é", r"'\\ufeffnew é', but src/model/schema.py has 'new é'"),
            ("new\u200b é", r"'new\\u200b é', but src/model/schema.py has 'new é'"),
        ],
    )
    def test_a_misspelled_nullable_column_is_an_error(self, tmp_path: Path, name: str, words: str) -> None:
        """Otherwise all of its values would be lost."""
        schema = pa.DataFrameSchema(
            {"id": pa.Column(str), "y": pa.Column(float), "new é": pa.Column(str, nullable=True)}
        )
        (tmp_path / "a.csv").write_text(f"id,y,{name}\na,1,x\n")
        with pytest.raises(InputError, match=rf"a\.csv has the column .*{words}"):
            list(check_deliveries(tmp_path, keyed(schema), RULES, TODAY))


def keyed(schema: pa.DataFrameSchema) -> Model:
    return types.SimpleNamespace(SCHEMA=schema, KEY=("id",), TIME=None, TARGET="y", FEATURES=("new",))  # type: ignore[return-value]


class TestCorrections:
    @pytest.fixture
    def corrected(self, workplace: Path) -> Path:
        """A delivery that repeats 30 rows of 1997A, of which 10 have another price and one is invalid."""
        rules(workplace, "repeated_keys: replace")
        rows = pd.read_csv("data/1997A.csv", dtype=str)
        again = rows.iloc[100:130].copy()
        again.iloc[:10, again.columns.get_loc("price")] = "77777"
        again.iloc[20, again.columns.get_loc("price")] = "-1"
        again.to_csv("data/1997A-corrected.csv", index=False)
        return Path("data/1997A-corrected.csv")

    def test_the_newest_delivery_of_a_key_replaces_exactly_its_rows(self, slipway: Run, corrected: Path) -> None:
        kept = corrected.rename("kept")
        assert slipway("validate").code == 0
        before = pd.read_parquet(VALIDATED).set_index("row_id")
        kept.rename(corrected)
        result = slipway("validate")
        assert result.code == 0, result.err
        assert "1997A-corrected: 29 rows replace earlier ones, 10 of them with other values" in result.out
        after = pd.read_parquet(VALIDATED).set_index("row_id")
        assert set(after.index) == set(before.index)
        assert not after.index.duplicated().any()
        changed = after["price"] != before["price"].reindex(after.index)
        assert (changed.sum(), set(after["price"][changed])) == (10, {77777.0})
        assert (after["delivery"] == "1997A-corrected").sum() == 29
        found = counts("1997A-corrected")
        assert (found["rows"], found["accepted"], found["quarantined"]) == (30, 29, 1)
        assert (found["replaced"], found["changed"]) == (29, 10)

    def test_a_row_can_be_corrected_twice(self, slipway: Run, corrected: Path) -> None:
        rows = pd.read_csv(corrected, dtype=str).assign(price="88888")
        rows.iloc[:5].to_csv("data/1998.csv", index=False)
        assert slipway("validate").code == 0
        assert (counts("1998")["replaced"], counts("1998")["changed"]) == (5, 5)
        assert (pd.read_parquet(VALIDATED)["price"] == 88888).sum() == 5

    def test_a_key_twice_in_the_same_delivery_is_quarantined(self, slipway: Run, corrected: Path) -> None:
        rows = pd.read_csv(corrected, dtype=str)
        pd.concat([rows, rows.iloc[[0]]]).to_csv(corrected, index=False)
        assert slipway("validate").code == 0
        assert counts(corrected.stem)["reasons"]["the same key as an earlier row of the delivery"] == 1  # type: ignore[index]

    def test_a_new_row_of_a_correction_is_late(self, slipway: Run, corrected: Path) -> None:
        """A row with a known key is not late, because its old version is in an earlier delivery."""
        later = pd.read_csv("data/1997B.csv", dtype=str)
        corrected.rename("data/1998.csv")
        rows = pd.read_csv("data/1998.csv", dtype=str)
        new = rows.iloc[[1]].assign(latitude="41.5", longitude="-83.5", lot_size_sqft="12345")
        pd.concat([rows, new]).to_csv("data/1998.csv", index=False)
        assert slipway("validate").code == 0
        late = f"dated before the end of the earlier delivery 1997B ({later['sale_date'].max()})"
        assert counts("1998")["reasons"] == {late: 1, "price is not between 1000 and 5000000": 1}

    def test_the_leak_check_recognises_training_rows_in_every_version(
        self, slipway: Run, corrected: Path, workplace: Path
    ) -> None:
        """A champion was trained on rows that are corrected later. None of them may be in its holdout."""
        kept = corrected.rename("kept")
        for stage in ("validate", "split", "train"):
            assert slipway(stage).code == 0
        trained = np.load("build/bundle/training_rows.npy")
        kept.rename(corrected)
        assert slipway("validate").code == 0
        rows = pd.read_parquet(VALIDATED)
        versions = rows[rows["delivery"] == corrected.stem]
        dates = pd.read_csv("data/1997A.csv", dtype=str)["sale_date"][100:130]
        assert dates.max() < pd.read_csv(workplace / "data/1997B.csv", dtype=str)["sale_date"].min()
        assert np.isin(versions["row_id"].to_numpy(), trained).all()


@pytest.mark.parametrize("accept", [True, False])
def test_late_rows_are_accepted_with_the_setting_accept(slipway: Run, workplace: Path, accept: bool) -> None:
    if accept:
        rules(workplace, "late_rows: accept")
    rows = pd.read_csv("data/1997B.csv", dtype=str)
    late = rows.iloc[[0]].assign(sale_date="1997-07-02", latitude="41.5", longitude="-83.5")
    pd.concat([rows, late]).to_csv("data/1997B.csv", index=False)
    assert slipway("validate").code == 0
    assert counts("1997B")["quarantined"] == (0 if accept else 1)
    assert (pd.read_parquet(VALIDATED)["delivery"] == "1997B").sum() == len(rows) + accept


def test_a_result_of_other_rules_is_not_used(tmp_path: Path, sales: pd.DataFrame) -> None:
    path = tmp_path / "x.csv"
    sales.assign(appraised="1").to_csv(path, index=False)
    list(read_deliveries({"x": path}, model, RULES, TODAY, DeliveryCache(model, tmp_path / "checked", RULES)))
    refusing = Validate(max_invalid_share=0.1, unknown_columns="refuse")
    with pytest.raises(Exception, match="has the unknown column appraised"):
        list(read_deliveries({"x": path}, model, refusing, TODAY, DeliveryCache(model, tmp_path / "checked", refusing)))

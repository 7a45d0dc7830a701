"""The accepted rows of all deliveries are sorted on the disk, in files of limited size."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from slipway.pipeline import parquet, sorted_rows
from slipway.pipeline.columns import DELIVERY, ROW, ROW_ID
from slipway.pipeline.parquet import read_table, row_count
from slipway.pipeline.sorted_rows import SortedRows

GROUP_ROWS = 100


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_rows, "BATCH_ROWS", GROUP_ROWS // 3)
    monkeypatch.setattr(sorted_rows, "FILE_ROWS", GROUP_ROWS // 2)
    monkeypatch.setattr(sorted_rows, "SAMPLE_STEP", 7)
    monkeypatch.setattr(parquet, "GROUP_ROWS", GROUP_ROWS)


def parts(rows: int, seed: int = 0) -> list[pd.DataFrame]:
    """Return rows of four deliveries with random ids, and times that many rows share."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "sold": pd.Timestamp("2000-01-01") + pd.to_timedelta(random.integers(0, 9, rows), unit="D"),
            "price": random.normal(size=rows),
            "place": random.choice(["Elm", "Oak", None], rows),
            ROW_ID: random.permutation(rows).astype(np.uint64) << np.uint64(53),
        }
    )
    return [frame.iloc[start : start + rows // 4] for start in range(0, rows, rows // 4)]


def write(frames: list[pd.DataFrame], folder: Path, time: str | None) -> tuple[int, Any]:
    model: Any = SimpleNamespace(TIME=time)
    rows = SortedRows(model, folder)
    seen = set[int]()
    for number, frame in enumerate(frames):
        table = pa.Table.from_pandas(frame.assign(**{ROW: np.arange(len(frame))}), preserve_index=False)
        ids = frame[ROW_ID].to_numpy()
        replaced = ids[np.isin(ids, [*seen])]
        part: Any = SimpleNamespace(name=f"d{number}", table=table, replaced=replaced, is_key_list=False)
        rows.add(part)
        seen |= {*ids.tolist()}
    return rows.write(folder / "sorted.parquet")


def named(frames: list[pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat(frames, ignore_index=True)
    names = np.repeat([f"d{number}" for number in range(len(frames))], [len(frame) for frame in frames])
    joined.insert(joined.columns.get_loc(ROW_ID), DELIVERY, pd.Series(names))
    return joined


@pytest.mark.parametrize("time", ["sold", None])
@pytest.mark.parametrize("rows", [4, GROUP_ROWS, 7 * GROUP_ROWS + 32])
def test_the_file_equals_the_result_of_a_sort_in_memory(time: str | None, rows: int, tmp_path: Path) -> None:
    frames = parts(rows)
    assert write(frames, tmp_path, time) == (rows, {})
    expected = named(frames).sort_values([*([time] if time else []), ROW_ID], ignore_index=True)
    expected.to_parquet(tmp_path / "expected.parquet", index=False, compression="zstd", row_group_size=GROUP_ROWS)
    assert (tmp_path / "sorted.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.parquet", "sorted.parquet"]


@pytest.mark.parametrize("time", ["sold", None])
def test_no_file_has_many_more_rows_than_are_sorted_at_a_time(
    time: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the memory would grow with the data. All rows of a day, or even all rows, may have the same time."""
    sizes = []
    read = sorted_rows._Files.read

    def noted(files: sorted_rows._Files) -> Iterator[pa.Table]:
        for rows in read(files):
            sizes.append(len(rows))
            yield rows

    monkeypatch.setattr(sorted_rows._Files, "read", noted)
    frames = [frame.assign(sold=pd.Timestamp("2000-01-01")) for frame in parts(20 * GROUP_ROWS)]
    corrected = [frame.assign(price=frame["price"] + (frame.index % 2)) for frame in frames]
    assert write([*frames, *corrected], tmp_path, time) == (
        20 * GROUP_ROWS,
        {f"d{number}": 5 * GROUP_ROWS // 2 for number in range(4, 8)},
    )
    assert len(sizes) > 20 * GROUP_ROWS // sorted_rows.FILE_ROWS
    assert max(sizes) <= 2 * sorted_rows.FILE_ROWS


def test_the_result_is_the_same_with_a_limited_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = parts(7 * GROUP_ROWS)
    written = []
    for most in (256, 2):
        monkeypatch.setattr(sorted_rows, "MOST_FILES", most)
        write(frames, tmp_path, "sold")
        written.append((tmp_path / "sorted.parquet").read_bytes())
    assert written[0] == written[1]


def test_rows_of_small_deliveries_are_read_again_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    read = sorted_rows._batches

    def noted(path: Path) -> Iterator[tuple[int, pa.Table]]:
        for start, rows in read(path):
            batches.append(len(rows))
            yield start, rows

    monkeypatch.setattr(sorted_rows, "_batches", noted)
    frames = [frame.iloc[start : start + 5] for frame in parts(100) for start in range(0, 25, 5)]
    assert write(frames, tmp_path, "sold") == (100, {})
    assert batches == [35, 35, 30]


def test_the_newest_delivery_of_a_row_stays_and_changed_rows_are_counted(tmp_path: Path) -> None:
    frames = parts(3 * GROUP_ROWS)
    corrected = frames[0].iloc[:20].copy()
    corrected.loc[corrected.index[:5], "price"] += 1
    assert write([*frames, corrected], tmp_path, "sold") == (3 * GROUP_ROWS, {"d4": 5})
    found = read_table(tmp_path / "sorted.parquet").set_index(ROW_ID)
    assert (found.loc[corrected[ROW_ID], DELIVERY] == "d4").all()
    assert found.loc[corrected[ROW_ID], "price"].tolist() == corrected["price"].tolist()
    assert found[DELIVERY].value_counts().to_dict() == {"d0": 55, "d1": 75, "d2": 75, "d3": 75, "d4": 20}


@pytest.mark.parametrize("batch_rows", [GROUP_ROWS // 3, 50 * GROUP_ROWS])
@pytest.mark.parametrize("time", ["sold", None])
def test_versions_of_rows_in_many_deliveries_give_the_newest(
    time: str | None, batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_rows, "BATCH_ROWS", batch_rows)
    random = np.random.default_rng(1)
    frames = parts(4 * GROUP_ROWS)
    for _ in range(5):
        some = pd.concat(frames).drop_duplicates(ROW_ID).sample(GROUP_ROWS, random_state=random.integers(99))
        moved = pd.to_timedelta(random.integers(-3, 4, len(some)), unit="D")
        frames.append(some.assign(sold=some["sold"] + moved, price=some["price"].round(1)))
    number, changed = write(frames, tmp_path, time)
    every = named(frames)
    expected = every[~every[ROW_ID].duplicated(keep="last")]
    expected = expected.sort_values([*([time] if time else []), ROW_ID], ignore_index=True)
    pd.testing.assert_frame_equal(read_table(tmp_path / "sorted.parquet"), expected, check_dtype=False)
    assert number == 4 * GROUP_ROWS
    assert changed == sorted_rows.changed_rows(
        every, {name: [ids.to_numpy()] for name, ids in every.groupby(DELIVERY)[ROW_ID]}
    )


def test_vectors_may_be_missing_in_all_rows_of_a_file(tmp_path: Path) -> None:
    frames = parts(2 * GROUP_ROWS)
    first = pd.concat(frames).sort_values("sold").index[: GROUP_ROWS + 1]
    vectors = [None if row in first else np.ones(2, np.float32) for row in range(2 * GROUP_ROWS)]
    frames = [frame.assign(vector=pd.Series(vectors, dtype=object)) for frame in frames]
    assert write(frames, tmp_path, "sold")[0] == 2 * GROUP_ROWS
    found = read_table(tmp_path / "sorted.parquet")["vector"]
    assert found.isna().sum() == GROUP_ROWS + 1
    assert found.dropna().map(list).map(tuple).unique().tolist() == [(1.0, 1.0)]


def test_a_table_without_accepted_rows_has_the_columns(tmp_path: Path) -> None:
    assert write([frame.iloc[:0] for frame in parts(4)], tmp_path, "sold") == (0, {})
    assert row_count(tmp_path / "sorted.parquet") == 0
    assert [*read_table(tmp_path / "sorted.parquet")] == ["sold", "price", "place", DELIVERY, ROW_ID]

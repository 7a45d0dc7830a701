"""A delivery is a CSV file, a Parquet file, or a folder of parts. Equal rows give the same model in every format."""

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import model
from slipway.artifacts import QUARANTINE, Validation, listed
from slipway.delivery_names import list_deliveries
from slipway.errors import InputError
from slipway.pipeline import csv_records, delivery
from slipway.pipeline.delivery import read_chunks
from slipway.pipeline.validate import check_deliveries
from tests.slipway.conftest import ROOT, RULES, TODAY, Result

Run = Callable[..., Result]
Write = Callable[[pd.DataFrame, Path], object]


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a database would deliver them: dates, whole numbers and numbers instead of text."""
    columns = {name: pd.to_numeric(rows[name], errors="coerce") for name in rows}
    found = pd.DataFrame({name: rows[name] if each.isna().all() else each for name, each in columns.items()})
    return found.assign(sale_date=pd.to_datetime(rows["sale_date"]))


def text(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


def zstd(rows: pd.DataFrame, path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(text(rows))


def archive(rows: pd.DataFrame, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("rows.csv", text(rows))


def parts(rows: pd.DataFrame, path: Path, suffix: str) -> None:
    """Write rows as Spark does, with an empty partition, a marker and hidden checksums."""
    path.mkdir()
    middle = len(rows) // 2
    for number, part in enumerate((rows.iloc[:middle], rows.iloc[middle:])):
        file = path / f"part-0000{number}-c000{suffix}"
        typed(part).to_parquet(file, index=False) if "parquet" in suffix else file.write_bytes(text(part))
        (path / f".{file.name}.crc").write_bytes(b"crc")
    if suffix == ".csv":
        (path / "part-00002-c000.csv").touch()
    (path / "_SUCCESS").touch()


FORMATS: dict[str, Write] = {
    "b.CSV": lambda rows, path: path.write_bytes(text(rows)),
    "b.csv.gz": lambda rows, path: path.write_bytes(gzip.compress(text(rows))),
    "b.csv.bz2": lambda rows, path: path.write_bytes(bz2.compress(text(rows))),
    "b.csv.xz": lambda rows, path: path.write_bytes(lzma.compress(text(rows))),
    "b.csv.zst": zstd,
    "b.csv.zip": archive,
    "b.parquet": lambda rows, path: typed(rows).to_parquet(path, index=False),
    "b.Parquet": lambda rows, path: rows.to_parquet(path, index=False),
    "b.parquet.gz": lambda rows, path: path.write_bytes(gzip.compress(typed(rows).to_parquet(index=False))),
    "b.csv": lambda rows, path: parts(rows, path, ".csv"),
    "b": lambda rows, path: parts(rows, path, ".snappy.parquet"),
}


@pytest.fixture
def faulty(sales: pd.DataFrame) -> pd.DataFrame:
    """Rows of which two are invalid, in two ways that every format has."""
    rows = sales.head(40).copy()
    rows.loc[3, "price"] = "-5"
    rows.loc[30, "wall"] = None
    return rows


def rows_of(folder: Path) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    found = list(check_deliveries(folder, model, RULES, TODAY))
    faults = pd.concat([each.faults for each in found])
    return pd.concat([each.accepted for each in found]), sorted(zip(faults["row"], faults["reason"], strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_rows_and_the_faults_of_the_csv_file(
    tmp_path: Path, faulty: pd.DataFrame, name: str
) -> None:
    for folder in ("plain", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "plain/b.csv").write_bytes(text(faulty))
    FORMATS[name](faulty, tmp_path / "other" / name)
    rows, faults = rows_of(tmp_path / "plain")
    other, other_faults = rows_of(tmp_path / "other")
    assert len(rows) == 38
    pd.testing.assert_frame_equal(rows, other)
    assert faults == other_faults
    assert [row for row, _ in faults] == [5, 32]


def test_the_quarantine_has_the_rows_of_a_parquet_delivery(slipway: Run, workplace: Path) -> None:
    assert workplace
    later = typed(pd.read_csv("data/1997B.csv", dtype=str))
    Path("data/1997B.csv").unlink()
    later["price"] = later["price"].astype(float)
    later.loc[7, "price"] = np.inf
    later.to_parquet("data/1997B.parquet", index=False)
    assert slipway("validate").code == 0
    (row,) = pd.read_csv(QUARANTINE, dtype=str).to_dict("records")
    assert (row["delivery"], row["row"], row["reason"]) == ("1997B", "9", "price is not a number")
    assert row["wall"] == later["wall"][7]


@pytest.mark.parametrize("size", [1, 700, 5_000])
def test_row_numbers_continue_across_blocks_and_quoted_line_breaks_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """RFC 4180: a quoted value may hold line breaks, commas and doubled quotes. Blank lines at the end are ignored."""
    monkeypatch.setattr(delivery, "PART_BYTES", size)
    path = tmp_path / "x.csv"
    lines = [f'{n},"a ""{n}""\r\nb, c\n\n",{n}' if n % 3 else f"{n},plain,{n}" for n in range(50)]
    lines[10] = "10,too,many,values"
    path.write_bytes(("n,text,m\n" + "\n".join(lines) + "\n\n\r\n").encode())
    chunks = list(read_chunks(path))
    rows = np.concatenate([each.rows for each in chunks]).tolist()
    assert rows == [row for row in range(2, 52) if row != 12]
    assert {row: fault for each in chunks for row, fault in each.malformed.items()} == {
        12: ("has 4 values instead of 3", "10,too,many,values")
    }
    values = [value for each in chunks for value in each.table["text"].to_pylist()]
    assert values[:3] == ["plain", 'a "1"\r\nb, c\n\n', 'a "2"\r\nb, c\n\n']


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_row_with_line_breaks_counts_once(tmp_path: Path, suffix: str) -> None:
    path, bodies = tmp_path / f"x{suffix}", ["one\ntwo", "one\r\ntwo", "one\\ntwo", "one two", None]
    rows = pd.DataFrame({"ticket": ["same"] * 5, "body": bodies})
    rows.to_csv(path, index=False) if suffix == ".csv" else rows.to_parquet(path)
    (chunk,) = read_chunks(path)
    assert len(chunk.as_csv()) == len(set(chunk.as_csv())) == 5


def test_a_quoted_value_may_be_long_and_end_in_a_backslash(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    values = ["a\n" * 200_000, "C:\\", 'a "b\\"']
    path.write_text(
        "n,text\n" + "".join(f'{n},"{value.replace(chr(34), chr(34) * 2)}"\n' for n, value in enumerate(values))
    )
    (chunk,) = read_chunks(path)
    assert chunk.table["text"].to_pylist() == values


@pytest.mark.parametrize("value", ['"two" words', '"a "quoted" word"', '""two""', '"two""" words'])
def test_text_after_a_closing_quote_is_refused(tmp_path: Path, value: str) -> None:
    """Arrow would drop the quotes without an error."""
    path = tmp_path / "x.csv"
    path.write_text(f"id,c\n1,fine\n2,{value}\n")
    with pytest.raises(InputError, match=r"x.csv, row 3: text follows the closing quote of a value; write a quote"):
        list(read_chunks(path))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"two lines,', "a quote is not closed, or a line break is not in quotes"),
        ('"5\\" pipe"', "a quote in a value has a backslash before it; write such a"),
    ],
    ids=["end of the file", "backslash of Spark"],
)
def test_a_quote_that_does_not_end_its_value_is_refused(tmp_path: Path, value: str, words: str) -> None:
    """Without the second error, the value would get a wrong text without a fault."""
    path = tmp_path / "x.csv"
    path.write_text(f"n,text\n1,plain\n2,{value}\n")
    with pytest.raises(InputError, match=rf"x.csv, row 3: {words}"):
        list(read_chunks(path))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('5" pipe', '5" pipe'),
        ('"5"" pipe"', '5" pipe'),
        ('"""two"" words"', '"two" words'),
        ('"one,""two"""', 'one,"two"'),
        ('""', None),
    ],
)
def test_a_quote_inside_a_value_is_kept(tmp_path: Path, written: str, value: str | None) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f'id,c\n1,{written}\n2,"{{""a"": 1}}"\n3,6" and 7"\n')
    (chunk,) = read_chunks(path)
    assert chunk.table["c"].to_pylist() == [value, '{"a": 1}', '6" and 7"']


@pytest.mark.parametrize("block", [8, csv_records.MOST_BYTES])
def test_a_file_may_end_with_control_z(block: int) -> None:
    content = b"id,c\n1,a\n2,b\n"
    for ending in (b"\x1a", b"\n\n\x1a"):
        read = list(csv_records.read_csv(io.BytesIO(content + ending), "x.csv", block))
        assert [row for each in read for row in each.table["id"].to_pylist()] == ["1", "2"]
    with pytest.raises(InputError, match="truncated"):
        list(csv_records.read_csv(io.BytesIO(content + b"3,\x1a"), "x.csv", block))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1,a\n" + b"9" * 5_000, "a line of more than 1,000 bytes"),
        (b"1,a\n2," + b"\0" * 5_000 + b"\n", "a line of more than 1,000 bytes"),
        (b"1,a\n" + b"\n" * 5_000, "more than 1,000 bytes of blank lines"),
        (b"1,a\n" + b"\r\n" * 5_000 + b"2,b\n", "more than 1,000 bytes of blank lines"),
    ],
)
def test_a_compressed_file_cannot_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    monkeypatch.setattr(csv_records, "MOST_BYTES", 1_000)
    monkeypatch.setattr(delivery, "PART_BYTES", 100)
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"n,text\n" + content))
    with pytest.raises(InputError, match=f"x.csv.gz has {words}; deliver it again"):
        list(read_chunks(path))


def test_a_file_that_is_packed_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(gzip.compress(b"n\n1\n")))
    with pytest.raises(InputError, match=r"x.csv.gz is compressed twice; compress it once"):
        list(read_chunks(path))
    (tmp_path / "x.csv").write_bytes(b"n\n1\n")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"x.csv.gz is a tar archive; deliver a file or a folder instead"):
        list(read_chunks(path))


@pytest.mark.parametrize("kind", ["pipe", "broken link", "loop"])
@pytest.mark.parametrize("in_folder", [True, False])
def test_a_pipe_or_a_broken_link_is_refused_and_not_left_out(tmp_path: Path, kind: str, in_folder: bool) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.csv").write_bytes(b"n\n1\n")
    odd = tmp_path / "x/b.csv"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("nothing" if kind == "broken link" else "b.csv")
    with pytest.raises(InputError, match=r"b.csv is neither a file nor a link to a file; deliver the file itself"):
        list(read_chunks(tmp_path / "x" if in_folder else odd))


def test_a_large_parquet_file_must_not_be_compressed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sales: pd.DataFrame
) -> None:
    sales.to_parquet(tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "y.parquet.gz").write_bytes(gzip.compress(content))
    (chunk,) = read_chunks(tmp_path / "y.parquet.gz")
    assert len(chunk.rows) == len(sales)
    monkeypatch.setattr(delivery, "UNPACKED_BYTES", len(content) - 1)
    with pytest.raises(InputError, match=r"y.parquet.gz is a compressed Parquet file with more than [0-9,]+ bytes"):
        list(read_chunks(tmp_path / "y.parquet.gz"))


def test_rows_without_quotes_are_the_same_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text(pd.read_csv(ROOT / "sample/source/1998H1.csv", dtype=str).head(300)))
    whole = pa.concat_tables(each.table for each in read_chunks(path))
    monkeypatch.setattr(delivery, "PART_BYTES", 4_000)
    chunks = list(read_chunks(path))
    assert len(chunks) > 3
    assert pa.concat_tables(each.table for each in chunks).equals(whole)


WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "list": (lambda f: f.assign(price=[[1.0]] * len(f)), "the column price has the type list"),
    "bytes": (lambda f: f.assign(wall=[b"wood"] * len(f)), "the column wall has the type binary"),
    "bool": (lambda f: f.assign(rooms=[True] * len(f)), "the column rooms has the type bool"),
    "date for a number": (lambda f: f.assign(price=f["sale_date"]), "the column price has the type timestamp"),
    "number for a date": (lambda f: f.assign(sale_date=f["price"]), "the column sale_date has the type int64"),
    "number for text": (lambda f: f.assign(wall=1.5), "the column wall has the type double"),
    "time zone": (
        lambda f: f.assign(sale_date=f["sale_date"].dt.tz_localize("UTC")),
        "the column sale_date has the type timestamp",
    ),
    "column": (lambda f: f.drop(columns="price"), "lacks the column price"),
    "no rows": (lambda f: f.head(0), "has no rows that can be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_in_parquet_fails_with_one_sentence(tmp_path: Path, faulty: pd.DataFrame, case: str) -> None:
    change, words = WRONG[case]
    change(typed(faulty)).to_parquet(tmp_path / "x.parquet", index=False)
    with pytest.raises(InputError, match=rf"^{tmp_path}/x.parquet:? {words}[^\n]*; [^\n]*\.$"):
        list(check_deliveries(tmp_path, model, RULES, TODAY))


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has twice the column 'a'"):
        list(read_chunks(tmp_path / "x.parquet"))


def test_views_in_parquet_are_read_as_plain_text(tmp_path: Path, faulty: pd.DataFrame) -> None:
    FORMATS["b.parquet"](faulty, tmp_path / "b.parquet")
    plain = pq.read_table(tmp_path / "b.parquet")
    expected = rows_of(tmp_path)
    tag = pa.scalar(
        {"tags": ["x"], "raw": b"y"}, pa.struct({"tags": pa.list_(pa.string_view()), "raw": pa.binary_view()})
    )
    view = pc.cast(plain["wall"], pa.string_view())
    views = plain.set_column(plain.column_names.index("wall"), "wall", view)
    pq.write_table(views.append_column("tag", pa.repeat(tag, len(plain))), tmp_path / "b.parquet")
    found = rows_of(tmp_path)
    assert found[0].equals(expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("name", ["b.parquet", "b.csv.gz", "b.csv.bz2", "b.csv.xz", "b.csv.zst", "b.csv.zip"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_fails_with_one_sentence(
    tmp_path: Path, faulty: pd.DataFrame, name: str, share: float
) -> None:
    path = tmp_path / name
    FORMATS[name](faulty, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"^{path} is truncated[^\n]*; deliver it again\.$"):
        list(read_chunks(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: (path / "_temporary").mkdir(), "is still being written"),
        (lambda path: (path / "_delta_log").mkdir(), "is a Delta Lake table, .*; set `ingest.source` to the table"),
        (lambda path: (path / ".hoodie").mkdir(), "is a Hudi table, which also has files of older rows"),
        (
            lambda path: (path / ".x.csv").touch(),
            r"\.x\.csv is not a part of a delivery, because its name starts with \.",
        ),
        (lambda path: (path / "year=1997").mkdir(), "has the folder year=1997, but parts must lie side by side"),
        (lambda path: (path / "notes.txt").touch(), "notes.txt is not a part of a delivery"),
        (lambda path: [part.unlink() for part in path.glob("part*")], "is a folder without parts"),
    ],
)
def test_a_folder_of_other_things_is_refused(
    tmp_path: Path, faulty: pd.DataFrame, make: Callable[[Path], object], words: str
) -> None:
    FORMATS["b"](faulty, tmp_path / "b")
    make(tmp_path / "b")
    with pytest.raises(InputError, match=words):
        list(check_deliveries(tmp_path, model, RULES, TODAY))


def test_the_name_of_a_delivery_can_be_printed() -> None:
    entries = [(name, False) for name in ("b.csv", "c\n::error::.csv", "d\udcff.parquet", "\x1b[31m")]
    listing = list_deliveries(entries, lambda name: f"s3://in/{name}")
    assert (listing.deliveries, listing.not_taken) == ({"b": "b.csv"}, {})
    assert [str(error).partition(" is not taken")[0] for error in listing.errors] == [
        "s3://in/\\x1b[31m",
        "s3://in/c\\n::error::.csv",
        "s3://in/d\\udcff.parquet",
    ]
    assert listed(["q\n::error::", "r"]) == r"'q\n::error::', r"


def test_two_deliveries_with_the_same_name_are_refused(tmp_path: Path, faulty: pd.DataFrame) -> None:
    for name in ("b.csv.gz", "b.parquet"):
        FORMATS[name](faulty, tmp_path / name)
    with pytest.raises(InputError, match=r"b\.csv\.gz and .*b\.parquet are both named b"):
        list(check_deliveries(tmp_path, model, RULES, TODAY))


def spoil_archive(path: Path, *bits: tuple[int, int]) -> None:
    """Set bits of the header of the file in an archive, at their positions in the local header."""
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    for position, bit in bits:
        content[position] |= bit
        content[central + 2 + position] |= bit
    path.write_bytes(content)


def add_to_archive(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, "a\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: add_to_archive(path, "more.csv"), "is an archive of 2 files; deliver one file"),
        (lambda path: add_to_archive(path, "[Content_Types].xml"), "is an Excel workbook; deliver it as CSV"),
        (lambda path: add_to_archive(path, "content.xml"), "is an OpenDocument spreadsheet; deliver it as CSV"),
        (lambda path: spoil_archive(path, (6, 1)), "cannot be unpacked (File 'rows.csv' is encrypted"),
        (lambda path: spoil_archive(path, (8, 99)), "cannot be unpacked (That compression method is not supported)"),
    ],
)
def test_an_archive_that_is_not_one_readable_file_is_refused(
    tmp_path: Path, faulty: pd.DataFrame, spoil: Callable[[Path], object], words: str
) -> None:
    archive(faulty, tmp_path / "b.csv.zip")
    spoil(tmp_path / "b.csv.zip")
    with pytest.raises(InputError, match=re.escape(f"b.csv.zip {words}")):
        list(read_chunks(tmp_path / "b.csv.zip"))


def test_hidden_files_in_an_archive_are_left_out(tmp_path: Path, faulty: pd.DataFrame) -> None:
    archive(faulty, tmp_path / "b.csv.zip")
    add_to_archive(tmp_path / "b.csv.zip", "__MACOSX/._rows.csv")
    assert sum(len(chunk.rows) for chunk in read_chunks(tmp_path / "b.csv.zip")) == len(faulty)


def test_a_file_of_a_parallel_compressor_may_start_with_a_skipped_frame(tmp_path: Path, faulty: pd.DataFrame) -> None:
    zstd(faulty, tmp_path / "b.csv.zst")
    frame = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    (tmp_path / "b.csv.zst").write_bytes(frame + (tmp_path / "b.csv.zst").read_bytes())
    assert sum(len(chunk.rows) for chunk in read_chunks(tmp_path / "b.csv.zst")) == len(faulty)


@pytest.mark.parametrize(
    ("sound", "damaged", "words"),
    [
        (b"wood", b"w\xffod", "Invalid UTF8 sequence"),
        (b"column", b"c\xfflumn", "codec can't decode"),
        (b"wood", b"rood", "CRC checksum verification failed"),
    ],
)
def test_damage_inside_of_parquet_is_found(tmp_path: Path, sound: bytes, damaged: bytes, words: str) -> None:
    path, has_checksums = tmp_path / "x.parquet", b"rood" in damaged
    pq.write_table(
        pa.table({"column": ["wood"] * 9}),
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        write_page_checksum=has_checksums,
    )
    path.write_bytes(path.read_bytes().replace(sound, damaged))
    with pytest.raises(
        InputError, match=rf"^{path} is truncated or damaged \([^\n]*{words}[^\n]*; deliver it again\.$"
    ):
        list(read_chunks(path))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", ["none", "zeros", "damaged", "truncated", "garbage"])
def test_no_stream_of_a_compressed_file_is_lost(
    tmp_path: Path, faulty: pd.DataFrame, compress: Callable[[bytes], bytes], damage: str
) -> None:
    """Parallel compressors write a file as several streams, one after the other."""
    lines = text(faulty).splitlines(keepends=True)
    first, second = compress(b"".join(lines[:9])), compress(b"".join(lines[9:]))
    endings = {
        "none": second,
        "zeros": second + b"\0" * 512,
        "damaged": second[:3] + b"\xff" * 20 + second[23:],
        "truncated": second[:-5],
        "garbage": second + b"more",
    }
    path = tmp_path / "b.csv.packed"
    path.write_bytes(first + endings[damage])
    if damage in ("none", "zeros"):
        assert sum(len(chunk.rows) for chunk in read_chunks(path)) == len(faulty)
        return
    with pytest.raises(InputError, match="is truncated or damaged"):
        list(read_chunks(path))


HEADERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "semicolons": (lambda b: b.replace(b",", b";"), "is separated by semicolons instead of commas"),
    "spaces": (lambda b: b.replace(b",", b", "), "has the column ' price' with a space around its name"),
    "no-break space": (
        lambda b: b.replace(b"price", "price\u00a0".encode(), 1),
        r"has the column 'price\\xa0' with a no-break space around its name",
    ),
    "comment": (lambda b: b"# exported today\n" + b, "has the line '# exported today' above its header"),
    "trailing commas": (
        lambda b: b"\n".join(line + b"," * (n > 0 and line != b"") for n, line in enumerate(b.split(b"\n"))),
        "has no rows that can be read, because each row has 18 values instead of 17: each ends with a comma",
    ),
    "decimal commas": (
        lambda b: b.replace(b".", b","),
        "has no rows that can be read, because each row has 19 values instead of 17: quote each value that contains",
    ),
    "some decimal commas": (
        lambda b: b"\n".join(line + b",5" * (1 + n % 2 if n and line else 0) for n, line in enumerate(b.split(b"\n"))),
        r"has no rows that can be read, for example because row \d+ has \d+ values instead of 17: quote each value",
    ),
    "UTF-16": (lambda b: b.decode().encode("utf-16"), "is UTF-16; deliver the file in UTF-8"),
    "UTF-16 without a mark": (lambda b: b.decode().encode("utf-16-le"), "is UTF-16; deliver the file in UTF-8"),
    "UTF-16 with the high byte first": (lambda b: b.decode().encode("utf-16-be"), "is UTF-16; deliver the file in UTF"),
    "UTF-32": (lambda b: b.decode().encode("utf-32"), "is UTF-32; deliver the file in UTF-8"),
    "CR": (lambda b: b.replace(b"\n", b"\r"), "ends its lines with CR alone"),
    "JSON": (lambda _: b'{"price": 1}\n', "is JSON instead of CSV"),
    "JSON with quotes": (lambda _: b'{"body": "a \\"quote\\""}\n' * 2, "is JSON instead of CSV"),
    "JSON in one line": (lambda _: b'[{"price": 1}]', "is JSON instead of CSV"),
    "XML in one line": (lambda _: b"<Error><Code>AccessDenied</Code></Error>", "is HTML or XML instead of CSV"),
    "PGP": (lambda _: b"-----BEGIN PGP MESSAGE-----\n\nhQEM\n", "is encrypted with PGP"),
    "Arrow": (lambda _: b"ARROW1\0\0" + bytes(90), "is an Arrow or Feather file; deliver it as CSV or Parquet"),
    "encrypted Parquet": (lambda _: b"PARE" + bytes(90), "is an encrypted Parquet file; deliver it as CSV or Parquet"),
    "a name that starts like encrypted Parquet": (lambda b: b"PARENT" + b, "lacks the column"),
    "XLS": (lambda _: b"\xd0\xcf\x11\xe0" + bytes(90), "is an Excel workbook; deliver it as CSV or Parquet"),
    "HTML": (lambda _: b"<!DOCTYPE html>\n<html></html>\n", "is HTML or XML instead of CSV"),
    "Git LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a pointer of Git LFS"),
    "case": (lambda b: b.replace(b"price", b"Price", 1), "has the column 'Price', whose name has another case"),
    "index": (
        lambda b: (
            b"\n".join(b"%d,%b" % (n, line) if n else b"," + line for n, line in enumerate(b.split(b"\n")[:-1])) + b"\n"
        ),
        "has a column without a name, as pandas writes its index",
    ),
}


@pytest.mark.parametrize("change", [(b"wood", b"w\0od"), (b"wood", b"\0" * 4096 + b"wood"), (b"price", b"price\0")])
def test_a_file_with_a_nul_byte_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    """Otherwise a hole in a file, which a crash leaves, would become a part of a key or a text."""
    content = b"price,wall\n1,brick\n2,wood\n"
    (tmp_path / "x.csv").write_bytes(content.replace(*change))
    row = 3 if change[0] == b"wood" else 1
    with pytest.raises(InputError, match=rf"^{tmp_path}/x.csv, row {row}: has a NUL byte, so the file is damaged or"):
        list(read_chunks(tmp_path / "x.csv"))


def test_values_stay_text_if_the_header_has_two_byte_order_marks(tmp_path: Path) -> None:
    """Otherwise Arrow would guess the type of the first column, and a key would lose its zeros."""
    (tmp_path / "x.csv").write_bytes(csv_records.BOM * 2 + b"id,price\n007,1.50\n")
    (chunk,) = read_chunks(tmp_path / "x.csv")
    assert chunk.table.to_pylist() == [{"id": "007", "price": "1.50"}]


@pytest.mark.parametrize("case", HEADERS)
def test_the_cause_of_an_unusable_csv_file_is_named(tmp_path: Path, faulty: pd.DataFrame, case: str) -> None:
    change, words = HEADERS[case]
    (tmp_path / "x.csv").write_bytes(change(text(faulty)))
    refusing = RULES.model_copy(update={"unknown_columns": "refuse"})
    with pytest.raises(InputError, match=rf"^{tmp_path}/x.csv {words}"):
        list(check_deliveries(tmp_path, model, refusing, TODAY))


def test_the_counts_of_a_folder_are_those_of_all_parts(slipway: Run, workplace: Path) -> None:
    assert workplace
    later = pd.read_csv("data/1997B.csv", dtype=str)
    Path("data/1997B.csv").unlink()
    parts(later, Path("data/1997B"), ".csv")
    assert slipway("validate").code == 0
    assert Validation.read(Path("build/validation.json")).deliveries["1997B"].rows == len(later)

"""Read one part of the input in blocks of rows. A row has the values that a client would send for it in JSON."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from slipway.bundle import Schema
from slipway.serving.problems import listed

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""The numbers of a CSV file, as in a delivery (`slipway.pipeline.deliveries`)."""
BLOCK_ROWS = 65_536
BLOCK_BYTES = 8_000_000
"""Size of a block of a CSV file. Only one block at a time is in memory."""


class BadPart(Exception):
    """A part that cannot be scored at all. The message is a sentence without a subject, such as `is empty`."""


@dataclass(frozen=True)
class Block:
    """Some rows of a part.

    `rows` has their numbers in the file. `columns` has a list of values for each feature of the file. `kept` has the
    columns that are copied to the answers. `malformed` has the reason for each further row that cannot be read.
    """

    rows: Sequence[int]
    columns: dict[str, list[Any]]
    kept: pa.Table
    malformed: dict[int, str]


@dataclass(frozen=True)
class Reader:
    """Reads the parts of one input. `keep` names the columns that the answers must have besides those of the key."""

    schema: Schema
    keep: tuple[str, ...]

    def read(self, path: Path) -> tuple[pa.Schema, Iterator[Block]]:
        """Return the types of the copied columns, and the blocks of a CSV or Parquet file.

        Raises BadPart, also while the blocks are read. In a CSV file, the header is row 1. In a Parquet file, row 1 is
        the first row.
        """
        match path.suffix:
            case ".csv":
                return self._read_csv(path)
            case ".parquet":
                return self._read_parquet(path)
        raise BadPart("is neither .csv nor .parquet; deliver one of them")

    def _read_parquet(self, path: Path) -> tuple[pa.Schema, Iterator[Block]]:
        try:
            file = pq.ParquetFile(path, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise BadPart(f"is not Parquet ({_words(error)}); deliver it again") from None
        kept = self._kept(file.schema_arrow.names)
        return pa.schema([file.schema_arrow.field(name) for name in kept]), self._parquet_blocks(file, kept)

    def _parquet_blocks(self, file: pq.ParquetFile, kept: list[str]) -> Iterator[Block]:
        features = [each for each in self.schema.columns if each.name in file.schema_arrow.names]
        wanted = [*dict.fromkeys([*kept, *(each.name for each in features)])]
        first = 1
        try:
            for batch in file.iter_batches(BLOCK_ROWS, columns=wanted, use_threads=False):
                columns = {each.name: _values(batch[each.name], each.type) for each in features}
                rows = range(first, first + len(batch))
                yield Block(rows, columns, pa.Table.from_batches([batch.select(kept)]), {})
                first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise BadPart(f"is damaged after row {first - 1} ({_words(error)}); deliver it again") from None
        finally:
            file.close()

    def _read_csv(self, path: Path) -> tuple[pa.Schema, Iterator[Block]]:
        with path.open("rb") as lines:
            header = lines.readline()
        try:
            names = next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")]), [])
        except (UnicodeDecodeError, csv.Error):
            raise BadPart("has no header in UTF-8; deliver it again") from None
        if not names:
            raise BadPart("is empty; deliver it again")
        kept = self._kept(names)
        return pa.schema([(name, pa.string()) for name in kept]), self._csv_blocks(path, names, kept)

    def _csv_blocks(self, path: Path, names: list[str], kept: list[str]) -> Iterator[Block]:
        features = [each for each in self.schema.columns if each.name in names]
        before = 1
        with path.open("rb") as file:
            header = file.readline()
            while lines := file.readlines(BLOCK_BYTES):
                if not lines[-1].endswith(b"\n"):
                    raise BadPart("is truncated: its last row has no line break; deliver it again")
                table, malformed = _cut(header, lines, names, before)
                columns = {
                    each.name: _numbers(table[each.name]) if each.type == "number" else table[each.name].to_pylist()
                    for each in features
                }
                rows = [row for row in range(before + 1, before + 1 + len(lines)) if row not in malformed]
                yield Block(rows, columns, table.select(kept), malformed)
                before += len(lines)

    def _kept(self, names: Sequence[str]) -> list[str]:
        """Return the columns to copy. Raise BadPart if a column lacks, or is not known to the model."""
        features = [each.name for each in self.schema.columns]
        required = [each.name for each in self.schema.columns if each.required]
        known = {*features, *self.schema.key, self.schema.target, *self.keep}
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise BadPart(f"has twice the column {listed(twice)}; deliver each column once")
        if missing := [name for name in dict.fromkeys([*required, *self.keep]) if name not in names]:
            raise BadPart(f"lacks the column {listed(missing)}; deliver it again with all columns")
        if unknown := [name for name in names if name not in known]:
            raise BadPart(
                f"has the column {listed(unknown)}, which the model does not read; leave it out, or copy it to the "
                "answers with --keep"
            )
        return [name for name in dict.fromkeys([*self.schema.key, *self.keep]) if name in names]


def _cut(header: bytes, lines: list[bytes], names: list[str], before: int) -> tuple[pa.Table, dict[int, str]]:
    """Split lines into columns of text. Return them, and the reason for each line with too few or too many values."""
    malformed: dict[int, str] = {}

    def refuse(row: pa.csv.InvalidRow) -> str:
        malformed[row.number - 1 + before] = f"has {row.actual_columns} values instead of {row.expected_columns}"
        return "skip"

    try:
        table = pa.csv.read_csv(
            io.BytesIO(header + b"".join(lines)),
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=refuse, ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowException as error:
        raise BadPart(f"is not CSV after row {before} ({_words(error)}); deliver it again") from None
    if len(table) + len(malformed) != len(lines):
        odd = [number for number, line in enumerate(lines, before + 1) if line.count(b'"') % 2]
        where = f"in row {odd[0]}" if odd else f"after row {before}"
        raise BadPart(f"has a quote that is not closed, or a line break in a value, {where}; deliver one row a line")
    return table, malformed


def _numbers(texts: pa.ChunkedArray) -> list[Any]:
    """Convert text to numbers. A text that is not a number stays text, so that the check of the record refuses it."""
    try:
        numbers = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        numbers = None
    if numbers is None or pc.all(pc.is_finite(numbers), min_count=0).as_py() is False:
        return [float(text) if text and NUMBER.fullmatch(text) else text for text in texts.to_pylist()]
    return _listed(numbers)


def _values(array: pa.Array, kind: str) -> list[Any]:
    """Convert a column of a Parquet file to the values of JSON. NaN and NaT mean a missing value."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind == "date":
        return _dates(array)
    if pa.types.is_floating(array.type):
        array = array.cast(pa.float64())
        missing = pc.is_nan(array)
        array = pc.if_else(missing, None, array) if pc.any(missing).as_py() else array
    elif pa.types.is_integer(array.type) or pa.types.is_decimal(array.type):
        array = array.cast(pa.float64(), safe=False)
    return _listed(array)


def _dates(array: pa.Array) -> list[Any]:
    """Convert dates to the text of JSON. A time of the day stays in the text, so that the check refuses it."""
    if not (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        return array.to_pylist()  # type: ignore[no-any-return]
    days = array.cast(pa.date32(), safe=False)
    texts = pc.if_else(pc.equal(days.cast(array.type), array), days.cast(pa.string()), array.cast(pa.string()))
    return texts.to_pylist()  # type: ignore[no-any-return]


def _listed(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Convert an array to a list. NumPy is faster, but has no missing integers."""
    if array.null_count == 0 and pa.types.is_floating(array.type):
        return array.to_numpy().tolist()  # type: ignore[no-any-return]
    return array.to_pylist()  # type: ignore[no-any-return]


def _words(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")

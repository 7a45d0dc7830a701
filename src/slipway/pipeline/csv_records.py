"""Split CSV into records, as RFC 4180 defines them, and report each fault with its cause. No record is lost."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from slipway.errors import InputError

UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"
QUOTE = b'"'
ESCAPED_QUOTE = b'\\"'
"""A quote after a backslash. RFC 4180 allows such a quote only at the end of a value, but Spark also writes it inside a
value.
"""
TEXT_AFTER_QUOTE = re.compile(rb'"(?:(?<=[^,\n"]")|(?<=[,\n]")")(?:"")*(?!["\r\n,]|[ \t]+[\r\n,])')
"""Matches a value such as `"two" words`, whose quotes Arrow drops without an error. It also matches a few valid values,
such as `5" pipe`, so `_check_records` decides.
"""
NUL = b"\0"
"""A byte that no text contains. File systems leave NUL bytes in files that were being written during a crash."""
END_OF_DOS = b"\x1a"
"""Ctrl-Z, with which some old programs end a text file."""
MOST_BYTES = 64_000_000
"""Maximum size in bytes of a line, of a quoted value and of adjacent blank lines. A larger size means an unclosed
quote, or a compressed file that was made to fill the memory.
"""
LONGEST_NAME = 10_000
"""Maximum length of a column name. A line with a longer name is not a header."""
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Matches the texts that are read as numbers."""
BOOLEANS = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}
"""The texts that are read as booleans, in upper or lower case, with their values."""
NOT_CSV = {
    "version https://git-lfs": "is a pointer of Git LFS instead of the file; deliver the file itself",
    "-----BEGIN PGP": "is encrypted with PGP; deliver it without encryption",
    "{\\rtf": "is RTF instead of CSV; deliver it as CSV or Parquet",
    "{": "is JSON instead of CSV; deliver it as CSV or Parquet",
    "[{": "is JSON instead of CSV; deliver it as CSV or Parquet",
    "[[": "is JSON instead of CSV; deliver it as CSV or Parquet",
    "<": "is HTML or XML instead of CSV; deliver it as CSV or Parquet",
}
"""The first characters of files in other formats, each with the cause and the fix for the message."""
csv.field_size_limit(MOST_BYTES)  # the limit is for the whole process, so it must not depend on the files


@dataclass(frozen=True)
class Rows:
    """A block of records from a file, as text, with their row numbers. The header is row 1.

    If a record cannot be split into columns, `malformed` maps its row number to the fault and the text of the line.
    """

    table: pa.Table
    numbers: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    malformed: Mapping[int, tuple[str, str]]
    start: str


def read_csv(stream: IO[bytes], where: str, block_bytes: int) -> Iterator[Rows]:
    """Yield the records of a file in blocks of about `block_bytes` bytes.

    Raises InputError if the file is empty, truncated or not UTF-8, if its lines end with CR alone, or if its quotes do
    not follow RFC 4180.
    """
    blocks = _blocks(stream, where, block_bytes)
    header, first_block = _header(next(blocks, b""), where)
    start = (header + first_block[:2000]).decode(errors="replace")
    before = 1
    for block in _chained(first_block, blocks):
        table, malformed = _parse(header, block, before, where)
        count = len(table) + len(malformed)
        numbers = np.arange(before + 1, before + 1 + count, dtype=np.int64)
        if malformed:
            numbers = numbers[~np.isin(numbers, [*malformed])]
        yield Rows(table, numbers, malformed, start)
        before += count


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _blocks(stream: IO[bytes], where: str, size: int) -> Iterator[bytes]:
    """Yield blocks of whole records.

    Blank lines at the end of the file are left out. A block never ends inside a quoted value.
    """
    blank = b""
    is_first = True
    while block := stream.read(size):
        block += _line(stream, where)
        if is_first:
            _check_encoding(block[:20], where)
            is_first = False
        if block.count(QUOTE) % 2:
            block += b"".join(_until_closed(stream, where))
        if block == END_OF_DOS or block.endswith(b"\n" + END_OF_DOS):
            block = block.removesuffix(END_OF_DOS)
        if block and not block.endswith(b"\n"):
            raise _without_line_end(block, where)
        block = blank + block
        end = _end_of_records(block)
        block, blank = block[:end], block[end:]
        if len(blank) > MOST_BYTES:
            raise InputError(f"{where} has more than {MOST_BYTES:,} bytes of blank lines; deliver it again.")
        if block:
            yield block


def _end_of_records(block: bytes) -> int:
    """Return the position where the blank lines at the end of a block start."""
    text = len(block.rstrip(b"\r\n"))
    return block.find(b"\n", text) + 1 if text else 0


def _line(stream: IO[bytes], where: str) -> bytes:
    """Read `stream` up to the next line break. Raises InputError after `MOST_BYTES` bytes without a line break."""
    line = stream.readline(MOST_BYTES)
    if len(line) == MOST_BYTES and not line.endswith(b"\n"):
        raise InputError(f"{where} has a line of more than {MOST_BYTES:,} bytes; deliver it again.")
    return line


def _until_closed(stream: IO[bytes], where: str) -> Iterator[bytes]:
    """Yield lines up to the line with the closing quote. Stop after `MOST_BYTES` bytes."""
    read = 0
    while read < MOST_BYTES and (line := _line(stream, where)):
        yield line
        read += len(line)
        if line.count(QUOTE) % 2:
            return


def _check_encoding(start: bytes, where: str) -> None:
    if start.startswith(UTF_32):
        raise InputError(f"{where} is UTF-32; deliver the file in UTF-8.")
    if start.startswith(UTF_16) or (len(start) > 8 and any(start) and not (any(start[0::2]) and any(start[1::2]))):
        raise InputError(f"{where} is UTF-16; deliver the file in UTF-8.")


def _without_line_end(block: bytes, where: str) -> InputError:
    if b"\r" in block and b"\n" not in block:
        return InputError(f"{where} ends its lines with CR alone; deliver it with LF or CRLF at the end of each line.")
    other = next((words for start, words in NOT_CSV.items() if block.startswith(start.encode())), None)
    return InputError(f"{where} {other or 'is truncated: its last row has no line break; deliver it again'}.")


def _header(block: bytes, where: str) -> tuple[bytes, bytes]:
    """Split the first block into the header and the other records."""
    if not block.strip():
        raise InputError(f"{where} is empty; deliver it again.")
    if block.removeprefix(BOM).startswith((b'{"', b'[{"')):  # its escaped quotes would give another message
        raise InputError(f"{where} {NOT_CSV['{']}.")
    end = block.find(b"\n") + 1
    while block.count(QUOTE, 0, end) % 2 and end < len(block):
        end = block.find(b"\n", end) + 1
    header = block[:end]
    while header.startswith(BOM):  # a program that adds a mark may have read one before
        header = header.removeprefix(BOM)
    if b"\r" in header.removesuffix(b"\n").removesuffix(b"\r"):
        raise InputError(f"{where} is not CSV: its header has a CR that ends no line; deliver it again.")
    return header, block[end:]


def _parse(header: bytes, block: bytes, before: int, where: str) -> tuple[pa.Table, dict[int, tuple[str, str]]]:
    """Split a block into columns of text. Also return the rows with too few or too many values."""
    content = header + block
    _check_text(content, before - 1, where)
    malformed: dict[int, tuple[str, str]] = {}

    def refuse(row: pa.csv.InvalidRow) -> str:
        fault = f"has {row.actual_columns} values instead of {row.expected_columns}"
        malformed[row.number + before - 1] = (fault, row.text)
        return "skip"

    try:
        names = _names(header)
        table = pa.csv.read_csv(
            io.BytesIO(content),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=pa.csv.ParseOptions(
                invalid_row_handler=refuse, ignore_empty_lines=False, newlines_in_values=QUOTE in content
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, null_values=[""], strings_can_be_null=True
            ),
        )
    except (csv.Error, pa.ArrowInvalid) as error:
        raise InputError(f"{where} is not CSV ({error}); deliver it again.") from None
    if table.column_names != names:  # Arrow guesses the type of a column with another name, so zeros could be lost
        raise InputError(f"{where} is not CSV: its header cannot be read; deliver it again.")
    quotes = block.count(QUOTE)
    is_doubtful = quotes % 2 or (quotes and (ESCAPED_QUOTE in block or TEXT_AFTER_QUOTE.search(content)))
    if is_doubtful or block.count(b"\n") != len(table) + len(malformed):
        _check_records(content, before - 1, len(table) + len(malformed), where)
    return table, malformed


def _names(header: bytes) -> list[str]:
    names = next(csv.reader(io.StringIO(header.decode(), newline="")), [])
    if max(map(len, names), default=0) > LONGEST_NAME:
        raise csv.Error(f"a column name has more than {LONGEST_NAME:,} characters")
    return names


def _check_records(content: bytes, before: int, count: int, where: str) -> None:
    """Raise InputError if a quote is not closed or ends before its value, or if a line break is not in quotes.

    Without this check, rows or quotes would be lost.
    """
    row = 0
    try:
        for _ in csv.reader(io.StringIO(content.decode(), newline=""), strict=True):
            row += 1
    except csv.Error as error:
        if ESCAPED_QUOTE in content and "expected after" in str(error):
            raise InputError(
                f"{where}, row {before + row + 1}: a quote in a value has a backslash before it; write such a quote "
                "twice, as RFC 4180 defines it (in Spark with the option `escape` = '\"')."
            ) from None
        if "expected after" in str(error):
            raise InputError(
                f"{where}, row {before + row + 1}: text follows the closing quote of a value; write a quote in a value "
                "twice, as RFC 4180 defines it."
            ) from None
        raise InputError(
            f"{where}, row {before + row + 1}: a quote is not closed, or a line break is not in quotes ({error}); "
            "deliver CSV as RFC 4180 defines it."
        ) from None
    if row - 1 != count:
        raise InputError(
            f"{where} has {row - 1} rows, of which {count} can be read; deliver CSV as RFC 4180 defines it."
        )


def _check_text(content: bytes, before: int, where: str) -> None:
    if (place := content.find(NUL)) >= 0:
        row = before + content.count(b"\n", 0, place) + 1
        raise InputError(f"{where}, row {row}: has a NUL byte, so the file is damaged or not UTF-8; deliver it again.")
    if content.isascii():  # this check copies nothing
        return
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = before + content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}, row {row}: not UTF-8; deliver the file in UTF-8.") from None

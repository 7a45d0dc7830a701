"""Read a delivery in chunks. A delivery is a CSV file, a Parquet file, or a folder with parts in one of these formats.

A folder can also contain images. The CSV or Parquet files of such a folder are the index, which names the image file of
each row.

No other module opens deliveries. `find_deliveries` lists the deliveries in a folder, and `read_chunks` reads one
delivery. The format and the compression are recognised by the content, so a wrong suffix does no harm. Equal rows give
equal chunks in every format, except that CSV columns are always text.
"""

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from slipway.delivery_names import HIDDEN, delivery_name, list_deliveries, reason_not_taken
from slipway.errors import InputError
from slipway.image_archives import is_archive, is_image
from slipway.pipeline.csv_records import Rows, read_csv
from slipway.pipeline.image_folder import ImageFolder, find_images, has_only_images

RowNumbers = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Array of row numbers in a delivery."""
OTHER_FOLDERS = {
    "_temporary": "has the folder _temporary, so it is still being written; deliver it when complete",
    "_delta_log": "is a Delta Lake table, which also has files of rows that were removed; set `ingest.source` to the "
    "table and `ingest.format: delta` in params.yaml",
    ".hoodie": "is a Hudi table, which also has files of older rows; deliver its current rows as a folder of Parquet "
    "files",
}
"""Names of folders that a delivery must not contain, each with the cause and the fix for the message."""
PARQUET = b"PAR1"
MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x50\x2a\x4d\x18": ".zst",  # a frame that readers skip, with which parallel compressors start
    b"PK\x03\x04": ".zip",
}
"""The first bytes of compressed files."""
OTHER_FORMATS = {
    b"ARROW1\0\0": "an Arrow or Feather file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "an Avro file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF-": "a PDF file",
    b"\x04\x22\x4d\x18": "a file compressed with LZ4",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!\x1a": "a RAR archive",
    b"PK\x05\x06": "an empty ZIP archive",
}
"""The first bytes of files in other formats, each with the words for the message."""
ENCRYPTED_PARQUET = b"PARE"
"""The first bytes of an encrypted Parquet file. A length in four bytes follows, which is small."""
DAMAGED = (
    EOFError,
    OSError,
    UnicodeDecodeError,
    lzma.LZMAError,
    zlib.error,
    zipfile.BadZipFile,
    pa.ArrowException,
)
TAR, TAR_PLACE = b"ustar", 257
OFFICE = {"[Content_Types].xml": "an Excel workbook", "content.xml": "an OpenDocument spreadsheet"}
"""Names of files in every workbook, each with the words for the message. A workbook is a ZIP archive."""
PART_BYTES = 16_000_000
"""Size of the blocks in which a CSV file is read, in bytes. Only one block at a time is in memory."""
PART_ROWS = 100_000
"""Maximum number of rows that are read from a Parquet file at a time. Fewer rows are read at a time if the rows are
large.
"""
UNPACKED_BYTES = 1_000_000_000
"""Maximum size in bytes of a Parquet file inside a compressed file. Such a Parquet file is unpacked into memory."""
PACKED_BYTES = 64 * 1024
"""Number of bytes of a compressed file that are decompressed at a time."""
BATCH_BYTES = 256_000_000
"""Maximum size of the rows that are in memory at a time, in bytes."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a delivery, as they were delivered.

    `table` has the delivered columns. `rows` contains the row numbers. The first data row is row 2 in every format,
    because row 1 is the header of a CSV file. If a delivery has several parts, the numbers continue from part to part.
    If a row cannot be split into columns, `malformed` maps its number to its fault and its line. `start` is the
    beginning of a CSV file, for messages about its header. `images` contains the image files of the folder. The values
    of an image column are names of these files.
    """

    table: pa.Table
    rows: RowNumbers
    malformed: Mapping[int, tuple[str, str]]
    where: str
    start: str = ""
    images: ImageFolder | None = None

    @property
    def size(self) -> int:
        """The approximate size of the rows in bytes, including their image files."""
        return int(self.table.nbytes) + len(self.rows) * (self.images.mean_size if self.images else 0)

    def as_text(self, rows: RowNumbers) -> pa.Table:
        """Return the rows of the chunk whose numbers are in `rows`, as text, ordered by number.

        The first column of a malformed row contains its whole line.
        """
        known = np.isin(self.rows, rows)
        numbers = self.rows[known]
        table = text_table(self.table.filter(pa.array(known)))
        lines = {row: text for row, (_, text) in self.malformed.items() if row in rows}
        if lines:
            uncut = pa.table({table.column_names[0]: pa.array([*lines.values()], pa.string())})
            table = pa.concat_tables([table, uncut], promote_options="default")
            table = table.take(pa.array(np.argsort([*numbers, *lines], kind="stable")))
        return table

    def as_csv(self) -> list[bytes]:
        """Return each row as a line of CSV, with the malformed rows last. Line breaks in values are escaped."""
        table = pa.table([_one_line(_text(each)) for each in self.table.columns], self.table.column_names)
        written = io.BytesIO()
        pa.csv.write_csv(table, written, pa.csv.WriteOptions(include_header=False))
        return [*written.getvalue().split(b"\n")[:-1], *(text.encode() for _, text in self.malformed.values())]


@dataclass(frozen=True)
class Found:
    """The deliveries in a folder, ordered by name, and the reason why each other file is not a delivery."""

    deliveries: Mapping[str, Path]
    not_taken: Mapping[str, str]


def find_deliveries(folder: Path) -> Found:
    """Return the deliveries in a folder. Raises InputError if it is missing or has a wrong file name."""
    if not folder.is_dir():
        raise InputError(f"{folder}/ is not in this clone; run `dvc pull`, or create it for the first delivery.")
    listing = list_deliveries(
        ((path.name, path.is_dir()) for path in folder.iterdir()), lambda name: f"{folder}/{name}"
    )
    if listing.errors:
        raise listing.errors[0]
    paths = {name: folder / entry for name, entry in listing.deliveries.items()}
    without_parts = {name for name, path in paths.items() if path.is_dir() and not any(path.iterdir())}
    return Found(
        {name: path for name, path in paths.items() if name not in without_parts},
        {**listing.not_taken, **{str(paths[name]): "the folder is empty" for name in without_parts}},
    )


def read_chunks(path: Path, where: str | None = None) -> Iterator[Chunk]:
    """Yield a delivery in chunks that fit into memory, with at least one chunk for each part.

    `where` replaces `path` in messages, for example if `path` is a copy of the delivery. Raises InputError if a file
    cannot be read.
    """
    where = where or str(path)
    images = find_images(path, where) if path.is_dir() else None
    before = 0  # number of rows in the parts that were read before
    for part, place in _parts(path, where, images):
        count = 0
        for chunk in _read_file(part, place, in_folder=path.is_dir()):
            count += len(chunk.rows) + len(chunk.malformed)
            malformed = {row + before: fault for row, fault in chunk.malformed.items()}
            found = replace(chunk, rows=chunk.rows + before, malformed=malformed, images=images)
            yield from _cut(found) if images else [found]
        before += count


def _cut(chunk: Chunk) -> Iterator[Chunk]:
    """Divide a chunk into chunks whose image files fit into memory."""
    step = max(1, BATCH_BYTES * len(chunk.rows) // max(chunk.size, 1))
    yield replace(chunk, table=chunk.table.slice(0, step), rows=chunk.rows[:step])
    for start in range(step, len(chunk.rows), step):
        table, rows = chunk.table.slice(start, step), chunk.rows[start : start + step]
        yield replace(chunk, table=table, rows=rows, malformed={})


def _parts(path: Path, where: str, images: ImageFolder | None) -> Iterable[tuple[Path, str]]:
    if not path.is_dir():
        return [(path, where)]
    for name, reason in OTHER_FOLDERS.items():
        if (path / name).exists():
            raise InputError(f"{where} {reason}.")
    for each in sorted(path.iterdir()):
        if each.is_dir() and not each.name.startswith(HIDDEN) and not has_only_images(each):
            raise InputError(
                f"{where} has the folder {each.name}, but parts must lie side by side; write it without folders."
            )
    files = sorted(
        each for each in path.iterdir() if not each.is_dir() and not is_image(each.name) and not is_archive(each.name)
    )
    parts = [each for each in files if delivery_name(each.name)]
    for each in files:
        why = None if each in parts else reason_not_taken(each.name)
        if why:
            raise InputError(f"{where}/{each.name} is not a part of a delivery, because {why}; remove or rename it.")
    if not parts and images:
        raise InputError(
            f"{where} has images, but no index; add a CSV or Parquet file that names the image of each row."
        )
    if not parts:
        raise InputError(f"{where} is a folder without parts that are CSV or Parquet; deliver it again.")
    return [(part, f"{where}/{part.name}") for part in parts]


def _read_file(path: Path, where: str, *, in_folder: bool) -> Iterator[Chunk]:
    if not path.is_file():  # opening a named pipe would block forever
        raise InputError(f"{where} is neither a file nor a link to a file; deliver the file itself.")
    try:
        if not path.stat().st_size and in_folder:  # Spark writes an empty file for a partition without rows
            return
        compression = _compression(path)
        with _opened(path, compression, where) as stream:
            start = stream.peek(TAR_PLACE + len(TAR))
            if start[TAR_PLACE:].startswith(TAR):
                raise InputError(f"{where} is a tar archive; deliver a file or a folder instead.")
            if compression and start.startswith(tuple(MAGIC)):
                raise InputError(f"{where} is compressed twice; compress it once.")
            if other := _other_format(start):
                raise InputError(f"{where} is {other}; deliver it as CSV or Parquet.")
            if start.startswith(PARQUET):
                # A Parquet file is read from its end, so a compressed file is unpacked completely first.
                yield from _read_parquet(_unpacked(stream, where) if compression else path, where)
            elif ".parquet" in path.name.lower() and path.stat().st_size:
                raise InputError(f"{where} is not Parquet; deliver it again, or name it after its format.")
            else:
                yield from _read_csv(stream, where)
    except DAMAGED as error:
        words = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"{where} is truncated or damaged ({words}); deliver it again.") from None


def _other_format(start: bytes) -> str | None:
    """Return the words for a format that cannot be delivered, by the first bytes of a file."""
    if start.startswith(ENCRYPTED_PARQUET) and b"\0" in start[4:8]:  # the name of a CSV column can start like this
        return "an encrypted Parquet file"
    return next((words for magic, words in OTHER_FORMATS.items() if start.startswith(magic)), None)


def _unpacked(stream: IO[bytes], where: str) -> bytes:
    content = stream.read(UNPACKED_BYTES + 1)
    if len(content) > UNPACKED_BYTES:
        raise InputError(
            f"{where} is a compressed Parquet file with more than {UNPACKED_BYTES:,} bytes; deliver the Parquet file "
            "itself, which is compressed already."
        )
    return content


def _read_csv(stream: IO[bytes], where: str) -> Iterator[Chunk]:
    rows: Rows
    for rows in read_csv(stream, where, PART_BYTES):
        yield Chunk(rows.table, rows.numbers, rows.malformed, where, rows.start)


def _read_parquet(source: Path | bytes, where: str) -> Iterator[Chunk]:
    content = pa.BufferReader(source) if isinstance(source, bytes) else source
    # Spark writes timestamps as 96 bits. As nanoseconds, the year 9999 would silently become the year 1816.
    with pq.ParquetFile(content, page_checksum_verification=True, coerce_int96_timestamp_unit="us") as file:
        names = file.schema_arrow.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{where} has twice the column {twice[0]!r}; deliver it with one of them.")
        first = 2
        empty = file.schema_arrow.empty_table()
        has_views = "_view" in "".join(map(str, file.schema_arrow.types))
        for batch in file.iter_batches(_rows_at_a_time(file.metadata)) if file.metadata.num_rows else [empty]:
            table = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
            table = _without_views(table) if has_views else table
            table.validate(full=True)  # finds text that is not UTF-8, and other damage that no checksum covers
            yield Chunk(table, np.arange(first, first + len(table), dtype=np.int64), {}, where)
            first += len(table)


def _without_views(table: pa.Table) -> pa.Table:
    """Convert the types `string_view` and `binary_view`, whose rows Arrow cannot select."""
    return table.cast(pa.schema([each.with_type(_type_without_views(each.type)) for each in table.schema]))


def _type_without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_type_without_views(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_type_without_views(each.type)) for each in kind])
    return kind


def _rows_at_a_time(metadata: pq.FileMetaData) -> int:
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(PART_ROWS, BATCH_BYTES * int(metadata.num_rows) // max(int(size), 1)))


def _compression(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(8)
    return next((suffix for magic, suffix in MAGIC.items() if start.startswith(magic)), None)


@contextmanager
def _opened(path: Path, compression: str | None, where: str) -> Iterator[Any]:
    """Open a file and yield a stream with its decompressed content."""
    with path.open("rb") as file:
        match compression:
            case ".gz":
                with gzip.GzipFile(fileobj=file) as content:
                    yield content
            case ".bz2":
                yield io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))
            case ".xz":
                yield io.BufferedReader(_Streams(file, lzma.LZMADecompressor))
            case ".zst":
                yield io.BufferedReader(pa.CompressedInputStream(file, "zstd"))
            case ".zip":
                with zipfile.ZipFile(file) as archive, _only_file(archive, where) as content:
                    yield content
            case _:
                yield file


class _Streams(io.RawIOBase):
    """The content of a file with one or more compressed streams, as parallel compressors write them.

    Python's own readers of bz2 and xz end without an error at a damaged stream after the first, so its rows would be
    lost. This reader raises the error of the decompressor.
    """

    def __init__(self, file: IO[bytes], start: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._start = file, start
        self._stream = start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        while not content:
            packed = b""
            if self._stream.eof:
                packed = self._next_stream(self._stream.unused_data)
                if not packed:
                    return 0
                self._stream = self._start()
            elif self._stream.needs_input:
                packed = self._file.read(PACKED_BYTES)
                if not packed:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            content = self._stream.decompress(packed, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _next_stream(self, packed: bytes) -> bytes:
        """Return the start of the next stream, or no bytes at the end of the file. Zeros may lie between streams."""
        packed = packed.lstrip(b"\0")
        while not packed and (read := self._file.read(PACKED_BYTES)):
            packed = read.lstrip(b"\0")
        return packed


def _only_file(archive: zipfile.ZipFile, where: str) -> IO[bytes]:
    """Open the only file of an archive. Hidden files, such as those of macOS, are left out."""
    names = [each for each in archive.namelist() if not each.endswith("/")]
    if office := next((words for name, words in OFFICE.items() if name in names and len(names) > 1), None):
        raise InputError(f"{where} is {office}; deliver it as CSV or Parquet.")
    names = [each for each in names if not each.rpartition("/")[2].startswith(HIDDEN)]
    if len(names) != 1:
        raise InputError(f"{where} is an archive of {len(names)} files; deliver one file.")
    try:
        return archive.open(names[0])
    except RuntimeError as error:  # the archive has a password or an unsupported compression
        raise InputError(f"{where} cannot be unpacked ({error}); deliver it as gzip, or as CSV or Parquet.") from None


def text_table(table: pa.Table) -> pa.Table:
    """Convert all columns to text. If two columns have the same name, only the first is kept."""
    names = table.column_names
    return pa.table({name: _text(table.column(names.index(name))) for name in dict.fromkeys(names)})


def _one_line(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    for character, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r")):
        texts = pc.replace_substring(texts, character, escaped)
    return texts


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return values
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        encoded = [None if value is None else base64.b64encode(value).decode() for value in values.to_pylist()]
        return pa.chunked_array([pa.array(encoded, pa.string())])
    try:
        return pc.cast(values, pa.string())
    except pa.ArrowException:
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])

"""Read deliveries from a SQL query with a watermark, which is a column with a larger value in each later row.

Each delivery contains the rows that are not in data/ yet, and is named after the newest watermark of these rows. The
deliveries in data/ show which rows were taken already, so no separate state is stored.
"""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from slipway.config import Ingest, duration
from slipway.delivery_names import Listing
from slipway.errors import InputError
from slipway.integrations.database import Database, QueryWords, RowFile

if TYPE_CHECKING:
    from sqlalchemy import Connection

USER, PASSWORD = "SLIPWAY_SOURCE_USER", "SLIPWAY_SOURCE_PASSWORD"
"""Environment variables with the credentials of the database."""
WORDS = QueryWords("params.yaml: ", "`ingest.source`", "`ingest.query`")
Watermark = datetime | date | int
TIMESTAMP = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2})(\d{2})(\d{2}\.\d{6})(Z?)")
DIGITS = 19
"""Number of digits for a whole-number watermark in the name of a delivery. Names of equal length sort by number."""
REPEATED = re.compile(r"_(\d{3})$")


class Taken(Protocol):
    """The rows that were taken already: the deliveries in data/."""

    @property
    def deliveries(self) -> Mapping[str, str]:
        """A map from the name of each delivery to its file."""

    def newest(self, column: str, kind: pa.DataType) -> Any:
        """Return the largest value of a column in all deliveries, or None if no delivery has the column."""

    def since(self, low: Any, columns: Sequence[str], kinds: Sequence[pa.DataType]) -> Collection[tuple[Any, ...]]:
        """Return the values of `columns` in each row whose value of the column `columns[-1]` is at least `low`."""


@dataclass(frozen=True)
class Bounds:
    """The range of a delivery's watermarks, from `low` to `high` inclusive.

    `low` is None if there is no lower bound.
    """

    low: Watermark | None
    high: Watermark


class QuerySource:
    """The rows from a SQL query that are not in data/ yet, as one delivery.

    `key` lists the columns that identify a row. `until` is the name of an earlier delivery that is made again, without
    newer rows. `today` is None if the newest watermark may be in the future. Every method raises InputError if the
    database cannot be read.
    """

    def __init__(
        self,
        settings: Ingest,
        key: Sequence[str],
        taken: Taken,
        environ: Mapping[str, str],
        until: str | None = None,
        today: date | None = None,
    ) -> None:
        self.address, self._today = settings.source, today
        self._settings, self._watermark, self._taken, self._until = settings, settings.watermark or "", taken, until
        self._columns = [*(name for name in key if name != self._watermark), self._watermark]
        self._database = Database(settings.source, settings.query or "", WORDS, USER, PASSWORD, environ)
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-")
        self._file = Path(self._folder.name) / "rows.parquet"
        self._listing: Listing | None = None

    def listing(self) -> Listing:
        """Run the query on the first call, and write its new rows to a temporary file.

        Return the deliveries in data/ that came from the query, and the new delivery if there are new rows.
        """
        if self._listing is None:
            self._listing = self._list()
        return self._listing

    def newest(self) -> Watermark:
        """Return the newest watermark. This query is cheap if the watermark column has an index."""
        with self._database.connected() as connection:
            return self._newest(connection)[0]

    def _list(self) -> Listing:
        known = {name: file for name, file in self._taken.deliveries.items() if self._made(name, file)}
        with self._database.connected() as connection:
            high, without = self._newest(connection)
            bounds = Bounds(self._low(high), high)
            rows = self._write_new_rows(connection, bounds)
        skipped = {f"{without:,} rows of {self.address}": f"they have no {self._watermark}"} if without else {}
        if not rows:
            return Listing(known, skipped)
        name = self._until or self._free_name(high)
        return Listing({**known, name: f"{name}.parquet"}, skipped)

    def where(self, name: str) -> str:
        """Return the address of a delivery, for messages."""
        return f"{self.address}, delivery {name.removesuffix('.parquet')}"

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a Parquet file with the rows of the new delivery."""
        copy = self._file.with_name(name)
        shutil.copyfile(self._file, copy)
        yield copy

    def has(self, name: str, ingested: Path) -> bool:  # noqa: ARG002  # a changed row has a new watermark
        """Return True without a comparison, because the rows of a delivery in data/ are never taken again."""
        return True

    def _made(self, name: str, file: str) -> bool:
        return file == f"{name}.parquet" and self._watermark_of(name) is not None

    def _watermark_of(self, name: str) -> Watermark | None:
        """Return the watermark in the name of a delivery, or None if the name contains no watermark."""
        if not name.startswith(self._settings.prefix):
            return None
        text = REPEATED.sub("", name[len(self._settings.prefix) :])
        try:
            if found := TIMESTAMP.fullmatch(text):
                day, hour, minute, second, zone = found.groups()
                return datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}{'+00:00' if zone else ''}")
            return int(text) if re.fullmatch(rf"\d{{{DIGITS}}}", text) else date.fromisoformat(text)
        except ValueError:
            return None

    def _free_name(self, high: Watermark) -> str:
        """Return an unused name for the new delivery. The name contains `high`, the newest watermark.

        If all new rows are late, an earlier delivery already has the name with the newest watermark. A number is then
        appended.
        """
        first = self._settings.prefix + _as_text(high)
        names = (first, *(f"{first}_{number:03}" for number in range(2, 1000)))
        return next(name for name in names if name not in self._taken.deliveries)

    def _newest(self, connection: "Connection") -> tuple[Watermark, int]:
        """Return the newest watermark, and the number of rows without a watermark."""
        self._check_columns(self._database.columns(connection))
        column = self._database.quoted(connection, self._watermark)
        newest = self._database.scalar(connection, f"SELECT max({column})")
        if newest is None:
            raise InputError(
                f"The query of `ingest.query` returns no rows with {self._watermark} from {self.address}; correct the "
                "query, or give the database user access to the table."
            )
        without = int(self._database.scalar(connection, "SELECT count(*)", f" WHERE {column} IS NULL"))
        high = _watermark(newest, self._watermark)
        if self._until is None:
            self._check_not_future(high)
            return high, without
        named = self._watermark_of(self._until)
        if named is None or type(named) is not type(high):
            raise InputError(f"{self._until} is not the name of a delivery from {self.address}; name another.")
        return named, without

    def _check_not_future(self, high: Watermark) -> None:
        """Raise InputError if the newest watermark is after tomorrow, because all later rows would be older than it."""
        if self._today is None or isinstance(high, int):
            return
        day = high.date() if isinstance(high, datetime) else high
        if day > self._today + timedelta(days=1):  # times without a zone can be ahead of UTC
            raise InputError(
                f"The newest {self._watermark} in {self.address} is {day}, which is in the future, so rows with an "
                "earlier one would never be found; correct that row, or leave it out in `ingest.query`."
            )

    def _low(self, high: Watermark) -> Watermark | None:
        newest = self._taken.newest(self._watermark, pa.scalar(high).type)
        if newest is None:
            return None
        overlap = self._settings.overlap
        if isinstance(high, int):
            if isinstance(overlap, str):
                raise InputError(f"params.yaml: `ingest.overlap` is {overlap}, but {self._watermark} is a number.")
            return int(newest) - overlap
        if not isinstance(overlap, str) and overlap:
            raise InputError(
                f"params.yaml: `ingest.overlap` is {overlap}, but {self._watermark} is a time; add a unit."
            )
        seconds = duration(overlap) if isinstance(overlap, str) else 0
        if not isinstance(high, datetime):
            return newest - timedelta(days=-(-seconds // 86_400))  # type: ignore[no-any-return]
        return newest - timedelta(seconds=seconds)  # type: ignore[no-any-return]

    def _write_new_rows(self, connection: "Connection", bounds: Bounds) -> int:
        """Write the rows within the bounds that are not in data/ yet. Return the number of these rows."""
        order = ", ".join(self._database.quoted(connection, name) for name in reversed(self._columns))
        column = self._database.quoted(connection, self._watermark)
        where = f" WHERE {column} <= :high" + (f" AND {column} >= :low" if bounds.low is not None else "")
        values = {"high": bounds.high, "low": bounds.low} if bounds.low is not None else {"high": bounds.high}
        taken: Collection[tuple[Any, ...]] | None = None
        file = RowFile(Path(self._folder.name), WORDS)
        for table in self._database.tables(connection, f"{where} ORDER BY {order}", values):
            keys = table.select(self._columns)
            if taken is None:
                taken = (
                    self._taken.since(bounds.low, self._columns, keys.schema.types) if bounds.low is not None else ()
                )
            new = [row not in taken for row in zip(*(each.to_pylist() for each in keys.columns), strict=True)]
            file.add(table.filter(pa.array(new)))
        return file.write(self._file, self.address)

    def _check_columns(self, names: Sequence[str]) -> None:
        lacking = [name for name in self._columns if name not in names]
        if lacking:
            raise InputError(
                f"params.yaml: the result of `ingest.query` lacks the column {lacking[0]}; correct the query."
            )


def _watermark(value: Any, column: str) -> Watermark:
    """Convert a value to one of the three types of a watermark. Raises InputError for a value of another type."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if isinstance(value, date) or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InputError(
        f"params.yaml: `ingest.watermark` is {column}, whose values are of type {type(value).__name__}; use a column "
        "with timestamps, dates or whole numbers above zero."
    )


def _as_text(watermark: Watermark) -> str:
    """Return the text of a watermark for the name of a delivery. The texts sort in the order of the watermarks."""
    if isinstance(watermark, datetime):
        text = watermark.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "")
        return text + ("Z" if watermark.tzinfo else "")
    return watermark.isoformat() if isinstance(watermark, date) else f"{watermark:0{DIGITS}}"

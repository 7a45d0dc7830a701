"""Read the result of a SQL query from a database, without rounding values and without a password in messages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slipway.errors import InputError
from slipway.integrations.storage import without_secrets

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

ROWS = 10_000
"""Number of rows that are read from the database at a time."""


@dataclass(frozen=True)
class QueryWords:
    """Words for messages about a query: the start, and the names of the settings for the address and the query."""

    start: str
    address: str
    query: str


class Database:
    """A database, and the result of one query. `user` and `password` are names of environment variables."""

    def __init__(
        self, address: str, query: str, words: QueryWords, user: str, password: str, environ: Mapping[str, str]
    ) -> None:
        self.address = without_secrets(address)
        self._url_text, self._words = address, words
        self._user_name, self._password_name = user, password
        self._user, self._password = environ.get(user) or None, environ.get(password) or None
        # Without the backslash, SQLAlchemy would treat :name as a parameter.
        self._query = query.strip().rstrip(";").replace(":", r"\:")

    @contextmanager
    def connected(self) -> Iterator["Connection"]:
        """Connect to the database for the `with` block. Raises InputError if the database cannot be read."""
        with self._errors():
            engine = self._engine()
            try:
                with engine.connect() as connection:
                    yield connection
            finally:
                engine.dispose()

    def columns(self, connection: "Connection") -> list[str]:
        """Return the names of the columns of the result. Raises InputError if a name occurs twice."""
        names = [*connection.execute(self._statement("SELECT *", " WHERE 1 = 0")).keys()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"{self._words.start}the result of {self._words.query} has twice the column {twice[0]}; correct the "
                "query."
            )
        return names

    def scalar(self, connection: "Connection", select: str, rest: str = "") -> Any:
        """Return the single value that `select` computes from the result of the query."""
        return connection.execute(self._statement(select, rest)).scalar()

    def tables(
        self,
        connection: "Connection",
        rest: str = "",
        values: Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """Stream the rows of the result, `ROWS` at a time. `rest` is SQL that restricts and sorts the rows.

        `columns` are the names of the columns to read, by default all columns. Raises InputError if a column has values
        that a Parquet file cannot store.
        """
        select = ", ".join(self.quoted(connection, name) for name in columns) if columns else "*"
        options = connection.execution_options(stream_results=True, max_row_buffer=ROWS)
        rows = options.execute(self._statement(f"SELECT {select}", rest), dict(values or {}))
        names = [*rows.keys()]
        for part in rows.partitions(ROWS):
            yield self._table(names, part)

    @staticmethod
    def quoted(connection: "Connection", name: str) -> str:
        """Quote the name of a column for a SQL statement."""
        preparer = connection.dialect.identifier_preparer
        quoted = str(preparer.quote(name))
        if "%%" in preparer.quote("%"):  # SQLAlchemy also doubles % in the text of a statement
            quoted = quoted.replace("%%", "%")
        return quoted.replace(":", r"\:")

    def _statement(self, select: str, rest: str = "") -> Any:
        from sqlalchemy import text

        return text(f"{select} FROM (\n{self._query}\n) AS delivered{rest}")

    def _engine(self) -> "Engine":
        from sqlalchemy import create_engine

        return create_engine(self._url(), hide_parameters=True)

    def _url(self) -> "URL":
        from sqlalchemy import make_url

        url = make_url(self._url_text)
        file = url.database if url.get_backend_name() == "sqlite" else None
        if file and not file.startswith((":memory:", "file:")) and not Path(file).is_file():
            # SQLite would create an empty database.
            raise InputError(
                f"{self._words.start}{self._words.address} is {self.address}, but there is no file {file}; "
                "correct the address."
            )
        return url.set(username=self._user or url.username, password=self._password)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except ImportError as error:
            package = error.name or "the driver"
            raise InputError(
                f"{self._words.start}{self._words.address} is {self.address}, which needs the package {package}; add "
                "it to requirements/model.in, and run `make lock` and `make setup`."
            ) from None
        except Exception as error:  # each driver has its own exceptions
            raise InputError(
                f"The source {self.address} cannot be read ({self.describe(error)}); check it, its query and its "
                f"credentials in {self._user_name} and {self._password_name}."
            ) from None

    def describe(self, error: Exception) -> str:
        """Return the database driver's error in one line, without the password.

        If a value of a row cannot be converted, the driver's words quote this value, so they are replaced.
        """
        from sqlalchemy.exc import DataError

        cause = getattr(error, "orig", None) or error
        if isinstance(error, DataError):
            return f"{type(cause).__name__}: the query cannot convert a value of a row"
        words = " ".join(f"{type(cause).__name__}: {cause}".split())
        for secret in self._secrets():
            words = words.replace(secret, "***")
        return without_secrets(words)[:200].rstrip(". ")

    def _secrets(self) -> list[str]:
        if not self._password:
            return []
        forms = {self._password, quote(self._password, safe=""), quote_plus(self._password), repr(self._password)[1:-1]}
        return sorted(forms, key=len, reverse=True)

    def _table(self, names: Sequence[str], rows: Sequence[Any]) -> pa.Table:
        """Convert rows to an Arrow table. Raises InputError if a column has values that a Parquet file cannot store.

        Decimal numbers become text, because text is exact. Validation reads the text as numbers.
        """
        columns = []
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            kinds = {type(value) for value in values if value is not None}
            exact = [str(value) if isinstance(value, Decimal) else value for value in values]
            try:
                array = pa.array(exact)
            except (pa.ArrowException, OverflowError, ValueError, TypeError):
                array = pa.array([None])
                kinds.add(object)
            if not kinds <= PLAIN:
                raise InputError(
                    f"{self._words.start}the column {name} of {self._words.query} has values of type "
                    f"{', '.join(sorted(kind.__name__ for kind in kinds))}, which cannot be stored; cast it in the "
                    "query."
                )
            if pa.types.is_timestamp(array.type):
                array = pc.cast(array, pa.timestamp("us", "UTC" if array.type.tz else None))
            columns.append(array)
        return pa.table(columns, [*names])


PLAIN = {bool, int, float, str, Decimal, date, datetime}


class RowFile:
    """Parquet file for the rows of a query. Until `write` is called, the rows are in temporary files in `folder`.

    The type of a column is known only after all rows have been read.
    """

    def __init__(self, folder: Path, words: QueryWords) -> None:
        self._folder, self._words, self._parts = folder, words, 0
        self._types: dict[str, pa.DataType] = {}

    def add(self, table: pa.Table) -> None:
        if not len(table):
            return
        for name, kind in zip(table.column_names, table.schema.types, strict=True):
            self._types[name] = self._common(self._types.get(name, pa.null()), kind, name)
        pq.write_table(table, self._folder / f"part-{self._parts}")
        self._parts += 1

    def write(self, file: Path, address: str) -> int:
        """Write all rows to one Parquet file if there are any, and return their number."""
        if not self._parts:
            return 0
        schema = pa.schema([*self._types.items()])
        rows = 0
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for number in range(self._parts):
                part = self._folder / f"part-{number}"
                table = pq.read_table(part)
                try:
                    writer.write_table(table.cast(schema))
                except pa.ArrowInvalid:  # the message quotes a value
                    raise InputError(
                        f"The rows of {address} cannot be written, because a value does not fit the type of its "
                        "column; cast the column to one type in the query."
                    ) from None
                rows += len(table)
                part.unlink()
        return rows

    def _common(self, before: pa.DataType, now: pa.DataType, name: str) -> pa.DataType:
        """Return one type for a column whose values have the types `before` and `now`."""
        if before == now or pa.types.is_null(now):
            return before
        if pa.types.is_null(before):
            return now
        if {before, now} == {pa.int64(), pa.float64()}:
            return pa.float64()
        raise InputError(
            f"{self._words.start}the column {name} of {self._words.query} has values of the types {before} and {now}; "
            "cast it to one type in the query."
        )

"""Read the rows in data/, so that a source can find out which of its rows were not delivered yet."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from slipway import artifacts
from slipway.delivery_names import is_key_list
from slipway.errors import InputError
from slipway.pipeline.delivery import find_deliveries, read_chunks


class TakenRows:
    """The rows of all deliveries in data/. Deliveries are read in chunks that fit into memory."""

    @property
    def deliveries(self) -> Mapping[str, str]:
        """A map from the name of each delivery to its file name."""
        return {name: path.name for name, path in find_deliveries(artifacts.DATA).deliveries.items()}

    def newest(self, column: str, kind: pa.DataType) -> Any:
        """Return the largest value of a column, or None if no delivery has the column."""
        largest = [pc.max(values).as_py() for (values,) in self._columns([column], [kind])]
        return max((each for each in largest if each is not None), default=None)

    def since(self, low: Any, columns: Sequence[str], kinds: Sequence[pa.DataType]) -> set[tuple[Any, ...]]:
        """Return the values of `columns` in each row whose value of the column `columns[-1]` is at least `low`."""
        found: set[tuple[Any, ...]] = set()
        for values in self._columns(columns, kinds):
            recent = pc.fill_null(pc.greater_equal(values[-1], pa.scalar(low, kinds[-1])), False)
            found.update(zip(*(each.filter(recent).to_pylist() for each in values), strict=True))
        return found

    @staticmethod
    def _columns(names: Sequence[str], kinds: Sequence[pa.DataType]) -> Iterator[list[pa.ChunkedArray]]:
        """Yield the named columns of each chunk, converted to the types `kinds`.

        Deliveries that are lists of keys, and chunks that lack one of the columns, are skipped.
        """
        for name, path in find_deliveries(artifacts.DATA).deliveries.items():
            for chunk in () if is_key_list(name) else read_chunks(path):
                if {*names} <= {*chunk.table.column_names}:
                    columns = zip(chunk.table.select(names).columns, kinds, strict=True)
                    yield [_cast(column, kind, chunk.where) for column, kind in columns]


def _cast(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.ChunkedArray:
    """Convert a column to the type of the query. Times without a zone, as in CSV files, are in UTC."""
    try:
        return pc.cast(column, kind, safe=False)
    except pa.ArrowException:
        pass
    try:
        return pc.assume_timezone(pc.cast(column, pa.timestamp("us")), "UTC")
    except pa.ArrowException:
        raise InputError(
            f"{where} has values that are not of the type {kind}, as in the query; convert the file to that type, or "
            "give the column of the query another name."
        ) from None

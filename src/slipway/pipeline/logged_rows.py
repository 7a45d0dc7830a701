"""Convert the records in a prediction log to the types of validated rows."""

from collections.abc import Iterable
from typing import Protocol

import pandas as pd

from slipway.integrations.log_store import RECORD


class NamedColumn(Protocol):
    """A column in a bundle's schema, or in the header of a log."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


def logged_rows(rows: pd.DataFrame, columns: Iterable[NamedColumn]) -> pd.DataFrame:
    """Return the logged values of `columns`, under the column names of the schema.

    `rows` contains rows of a log file, with the column names of the log. Columns that `rows` lacks are left out.
    """
    known = {each.name: each.type for each in columns if RECORD + each.name in rows}
    values = {name: rows[RECORD + name] for name in known}
    return pd.DataFrame(
        {name: pd.to_datetime(each) if known[name] == "date" else each for name, each in values.items()},
        index=rows.index,
    )

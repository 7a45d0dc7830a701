"""Convert records from clients to a data frame like the training data.

The pipeline was fitted on numbers in single precision. In double precision, a few numbers are on the other side of a
tree's threshold, so predictions would differ.
"""

from datetime import date

import numpy as np
import pandas as pd

EPOCH = date(1970, 1, 1).toordinal()


def frame_of(records: list[dict]) -> pd.DataFrame:
    """Return a data frame with a row for each record. Texts that look like an ISO date become days since 1970."""
    columns = {}
    for name, value in records[0].items():
        values = [record[name] for record in records]
        if is_date(value):
            values = [days(text) for text in values]
        columns[name] = values if isinstance(values[0], str) else np.array(values, dtype=np.float32)
    return pd.DataFrame(columns)


def days(text: str) -> float:
    """Return the number of days from 1970-01-01 to an ISO date."""
    return float(date.fromisoformat(text).toordinal() - EPOCH)


def is_date(value: object) -> bool:
    """Return whether a value is the text of an ISO date."""
    return isinstance(value, str) and len(value) == 10 and value[4] == value[7] == "-"

"""Why an exported graph and the fitted model differ: the row, and the one feature whose value makes the difference."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.bundle import Schema

Agree = Callable[[pd.DataFrame], NDArray[np.bool_]]
ROWS = 20
"""How many of the rows that differ are looked into."""
STEPS = (1, -1, 8, -8)
"""By how many float32 numbers a value is moved: beside a threshold, or further where the input is scaled first."""
OTHERS = 5
"""How many other values of a category are tried."""


def find_cause(
    agree: Agree, frame: pd.DataFrame, differing: NDArray[np.int64], schema: Schema, keys: pd.DataFrame | None
) -> str:
    """Say in which row the graph and the model differ, and which feature does it.

    A feature does it if they agree once its value is another. `agree` says of each row of a frame whether they do.
    """
    for row in differing[:ROWS]:
        tried = list(_variants(frame, int(row), schema))
        rows = pd.concat([variant for variant, _ in tried], ignore_index=True)
        found = np.flatnonzero(agree(rows))
        if len(found):
            return f"in the row {_named(int(row), keys)} {tried[found[0]][1]}"
    return f"for example in the row {_named(int(differing[0]), keys)}, where it is no single feature"


def _variants(frame: pd.DataFrame, row: int, schema: Schema) -> Iterator[tuple[pd.DataFrame, str]]:
    """Copies of a row with one value changed, each with what it shows if both agree on it."""
    original = frame.iloc[[row]]
    for name in schema.numbers:
        value = original[name].to_numpy(dtype=np.float32)[0]
        if np.isnan(value):
            there = frame[name].median(skipna=True)
            yield original.assign(**{name: np.float32(there)}), f"`{name}` is missing, and they agree where it is not"
            continue
        for steps in STEPS:
            yield (
                original.assign(**{name: _moved(value, steps)}),
                f"`{name}` is {_digits(value)}, and they agree beside it, so a threshold of `{name}` is rounded there",
            )
    for name in schema.categories:
        value = original[name].iloc[0]
        shown = f"`{name}` is {value!r}" if value else f"`{name}` is missing"
        alone = " in this row alone" if value and (frame[name] == value).sum() == 1 else ""
        for other in frame.loc[frame[name] != value, name].value_counts().index[:OTHERS]:
            yield (
                original.assign(**{name: other}),
                f"{shown}{alone}, and they agree where it is {other!r}, so that category is encoded in another way",
            )


def _moved(value: np.float32, steps: int) -> np.float32:
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(np.inf, steps)), dtype=np.float32)
    return value


def _digits(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def _named(row: int, keys: pd.DataFrame | None) -> str:
    if keys is None:
        return f"at position {row}"
    return "with " + ", ".join(f"{name} {value}" for name, value in keys.iloc[row].items())

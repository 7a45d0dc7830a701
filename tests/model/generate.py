"""Generate rows that the schema of a model accepts, for a repository without data.

Values follow the types and checks of each column. Rows that fail other checks, such as those that compare columns, are
dropped. The target depends on the features, so that a model has something to learn.
"""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pandera.dtypes import is_bool, is_datetime, is_float, is_int
from pandera.errors import SchemaErrors
from pandera.pandas import Column
from PIL import Image

from slipway.contract import Model, shape_of
from slipway.images import decode_image

EXAMPLES = "tests/model/examples.csv"
ROUNDS = 40
MISSING_SHARE = 0.1
PATTERNS = ("str_matches", "str_contains")
Random = np.random.Generator


def generate_rows(model: Model, count: int, seed: int = 0) -> pd.DataFrame:
    """Return rows as text, as in a delivery, each with a unique key.

    Raises ValueError if too few of the generated rows pass the schema.
    """
    random = np.random.default_rng(seed)
    columns = model.SCHEMA.columns
    texts = {
        name: tuple(_texts(column, 2 * count if name in model.KEY else 50))
        for name, column in columns.items()
        if _is_text(column)
    }
    kept = pd.DataFrame()
    for turn in range(ROUNDS):
        drawn = pd.DataFrame(
            {name: _draw(column, texts.get(name, ()), count, random, turn) for name, column in columns.items()}
        )
        for name in model.KEY:
            if _is_text(columns[name]) and not _allowed(columns[name]) and not _pattern(columns[name]):
                drawn[name] = [f"{name}-{turn}-{row}" for row in range(count)]
        drawn[model.TARGET] = _target(drawn, model, texts, random)
        kept = pd.concat([kept, _accepted(drawn, model)], ignore_index=True).drop_duplicates(list(model.KEY))
        if len(kept) >= count:
            return _as_text(kept.head(count), model)
    raise ValueError(
        f"Only {len(kept)} of {ROUNDS * count} rows generated from SCHEMA pass it; write some valid rows to "
        f"{EXAMPLES}, as in a delivery."
    )


def _statistics(column: Column) -> dict[str, Any]:
    return {key: value for check in column.checks for key, value in (check.statistics or {}).items()}


def _is_text(column: Column) -> bool:
    kinds = (is_float, is_int, is_bool, is_datetime)
    return shape_of(column) is None and not any(is_kind(column.dtype) for is_kind in kinds)


def _allowed(column: Column) -> list[Any]:
    return sorted(_statistics(column).get("allowed_values", ()))


def _pattern(column: Column) -> str | None:
    found = [check.statistics["pattern"] for check in column.checks if check.name in PATTERNS and check.statistics]
    return getattr(found[0], "pattern", found[0]) if found else None


def _texts(column: Column, most: int) -> Iterator[str]:
    """Yield the possible values of a text column, at most `most` of them if it has a pattern."""
    if allowed := _allowed(column):
        yield from map(str, allowed)
    elif pattern := _pattern(column):
        yield from _matching(pattern, most)
    else:
        low, high = (int(_statistics(column).get(key) or 1) for key in ("min_value", "max_value"))
        yield from (f"text{number}".ljust(low, "x")[: max(high, low) if high > 1 else None] for number in range(5))


def _matching(pattern: str, count: int) -> list[str]:
    """Return texts that match a regular expression. Every run returns equal texts."""
    found: dict[str, None] = {}
    plain = st.characters(codec="ascii", min_codepoint=32)

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(st.from_regex(pattern, fullmatch=True, alphabet=plain))
    def collect(text: str) -> None:
        found[text] = None

    collect()
    return list(found)


def _arrays(shape: tuple[int, ...], count: int, random: Random) -> Iterator[str]:
    """Yield vectors as JSON, or images of any brightness as base64, as in CSV."""
    for _ in range(count):
        if len(shape) == 1:
            yield json.dumps(random.normal(random.normal(), 1, shape).round(3).tolist())
        else:
            pixels = random.integers(0, random.integers(1, 257), shape, dtype=np.uint8)
            file = BytesIO()
            Image.fromarray(pixels[:, :, 0] if shape[2] == 1 else pixels).save(file, "PNG")
            yield base64.b64encode(file.getvalue()).decode()


def _mean(text: str, shape: tuple[int, ...]) -> float:
    """Return the mean of a vector or an image, on which the target depends."""
    numbers = json.loads(text) if len(shape) == 1 else decode_image(base64.b64decode(text), shape)
    return float(np.mean(numbers))


def _draw(column: Column, texts: tuple[str, ...], count: int, random: Random, turn: int) -> "pd.Series[Any]":
    if shape := shape_of(column):
        values = pd.Series([*_arrays(shape, count, random)], dtype=object)
    elif _is_text(column):
        values = pd.Series(random.choice(texts, count), dtype="str")
    elif is_datetime(column.dtype):
        values = _dates(column, count, random)
    elif is_bool(column.dtype):
        values = pd.Series(random.random(count) < 0.5, dtype="boolean")
    else:
        values = pd.Series(_numbers(column, count, random, whole=turn % 2 == 1 or is_int(column.dtype)))
    if column.nullable:
        values = values.mask(random.random(count) < MISSING_SHARE)
    return values


def _numbers(column: Column, count: int, random: Random, whole: bool) -> NDArray[np.float64]:
    known = _statistics(column)
    if allowed := _allowed(column):
        return random.choice(np.asarray(allowed, dtype=float), count)
    low, high = known.get("min_value"), known.get("max_value")
    if low is not None and high is not None:
        drawn = random.uniform(low, high, count)
    elif low is None and high is None:
        drawn = random.normal(0, 10, count)
    else:
        away = random.exponential(10, count)
        drawn = low + away if low is not None else high - away
    return np.round(drawn) if whole else drawn


def _dates(column: Column, count: int, random: Random) -> "pd.Series[pd.Timestamp]":
    """Draw whole days from the newest ten years that the column allows."""
    known = _statistics(column)
    low, high, years = known.get("min_value"), known.get("max_value"), pd.Timedelta(days=3650)
    last = pd.Timestamp(high if high is not None else pd.Timestamp(low) + years if low is not None else "2020-12-31")
    first = max(pd.Timestamp(low), last - years) if low is not None else last - years
    days = random.integers(0, max((last - first).days, 1), count)
    drawn = pd.Series(first.normalize() + pd.Timedelta(days=1) + pd.to_timedelta(days, unit="D"))
    zone = getattr(column.dtype, "tz", None)
    return drawn.dt.tz_localize("UTC").dt.tz_convert(zone) if zone and drawn.dt.tz is None else drawn


def _target(drawn: pd.DataFrame, model: Model, texts: dict[str, tuple[str, ...]], random: Random) -> "pd.Series[Any]":
    """Return a target that increases with every feature, with a little noise."""
    column = model.SCHEMA.columns[model.TARGET]
    shapes = {name: shape_of(column) for name, column in model.SCHEMA.columns.items()}
    codes = [_codes(drawn[name], texts.get(name), shapes[name]) for name in model.FEATURES]
    ranks = [each.rank(pct=True).fillna(0.5) - 0.5 for each in codes]
    score = (np.sum(ranks, axis=0) / np.sqrt(len(ranks)) + random.normal(0, 0.02, len(drawn))).astype(float)
    share = pd.Series(score).rank(pct=True)
    if _is_text(column):
        labels = np.asarray(texts[model.TARGET])
        return pd.Series(labels[np.minimum((share * len(labels)).astype(int), len(labels) - 1)], dtype="str")
    known = _statistics(column)
    if allowed := _allowed(column):
        return pd.Series(np.quantile(np.asarray(allowed, dtype=float), share, method="nearest"))
    low, high = known.get("min_value"), known.get("max_value")
    low = (1.0 if high is None else high - 100.0) if low is None else low
    high = low + 100.0 if high is None else high
    return low + (high - low) * (0.1 + 0.8 * share)


def _codes(values: "pd.Series[Any]", texts: tuple[str, ...] | None, shape: tuple[int, ...] | None) -> "pd.Series[Any]":
    if shape is not None:
        return values.map(lambda text: _mean(text, shape), na_action="ignore").astype(float)
    if texts is None:
        return values
    return values.map({text: float(number) for number, text in enumerate(texts)}).astype(float)


def _accepted(drawn: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Return the rows that pass the schema, with its types."""
    typed = pd.DataFrame({name: column.dtype.try_coerce(drawn[name]) for name, column in model.SCHEMA.columns.items()})
    try:
        model.SCHEMA.validate(typed, lazy=True)
    except SchemaErrors as error:
        return typed.drop(index=error.failure_cases["index"].dropna().unique())
    return typed


def _as_text(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    def text(name: str) -> "pd.Series[Any]":
        dtype = model.SCHEMA.columns[name].dtype
        if is_datetime(dtype):
            usual = "%Y-%m-%dT%H:%M:%S%z" if getattr(dtype, "tz", None) else "%Y-%m-%d"
            return rows[name].dt.strftime(getattr(dtype, "to_datetime_kwargs", {}).get("format", usual))
        if is_bool(dtype):
            return rows[name].map({True: "true", False: "false"}, na_action="ignore").astype("str")
        if is_int(dtype):
            return rows[name].astype("str")
        if is_float(dtype):
            return rows[name].map(lambda number: f"{number:.15g}", na_action="ignore")
        return rows[name]

    return pd.DataFrame({name: text(name) for name in rows})

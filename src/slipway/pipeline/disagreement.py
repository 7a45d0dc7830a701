"""Find the feature that makes the exported graph and the fitted model predict different values."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.bundle import Schema
from slipway.pipeline.training_rows import Positions

LOOKED_INTO = 20
"""Maximum number of differing rows that are examined."""
STEPS = (1, -1, 8, -8)
"""Distances by which a number is moved, in float32 steps. Large steps are needed if inputs are scaled before the trees
read them.
"""
OTHER_CATEGORIES = 5
SAMPLED_ROWS = 2_000
"""Maximum number of rows in the sample of each part. The medians and the most frequent categories of the sample are
tried as new values.
"""

Keys = Callable[[Positions], pd.DataFrame]


@dataclass(frozen=True)
class Answers:
    """The predictions [rows, outputs] of fitted model and graph, and a mask of the rows in which they agree."""

    fitted: NDArray[np.float64]
    exported: NDArray[np.float64]
    agree: NDArray[np.bool_]


@dataclass(frozen=True)
class _Variant:
    row: pd.DataFrame
    feature: str
    """The feature whose value was changed."""
    shows: str
    """The cause in words. The cause applies if model and graph agree on this variant of the row."""
    beside: bool = False
    """True if the changed value is a number that was moved by a few float32 steps."""


def find_cause(
    compare: Callable[[pd.DataFrame], Answers],
    training: Iterable[pd.DataFrame],
    holdout: Iterable[pd.DataFrame],
    differing: Positions,
    schema: Schema,
    keys: Keys | None,
) -> str:
    """Describe a row in which the graph and the model differ, and the feature that causes the difference.

    A feature is a possible cause if graph and model agree after its value is changed. If several features are possible
    causes, the feature that explains the most rows is chosen. `differing` contains the positions of the differing rows.
    Position 0 is the first training row, and the holdout rows follow the training rows. `keys` returns the keys of the
    rows at given positions.
    """
    weights: defaultdict[str, float] = defaultdict(float)
    sentences: dict[str, str] = {}
    differing = differing[:LOOKED_INTO]
    names = _names(differing, keys)
    rows, sample, known = _examined(training, holdout, differing, schema)
    for number, name in enumerate(names):
        original = rows.iloc[[number]]
        variants = list(_variants(original, sample, schema, known))
        answers = compare(pd.concat([original, *(variant.row for variant in variants)], ignore_index=True))
        for feature, weight, shows in _explanations(variants, answers):
            weights[feature] += weight
            sentences.setdefault(feature, f"in the row {name} {shows}")
    if weights:
        return sentences[max(weights, key=weights.__getitem__)]
    return f"in the row {names[0]}, for example, and no single feature causes the difference"


def _examined(
    training: Iterable[pd.DataFrame], holdout: Iterable[pd.DataFrame], differing: Positions, schema: Schema
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, set[str]]]:
    """Return the rows with different predictions, a sample of all rows, and the known categories.

    The known categories of a feature are its values that occur in the differing rows and in the training rows.
    """
    samples: list[pd.DataFrame] = []
    rows: dict[int, pd.DataFrame] = {}
    start = 0
    for part in chain(training, holdout):
        inside = differing[(differing >= start) & (differing < start + len(part))]
        rows |= {int(position): part.iloc[[position - start]] for position in inside}
        samples.append(part.iloc[:: -(-len(part) // SAMPLED_ROWS) or 1].copy())
        start += len(part)
    found = pd.concat([rows[int(position)] for position in differing], ignore_index=True)
    known: dict[str, set[str]] = {name: set() for name in schema.categories}
    for part in training:
        for name in schema.categories:
            known[name] |= {*part[name][part[name].isin(found[name])]}
    return found, pd.concat(samples, ignore_index=True), known


def _explanations(variants: list[_Variant], answers: Answers) -> Iterator[tuple[str, float, str]]:
    """Yield the features that explain a difference, each with a weight and the cause.

    The weight is the share of the tried values for which model and graph agree. A feature is not yielded if the
    predictions differ only by rounding, because then any tiny change of a value makes them agree.
    """
    gap = np.max(np.abs(answers.fitted[0] - answers.exported[0]))
    steps = np.maximum(
        *(np.max(np.abs(each[1:] - each[0]), axis=1) for each in (answers.fitted, answers.exported)),
    )
    tried = list(zip(variants, answers.agree[1:], steps, strict=True))
    if any(variant.beside and agree and step < gap / 2 for variant, agree, step in tried):
        return
    for feature, of_feature in groupby(tried, key=lambda each: each[0].feature):
        agreeing = [(variant, bool(agree)) for variant, agree, _ in of_feature]
        shown = [variant for variant, agree in agreeing if agree]
        if shown:
            yield feature, 1.0 if shown[0].beside else len(shown) / len(agreeing), shown[0].shows


def _variants(
    original: pd.DataFrame, frame: pd.DataFrame, schema: Schema, known: Mapping[str, set[str]]
) -> Iterator[_Variant]:
    """Yield copies of a row, each with one changed value. Some of the new values come from the rows in `frame`."""
    hidden = schema.unpublished
    for name in schema.numbers:
        value = original[name].to_numpy(dtype=np.float32)[0]
        if np.isnan(value):
            there = _with_value(original, name, np.float32(frame[name].median()))
            yield _Variant(there, name, f"`{name}` is missing, which the graph handles differently")
            continue
        shown = f"is {_digits(value)}," if name not in hidden else "lies"
        shows = f"`{name}` {shown} on a threshold that the graph rounds (they agree next to it)"
        for steps in STEPS:
            yield _Variant(_with_value(original, name, _moved(value, steps)), name, shows, beside=True)
    for name in schema.categories:
        value = original[name].iloc[0]
        if value:
            shown = f"a text of {len(value):,} characters" if name in hidden else repr(value)
            shows = f"`{name}` is {shown}" + ("" if value in known[name] else ", which no training row has")
        else:
            shows = f"`{name}` is missing"
        for other in frame.loc[frame[name] != value, name].value_counts().index[:OTHER_CATEGORIES]:
            yield _Variant(_with_value(original, name, other), name, f"{shows}, and the graph encodes it differently")


def _with_value(row: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    changed = row.copy()
    changed[name] = value
    return changed


def _moved(value: np.float32, steps: int) -> np.float32:
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(np.inf, steps)), dtype=np.float32)
    return value


def _digits(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def _names(rows: Positions, keys: Keys | None) -> list[str]:
    if keys is None:
        return [f"at position {row}" for row in rows]
    return ["with " + ", ".join(f"{name} {value}" for name, value in key.items()) for _, key in keys(rows).iterrows()]

"""Keep private values of training rows out of the bundle.

A bundle is public, because the image, MLflow and the server contain it. A text, a vector or an image is never
published. A category value or a text token is published if several training rows have it, or if the code of the model
lists it. If a feature is a text, a vector or an image, `golden.json` has the model's `EXAMPLES` instead of training
rows. In golden rows, all values of a private column are replaced by one typical value.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from numpy.typing import NDArray
from pandera.errors import SchemaError, SchemaErrors
from sklearn.feature_extraction.text import CountVectorizer

from slipway.bundle import Column, Reference, Schema
from slipway.contract import ARRAYS, Model, kind_of, shape_of
from slipway.errors import InputError
from slipway.images import decode_base64
from slipway.pipeline.array_columns import objects, read_images, read_vectors
from slipway.pipeline.training_rows import Rows
from slipway.statistics.bins import OTHER

MAX_UNIQUE = 0.1
"""Maximum share of rows with a unique value. A column with a larger share is a text or an identifier."""
MAX_EXAMPLES = 100


def refuse_unique_values(training: Rows, model: Model, minimum: int) -> None:
    """Raise InputError if a category or the target, whose values the bundle publishes, has nearly unique values.

    If `minimum` is 1, no column is refused, because values of single rows are then allowed in the bundle.
    """
    if minimum == 1:
        return
    for name in (*model.FEATURES, model.TARGET):
        declared = model.SCHEMA.columns[name]
        listed = any("allowed_values" in (check.statistics or {}) for check in declared.checks)
        if listed or kind_of(declared):
            continue
        values = training.column(name).dropna()
        if pd.api.types.is_numeric_dtype(values) or values.dtype.kind == "M":
            continue
        unique = int((values.value_counts() == 1).sum())
        if unique > MAX_UNIQUE * len(values):
            raise InputError(
                f"src/model/schema.py: {unique:,} of {len(values):,} training rows have a value of {name!r} that no "
                'other row has, which the bundle would publish; declare metadata={"kind": "text"}, list the values '
                'with pa.Check.isin, or declare metadata={"kind": "category"} if anyone may see them.'
            )


def refuse_rare_tokens(fitted: Any, training: Rows, schema: Schema, minimum: int) -> None:
    """Raise InputError if the vocabulary of a vectorizer has tokens that occur in fewer than `minimum` training rows.

    The vocabulary is part of the model's graph. A rare token is sometimes a name, a number or a password. A vocabulary
    is not checked if the model's code lists it.
    """
    for vectorizer in _vectorizers(fitted, set()):
        if vectorizer.fixed_vocabulary_:
            continue
        names = schema.categories  # a vectorizer can also read a category
        rows = np.sum([_rows_by_token(vectorizer, part[names]) for part in training.parts(names)], axis=0)
        rare, tokens = int((rows < minimum).sum()), len(vectorizer.vocabulary_)
        if rare:
            raise InputError(
                f"src/model/train.py: the graph would publish {rare:,} of the {tokens:,} tokens of "
                f"{type(vectorizer).__name__} that fewer than {minimum} training rows have; set `min_df={minimum}` "
                "there, or `train.minimum_value_rows` in params.yaml."
            )


def _rows_by_token(vectorizer: CountVectorizer, texts: pd.DataFrame) -> NDArray[np.int64]:
    """Return the number of rows that have each token. A token in several texts of a row is counted once."""
    first, *others = (vectorizer.transform(texts[name]) for name in texts)
    found: NDArray[np.int64] = (sum(others, first) > 0).sum(axis=0).A1
    return found


def _vectorizers(part: Any, seen: set[int]) -> Iterator[CountVectorizer]:
    """Yield all fitted vectorizers in an estimator. The search includes the steps and attributes of the estimator."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, CountVectorizer) and hasattr(part, "vocabulary_"):
        yield part
    elif isinstance(part, (list, tuple)):
        for each in part:
            yield from _vectorizers(each, seen)
    elif isinstance(part, dict):
        yield from _vectorizers(list(part.values()), seen)
    elif hasattr(part, "__dict__") and not isinstance(part, type):
        yield from _vectorizers(vars(part), seen)


def least_rows(column: Column, model: Model, minimum: int) -> int:
    """Return in how many training rows a category value must occur before it is published."""
    return 1 if column.values or kind_of(model.SCHEMA.columns[column.name]) == "category" else minimum


def with_typical_values(rows: pd.DataFrame, private: Sequence[str]) -> pd.DataFrame:
    """Replace the values of private columns in golden rows: each column gets its median, or its most frequent text.

    The golden rows then show no combination of values that belongs to one person.
    """
    rows = rows.copy()
    for name in private:
        values = rows[name].dropna().sort_values()
        if len(values):
            is_text = isinstance(values.iloc[0], str)
            typical = values.mode().iloc[0] if is_text else values.iloc[len(values) // 2]
            rows[name] = pd.Series([typical] * len(rows), index=rows.index, dtype=rows[name].dtype)
    return rows


def publishable(
    frame: pd.DataFrame, schema: Schema, reference: Reference, least: Mapping[str, int]
) -> NDArray[np.bool_]:
    """Return a mask of the rows whose categories are all published.

    `least` maps each column to the result of `least_rows`.
    """
    public = np.ones(len(frame), dtype=bool)
    for column in schema.columns:
        if column.type == "category" and least[column.name] > 1:
            named = {*(reference.features[column.name].values or ()), ""} - {OTHER}
            public &= frame[column.name].isin(named).to_numpy()
    return public


def example_rows(examples: Sequence[Mapping[str, Any]], model: Model) -> pd.DataFrame:
    """Convert `EXAMPLES` to the types of validated rows. Raises InputError if a row does not fit the schema."""
    where = "src/model/__init__.py: EXAMPLES"
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise InputError(f"{where} has {len(examples)} rows; give 1 to {MAX_EXAMPLES}.")
    columns = {}
    for name in model.FEATURES:
        declared = model.SCHEMA.columns[name]
        values = pd.Series(objects([example.get(name) for example in examples]), name=name).infer_objects()
        kind = getattr(declared.dtype.type, "kind", "O")
        try:
            if kind_of(declared) in ARRAYS:
                typed = _example_arrays(values, shape_of(declared) or ())
            elif kind == "M":
                typed = pd.to_datetime(values, format="%Y-%m-%d").astype(declared.dtype.type)
            else:
                typed = values.astype("float64").astype(declared.dtype.type) if kind in "biuf" else values.astype("str")
            columns[name] = pandera.DataFrameSchema({name: declared}).validate(typed.to_frame())[name]
        except (SchemaError, SchemaErrors, pa.ArrowException, ValueError, TypeError):
            raise InputError(f"{where}: a value of {name!r} does not fit the schema; correct it.") from None
    unknown = sorted({str(name) for example in examples for name in example} - set(model.FEATURES))
    if unknown:
        raise InputError(f"{where} has {unknown[0]!r}, which is not in FEATURES; remove it.")
    return pd.DataFrame(columns)


def _example_arrays(values: "pd.Series[Any]", shape: tuple[int, ...]) -> "pd.Series[Any]":
    """Convert the vectors or images of examples. Raises ValueError or TypeError if a value does not fit the shape."""
    if len(shape) == 1:
        lists = [None if value is None else [*map(float, value)] for value in values]
        arrays, faults = read_vectors(pa.array(lists, pa.list_(pa.float64())), *shape)
    else:
        encoded = [decode_base64(value) if isinstance(value, str) else value for value in values]
        arrays, faults = read_images(pa.array(encoded, pa.binary()), shape)
    if np.any([*faults.values()]):
        raise ValueError
    return arrays.rename(values.name)

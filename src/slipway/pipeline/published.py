"""Keep private values of training rows out of the bundle.

A bundle is public, because the image, MLflow and the server contain it. A text, a vector or an image is never
published. A category value or a text token is published if several training rows have it, or if the code of the model
lists it. If a feature is a text, a vector or an image, `golden.json` has the model's `EXAMPLES` instead of training
rows. In golden rows, all values of a private column are replaced by one typical value.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from numpy.typing import NDArray
from pandera.dtypes import DataType
from pandera.errors import SchemaError, SchemaErrors
from sklearn.feature_extraction.text import CountVectorizer

from slipway.bundle import Column, Reference, Schema
from slipway.contract import ARRAYS, Model, examples_of, kind_of, lists_values, shape_of
from slipway.errors import InputError
from slipway.images import decode_base64
from slipway.pipeline.array_columns import objects, read_images, read_vectors
from slipway.pipeline.export import parts_of
from slipway.pipeline.tensors import features
from slipway.pipeline.training_rows import Rows
from slipway.statistics.bins import OTHER

MAX_UNIQUE = 0.1
"""Maximum share of rows with a unique value. A column with a larger share is a text or an identifier."""
MAX_EXAMPLES = 100
NUMBER_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.UINT8)
ARRAY_NUMBERS = 8
PHRASE_WORDS = 5
"""Maximum number of words in a text that is also searched inside of longer texts. Tokens have few words."""


def refuse_unique_values(training: Rows, model: Model, minimum: int) -> None:
    """Raise InputError if a category or the target, whose values the bundle publishes, has nearly unique values.

    If `minimum` is 1, no column is refused, because values of single rows are then allowed in the bundle.
    """
    if minimum == 1:
        return
    for name in (*model.FEATURES, model.TARGET):
        declared = model.SCHEMA.columns[name]
        if lists_values(declared) or kind_of(declared):
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


def refuse_texts_in_graph(fitted: Any, graph: onnx.ModelProto, training: Rows, schema: Schema, minimum: int) -> None:
    """Raise InputError if the graph contains whole texts of training rows, as an encoder of categories stores them.

    Only words are compared, without regard to upper case. A text is accepted if at least `minimum` training rows
    contain it. Single characters, classes, values of categories, and tokens of vectorizers are accepted, too. In the
    graph of an own `to_onnx`, only texts of several words are compared, because such a graph often contains the public
    vocabulary of a tokenizer.
    """
    if minimum == 1 or not schema.texts:
        return
    listed = {word for each in _vectorizers(fitted, set()) for word in _listed_words(each)}
    stored = {words for text in _texts(graph) if len(words := _words(text)) > 1}
    stored -= {_words(text) for text in (*listed, *(schema.classes or ()))}
    names = schema.categories
    categories = [name for name in names if name not in schema.texts]
    found: set[str] = set()
    for part in training.parts(names):
        stored -= {_words(value) for name in categories for value in part[name].unique()}
        found |= {words for name in schema.texts for words in map(_words, part[name].unique()) if words in stored}
    found = {words for words in found & stored if " " in words or not hasattr(fitted, "to_onnx")}
    rows = Counter[str]()
    for part in training.parts(names) if found else ():
        for texts in part[schema.texts].itertuples(index=False):
            rows.update({phrase for text in texts for phrase in _phrases(_words(text))} & found)
    if rare := sum(count < minimum for count in rows.values()):
        raise InputError(
            f"src/model/train.py: the graph would publish {rare:,} whole texts that fewer than {minimum} training rows "
            f"have; read {' and '.join(map(repr, schema.texts))} with a vectorizer, not with an encoder of categories."
        )


def refuse_arrays_in_graph(graph: onnx.ModelProto, training: Rows, schema: Schema, minimum: int) -> None:
    """Raise InputError if the graph contains vectors or images of training rows, as a nearest-neighbour model does.

    Vectors and images with fewer than `ARRAY_NUMBERS` numbers, or with equal numbers only, are not compared, because
    weights can be equal to them by chance.
    """
    for name, column in schema.arrays.items():
        size = int(np.prod(column.shape))
        if minimum == 1 or size < ARRAY_NUMBERS:
            continue
        stored = {row for array in _arrays(graph) for row in _stored_rows(array, size, column.dtype)}
        rows = Counter[bytes]()
        for part in training.parts([name]) if stored else ():
            rows.update(content for value in part[name] if (content := value.tobytes()) in stored)
        if rare := sum(count < minimum for count in rows.values()):
            raise InputError(
                f"src/model/train.py: the graph would publish {rare:,} values of {name!r} that fewer than {minimum} "
                "training rows have; use a model that does not store training rows."
            )


def _arrays(graph: onnx.ModelProto) -> Iterator[NDArray[Any]]:
    """Yield the constants of a graph and of its inner graphs, and the lists of numbers in attributes."""
    for part in parts_of(graph):
        if isinstance(part, onnx.AttributeProto) and part.floats:
            yield np.asarray(part.floats, np.float32)
        if not isinstance(part, onnx.TensorProto) or part.data_type not in NUMBER_TYPES:
            continue
        if part.data_location != onnx.TensorProto.EXTERNAL:
            yield onnx.numpy_helper.to_array(part)


def _stored_rows(array: NDArray[Any], size: int, dtype: "np.dtype[Any]") -> Iterator[bytes]:
    """Yield the rows of a constant that can be vectors or images of `size` numbers, with the type `dtype`.

    A row is a row or a column of a table, or the numbers of the last axes. Pixels can be divided by 255.
    """
    if array.size % size or not array.size:
        return
    for table in (array.reshape(-1, size), *([array.T] if array.ndim == 2 and len(array) == size else [])):
        for row in table[np.ptp(table, axis=1) > 0]:
            if dtype == np.uint8 and row.dtype != np.uint8:
                pixels = (np.rint(row * factor).clip(0, 255) for factor in (1, 255))
                yield from (each.astype(np.uint8).tobytes() for each in pixels)
            else:
                yield row.astype(dtype).tobytes()


def _words(text: str) -> str:
    """Return the words of a text in lower case. A text without words is returned unchanged."""
    return " ".join(re.findall(r"\w+", text.lower())) or text


def _phrases(words: str) -> Iterator[str]:
    """Yield the whole text, and all phrases of a few successive words."""
    yield words
    each = words.split(" ")
    for length in range(1, PHRASE_WORDS + 1):
        yield from (" ".join(each[start : start + length]) for start in range(len(each) - length + 1))


def _listed_words(vectorizer: CountVectorizer) -> list[str]:
    """Return the words that may be in the graph: stop words, and the vocabulary, which `refuse_rare_tokens` checks."""
    return [*(vectorizer.get_stop_words() or ()), *vectorizer.vocabulary_]


def _texts(graph: onnx.ModelProto) -> Iterator[str]:
    """Yield all texts in the attributes and constants of a graph, and of its inner graphs."""
    for part in parts_of(graph):
        contents: list[bytes] = []
        if isinstance(part, onnx.AttributeProto):
            contents = [part.s, *part.strings]
        elif isinstance(part, onnx.TensorProto):
            contents = [*part.string_data]
        yield from (content.decode(errors="replace") for content in contents)


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


def refuse_delivered_examples(
    model: Model, deliveries: Sequence[Rows], schema: Schema, least: Mapping[str, int]
) -> None:
    """Raise InputError if `EXAMPLES` has a value of a delivered row that the bundle must not publish.

    `deliveries` contains the training rows and the holdout. `least` maps each column to the result of `least_rows`. A
    text, a category, a vector or an image is accepted if no row has it, or if at least this number of rows has it.
    """
    if not (examples := examples_of(model)):
        return
    frame = features(example_rows(examples, model), schema)
    for column in schema.columns:
        minimum = least[column.name]
        if minimum == 1 or column.type in ("number", "date"):
            continue
        rows = dict.fromkeys(_comparable(frame[column.name]), 0)
        for values in (part[column.name] for each in deliveries for part in each.parts([column.name])):
            for value in _comparable(values):
                if value in rows:
                    rows[value] += 1
        if found := [count for count in rows.values() if 0 < count < minimum]:
            raise InputError(
                f"src/model/__init__.py: EXAMPLES has a value of {column.name!r} that the deliveries have in "
                f"{found[0]} of their rows; write an invented value, or a value of at least {minimum} rows."
            )


def _comparable(values: "pd.Series[Any]") -> Iterator[str | bytes]:
    """Yield the values that are not missing. Vectors and images are converted to bytes."""
    for value in values:
        if isinstance(value, str):
            if text := value.strip():
                yield text
        elif not np.isnan(value.ravel()[0]):
            yield value.tobytes()


def example_rows(examples: Sequence[Mapping[str, Any]], model: Model) -> pd.DataFrame:
    """Convert `EXAMPLES` to the types of validated rows. Raises InputError if a row does not fit the schema."""
    where = "src/model/__init__.py: EXAMPLES"
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise InputError(f"{where} has {len(examples)} rows; give 1 to {MAX_EXAMPLES}.")
    columns = {}
    for name in model.FEATURES:
        declared = model.SCHEMA.columns[name]
        values = pd.Series(objects([example.get(name) for example in examples]), name=name, dtype="object")
        kind = getattr(declared.dtype.type, "kind", "O")
        try:
            if kind_of(declared) in ARRAYS:
                typed = _example_arrays(values, shape_of(declared) or ())
            elif kind == "M":
                typed = pd.to_datetime(values, format="%Y-%m-%d").astype(declared.dtype.type)
            else:
                typed = _example_numbers(values, declared.dtype) if kind in "biuf" else _example_texts(values)
            columns[name] = pandera.DataFrameSchema({name: declared}).validate(typed.to_frame())[name]
        except (SchemaError, SchemaErrors, pa.ArrowException, ValueError, TypeError, OverflowError):
            raise InputError(f"{where}: a value of {name!r} does not fit the schema; correct it.") from None
    unknown = sorted({str(name) for example in examples for name in example} - set(model.FEATURES))
    if unknown:
        raise InputError(f"{where} has {unknown[0]!r}, which is not in FEATURES; remove it.")
    return pd.DataFrame(columns)


def _example_numbers(values: "pd.Series[Any]", dtype: DataType) -> "pd.Series[Any]":
    """Convert the numbers of examples. Raises ValueError or TypeError if float32 cannot represent a number."""
    numbers = values.astype("float64")
    if (numbers.abs() > np.finfo(np.float32).max).any():
        raise ValueError
    return numbers.astype(dtype.type)


def _example_texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert the texts of examples. An empty text is missing, as in a delivery. Raises TypeError for other values."""
    if not all(value is None or isinstance(value, str) for value in values):
        raise TypeError
    return pd.Series([value or None for value in values], name=values.name, dtype="str")


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

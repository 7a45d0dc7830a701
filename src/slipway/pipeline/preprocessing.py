"""Convert scikit-learn's preprocessing steps to ONNX nodes if skl2onnx fails on them or ignores an option."""

import warnings

import numpy as np
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from slipway.pipeline.onnx_graph import ML, GraphBuilder
from slipway.pipeline.trees import NotConvertible

UNKNOWN = "\0slipway: unknown"
"""A text that is never a category. Encoding it shows how an encoder encodes an unknown category."""
FUNCTIONS = {
    np.abs: ("Abs",),
    np.exp: ("Exp",),
    np.expm1: ("Exp", "Sub"),
    np.log: ("Log",),
    np.log1p: ("Add", "Log"),
    np.sqrt: ("Sqrt",),
}
"""Maps a NumPy function to the ONNX operators that compute it, in this order. The second operand of `Add` and `Sub` is
1.
"""


def impute(fitted: SimpleImputer, graph: GraphBuilder, values: str, dtype: str) -> tuple[str, int]:
    """Add nodes that replace missing numbers. Return the name and the width of the result.

    A column without a value in the training rows is removed, unless the imputer keeps such columns. Indicators of
    missing values are not part of the result.
    """
    filled = np.asarray(fitted.statistics_, dtype)
    name = graph.add("Where", _missing(fitted, graph, values, dtype), graph.constant(filled, dtype), values)
    if fitted.strategy == "constant" or fitted.keep_empty_features:
        return name, len(filled)
    kept = np.flatnonzero(~np.isnan(filled))
    if len(kept) < len(filled):
        name = graph.add("Gather", name, graph.constant(kept, "int64"), axis=1)
    return name, len(kept)


def indicate(fitted: MissingIndicator, graph: GraphBuilder, values: str, dtype: str) -> tuple[str, int]:
    """Add nodes that return 1.0 for a missing value and 0.0 for any other value.

    Return the name and the width of the result.
    """
    missing = graph.cast(_missing(fitted, graph, values, dtype), "float32")
    return graph.add("Gather", missing, graph.constant(fitted.features_, "int64"), axis=1), len(fitted.features_)


def groups_categories(fitted: OneHotEncoder | OrdinalEncoder) -> bool:
    """Return True if an encoder has options that `encode_by_table` can convert and skl2onnx cannot."""
    return bool(getattr(fitted, "_infrequent_enabled", False)) or fitted.handle_unknown == "warn"


def encode_by_table(fitted: OneHotEncoder | OrdinalEncoder, graph: GraphBuilder, texts: str) -> tuple[str, int]:
    """Add nodes that look up the code of each category. Return the name and the width of the codes in float64.

    The fitted encoder computes one table for each column. A table has one row for each category, and a last row for
    unknown categories.
    """
    if fitted.handle_unknown == "error":  # a graph cannot reject a row
        raise NotConvertible(f"{type(fitted).__name__} with handle_unknown='error'; choose another `handle_unknown`")
    first = [str(known[0]) for known in fitted.categories_]
    parts, start = [], 0
    for index, known in enumerate(fitted.categories_):
        asked = np.array([first] * (len(known) + 1), dtype=object)
        asked[:, index] = [*map(str, known), UNKNOWN]
        width = fitted._n_features_outs[index] if isinstance(fitted, OneHotEncoder) else 1
        with warnings.catch_warnings(action="ignore"):  # warnings about the unknown category and column names
            found = fitted.transform(asked)
        codes = (found.toarray() if hasattr(found, "toarray") else np.asarray(found))[:, start : start + width]
        column = graph.add("Gather", texts, graph.constant(index, "int64"), axis=1)
        row = graph.add(
            "LabelEncoder",
            column,
            domain=ML,
            keys_strings=[*map(str, known)],
            values_int64s=[*range(len(known))],
            default_int64=len(known),
        )
        parts.append(graph.add("Gather", graph.constant(codes, "float64"), row, axis=0))
        start += width
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1), start


def calculate(fitted: FunctionTransformer, graph: GraphBuilder, values: str, dtype: str) -> str:
    """Add nodes that compute a FunctionTransformer in float64. Return the name of the result, whose type is `dtype`."""
    operators = FUNCTIONS.get(fitted.func)
    if operators is None or fitted.kw_args:
        known = ", ".join(f"numpy.{each.__name__}" for each in FUNCTIONS)
        name = getattr(fitted.func, "__name__", "a function")
        raise NotConvertible(f"FunctionTransformer with {name}, which is not one of {known}")
    values = graph.cast(values, "float64")
    for operator in operators:
        values = graph.add(operator, values, *([graph.constant(1.0, "float64")] if operator in ("Add", "Sub") else []))
    return graph.cast(values, dtype)


def _missing(fitted: SimpleImputer | MissingIndicator, graph: GraphBuilder, values: str, dtype: str) -> str:
    sought = fitted.missing_values
    if dtype == "str":
        if not isinstance(sought, str):
            raise NotConvertible(f"{type(fitted).__name__} for categories without missing_values=''")
        return graph.add("Equal", values, graph.constant(sought, "str"))
    if not isinstance(sought, (int, float)):
        raise NotConvertible(f"{type(fitted).__name__} with the option `missing_values`")
    return graph.add("IsNaN", values) if np.isnan(sought) else graph.add("Equal", values, graph.constant(sought, dtype))

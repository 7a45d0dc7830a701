"""Define the contract between the framework and the package `model`.

The package `model` (src/model) contains the model of this repository. In `slipway`, only this module imports the
package `model`. The package `model` imports nothing from `slipway`.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from slipway.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import Column as SchemaColumn
    from pandera.pandas import DataFrameSchema


MARKS = ("no", "drop", "hash")
"""How the prediction log can store a column: unchanged ("no"), not at all ("drop"), or as a hash ("hash")."""
ARRAYS = ("vector", "image")
"""The kinds of columns whose values are arrays. Each such column has its own input in the ONNX graph."""
TENSORS = ("numbers", "categories", "prediction")
"""Names of inputs and outputs of the ONNX graph. A vector or image column must not have one of these names."""
MAX_SIZE = 2**22
"""Maximum number of values in one vector or image."""


class Regressor(Protocol):
    """The result of `Model.fit` for a regression: a scikit-learn estimator, or your own object.

    Estimators from scikit-learn, LightGBM, XGBoost and CatBoost, and pipelines that contain them, are exported to ONNX
    as docs/export.md describes. Any other object needs a method `to_onnx` that returns an `onnx.ModelProto`.

    The graph from `to_onnx` has the inputs `numbers` (float32, [rows, numbers]) and `categories` (string, [rows,
    categories]). Their columns are in the order of `Model.FEATURES`. An input that would have no columns is left out.
    Each vector column and each image column has a separate input with the name of the column: float32 [rows, length]
    for a vector, and uint8 [rows, height, width, channels] for an image. The last output contains the predictions
    ([rows] or [rows, 1]) or the probabilities ([rows, classes]). If `to_onnx` has a parameter, Slipway passes it a
    function that exports an estimator.
    """

    def predict(self, features: "pd.DataFrame", /) -> Any:
        """Return the predictions, an array of shape [rows]."""


class Classifier(Protocol):
    """The result of `Model.fit` for a classification. The method `to_onnx` is optional, as in `Regressor`."""

    @property
    def classes_(self) -> Any:
        """The labels of the classes, sorted."""

    def predict_proba(self, features: "pd.DataFrame", /) -> Any:
        """Return the probabilities, an array of shape [rows, classes] in the order of `classes_`."""


class Model(Protocol):
    """The names that the package `model` must define.

    If a feature is a text, a vector or an image, the package must also have `EXAMPLES`. `EXAMPLES` is a sequence of
    public rows with the columns of `FEATURES`. These rows replace training rows in two public places: the golden rows
    of the bundle and the examples in the API documentation. Each row is a mapping in the form in which a client sends
    it: dates as YYYY-MM-DD, vectors as lists of numbers, images as base64, and None for a missing value. Instead of
    base64, an image may be Python bytes.
    """

    @property
    def SCHEMA(self) -> "DataFrameSchema":
        """The columns of a delivery: their types, ranges and categories, and checks for known faults of the data.

        A class-based schema (pandera's `DataFrameModel`) works as well. Use `float` or `int` for numbers, `bool` for
        true and false, and `str` or `pd.CategoricalDtype` for categories. For dates, use pandera's `DateTime`, with the
        format in `to_datetime_kwargs`. Without a format, dates are read as ISO 8601. Times with a time zone are stored
        in UTC. A column with such times cannot be a feature. Each dataframe check needs an `error` text that describes
        the fault that the check finds. The metadata key `private` of a feature defines how the prediction log stores
        the feature: "no" (unchanged), "drop" or "hash".

        A text is a `str` column with `metadata={"kind": "text"}` and a maximum length, such as
        `pa.Check.str_length(max_value=2_000)`. Delivered texts are never written to the bundle, the metrics or the
        quarantine.

        A vector is a column of type `object` with `metadata={"kind": "vector", "length": 64}`. An image is also a
        column of type `object`, with `metadata={"kind": "image", "size": (28, 28), "channels": 1}`. The size is the
        height and the width. Delivered vectors and images are never written to the bundle, the metrics or the
        quarantine. docs/vectors-and-images.md describes vectors and images.
        """

    @property
    def KEY(self) -> Sequence[str]:
        """The columns that together identify a row."""

    @property
    def TIME(self) -> str | None:
        """The date column that orders rows from old to new, or None if rows have no date."""

    @property
    def TARGET(self) -> str:
        """The column to predict."""

    @property
    def FEATURES(self) -> Sequence[str]:
        """The columns that the model reads. These columns are the fields of a request to the server."""

    def fit(
        self,
        features: "pd.DataFrame",
        target: "pd.Series[Any]",
        settings: Mapping[str, Any],
        seed: int,
    ) -> Regressor | Classifier:
        """Fit the model on the training rows.

        `features` has the columns of `FEATURES`. Numbers are float32. Booleans are 1 and 0, as float32. Dates are days
        since 1970-01-01, as float32. A missing number, boolean or date is NaN. Categories and texts are str, and a
        missing value is an empty string. A vector is an array of float32. A missing vector contains only NaN, so
        `np.stack(features[name])` always has the shape [rows, length]. An image is an array of uint8 with the shape
        [height, width, channels]. `target` is float64 for a regression. For a classification, `target` contains the
        labels as delivered. `settings` is `train.settings` of params.yaml. The same arguments must always give the same
        model.

        If the first parameter of `fit` is annotated as `pyarrow.dataset.Dataset`, the rows are not loaded into memory.
        The first argument of `fit` is then a dataset with the features and the target, in the order of the training
        rows. The second argument is the name of the target. In the dataset, vectors and images are Arrow's fixed-shape
        tensors.
        """


@dataclass(frozen=True)
class KeyModel:
    """The model that checks a list of keys. Its schema has only the columns of KEY, with their types and checks."""

    SCHEMA: "DataFrameSchema"
    KEY: Sequence[str]
    TIME = None
    FEATURES = ()


def reads_dataset(model: Model) -> bool:
    """Return whether `fit` expects an Arrow dataset, according to the annotation of its first parameter."""
    try:
        first = next(iter(inspect.signature(model.fit).parameters.values()))
    except (StopIteration, TypeError, ValueError):  # a callable without a signature
        return False
    if isinstance(first.annotation, str):
        return first.annotation.strip("'\"").rpartition(".")[2] == "Dataset"
    name, module = (getattr(first.annotation, key, "") for key in ("__qualname__", "__module__"))
    return bool(name == "Dataset" and str(module).startswith("pyarrow."))


def load_model() -> Model:
    """Import the package `model`, and check it against the contract.

    Raises InputError if the package cannot be imported or breaks the contract.
    """
    try:
        import model
    except Exception as error:  # the fork's own code may raise any exception
        raise InputError(
            f"src/model cannot be imported ({type(error).__name__}: {error}); `slipway --debug` shows where it fails."
        ) from error
    _convert_schema(model)
    check_contract(model)
    return model


def _convert_schema(model: Any) -> None:
    """Convert pandera's class-based schema, a `DataFrameModel`, to a `DataFrameSchema`."""
    from pandera.pandas import DataFrameModel

    declared: Any = getattr(model, "SCHEMA", None)
    if DataFrameModel in getattr(declared, "__mro__", ()):
        declared = model.SCHEMA = declared.to_schema()
    if hasattr(declared, "columns"):
        model.SCHEMA = with_listed_categories(declared)


def with_listed_categories(schema: "DataFrameSchema") -> "DataFrameSchema":
    """Replace each type `pd.CategoricalDtype` by `str`, with a check of its categories."""
    from pandera.dtypes import is_category
    from pandera.pandas import Check

    changes: dict[str, dict[str, Any]] = {}
    for name, column in schema.columns.items():
        if column.dtype is not None and is_category(column.dtype):
            listed = getattr(column.dtype.type, "categories", None)
            values = [] if listed is None else [*listed]
            if not all(isinstance(value, str) for value in values):
                raise InputError(
                    f"src/model/schema.py: the categories of {name!r} are not text; use text, or a number with "
                    "`pa.Check.isin`."
                )
            checks = [*column.checks, *([Check.isin(values)] if values else [])]
            changes[name] = {"dtype": str, "checks": checks}
    return schema.update_columns(changes) if changes else schema


def check_contract(model: Model) -> None:
    """Raise InputError for the first violation of the contract."""
    for name in ("SCHEMA", "KEY", "TIME", "TARGET", "FEATURES", "fit"):
        if not hasattr(model, name):
            raise InputError(
                f"src/model/__init__.py lacks the name {name}; add it as src/slipway/contract.py describes."
            )
    if not hasattr(model.SCHEMA, "columns"):
        raise InputError(
            f"src/model/schema.py: SCHEMA is a {type(model.SCHEMA).__name__}; use a DataFrameSchema or a "
            "DataFrameModel of pandera."
        )
    for name, columns in (("KEY", model.KEY), ("FEATURES", model.FEATURES)):
        if not isinstance(columns, list | tuple):
            raise InputError(
                f"src/model: {name} is a {type(columns).__name__}, but the order of its columns matters; use a tuple."
            )
    used = [*model.KEY, *([model.TIME] if model.TIME else []), model.TARGET, *model.FEATURES]
    for column in used:
        if column not in model.SCHEMA.columns:
            raise InputError(f"src/model: {column!r} is used, but SCHEMA has no such column; correct its name.")
    if model.TARGET in model.FEATURES:
        raise InputError(
            f"src/model: FEATURES contains the target {model.TARGET!r}, which would leak the answer; remove it."
        )
    if model.TARGET in model.KEY or not model.KEY or not model.FEATURES:
        raise InputError(
            "src/model: KEY and FEATURES must each name a column, and KEY must not name the target; correct them."
        )
    _check_kinds(model)
    _check_types(model)
    _check_examples(model)
    _check_texts(model)
    _check_arrays(model)
    _check_marks(model)


def kind_of(column: "SchemaColumn") -> str | None:
    """Return the kind that the metadata of a column declares, such as "text" or "vector", or None."""
    kind = (column.metadata or {}).get("kind")
    return None if kind is None else str(kind)


def lists_values(column: "SchemaColumn") -> bool:
    """Return whether a check of the column lists the allowed values."""
    return any("allowed_values" in (check.statistics or {}) for check in column.checks)


def texts_of(model: Model) -> list[str]:
    """Return the names of the columns that are texts."""
    return [name for name, column in model.SCHEMA.columns.items() if kind_of(column) == "text"]


def unpublished_of(model: Model) -> list[str]:
    """Return the names of the columns whose values are never published: texts, vectors and images."""
    return [name for name, column in model.SCHEMA.columns.items() if kind_of(column) in ("text", *ARRAYS)]


def is_private(model: Model, column: str) -> bool:
    """Return whether the mark of a column forbids the prediction log to store the column's values unchanged."""
    return private_mark(model, column) in ("drop", "hash")


def hides_values(model: Model) -> bool:
    """Return whether messages and the quarantine must not quote values of rows.

    This is the case if the model has a column that is not published, or a private column.
    """
    return bool(unpublished_of(model)) or any(is_private(model, name) for name in model.SCHEMA.columns)


def shape_of(column: "SchemaColumn") -> tuple[int, ...] | None:
    """Return the shape of one value, or None if the column contains neither vectors nor images.

    The shape is (length,) for a vector, and (height, width, channels) for an image.
    """
    declared = column.metadata or {}
    if kind_of(column) == "vector":
        return (declared["length"],)
    return (*declared["size"], declared["channels"]) if kind_of(column) == "image" else None


def examples_of(model: Model) -> Sequence[Mapping[str, Any]]:
    """Return the rows in the model's public `EXAMPLES`. Return no rows if the model has no `EXAMPLES`."""
    examples: Sequence[Mapping[str, Any]] | None = getattr(model, "EXAMPLES", None)
    return examples or ()


def _check_examples(model: Model) -> None:
    examples: Any = getattr(model, "EXAMPLES", None)
    if examples is None:
        return
    if not isinstance(examples, list | tuple):
        raise InputError(
            f"src/model/__init__.py: EXAMPLES has the type {type(examples).__name__}; use a tuple of dictionaries, "
            "one for each row."
        )
    for number, row in enumerate(examples, start=1):
        if not isinstance(row, Mapping):
            raise InputError(
                f"src/model/__init__.py: row {number} of EXAMPLES has the type {type(row).__name__}; use a "
                "dictionary with the columns of FEATURES."
            )


def _check_kinds(model: Model) -> None:
    from pandera.dtypes import is_string

    for name, column in model.SCHEMA.columns.items():
        kind = kind_of(column)
        if kind in ARRAYS and str(column.dtype) == "object":
            continue
        if kind not in (None, "text", "category") or (kind and not is_string(column.dtype)):
            raise InputError(
                f'src/model/schema.py: the metadata "kind" of {name!r} is {kind!r}; use "text" or "category" for a '
                'column of type str, or "vector" or "image" for a column of type object.'
            )


def _check_arrays(model: Model) -> None:
    for name, column in model.SCHEMA.columns.items():
        if kind_of(column) not in ARRAYS:
            continue
        _check_shape(name, column)
        if name in TENSORS:
            raise InputError(
                f"src/model/schema.py: the {kind_of(column)} {name!r} has the name of another tensor of the graph; "
                "rename it."
            )
        if name in (*model.KEY, model.TARGET):
            raise InputError(
                f"src/model: the {kind_of(column)} {name!r} cannot be in KEY or be the TARGET; correct it."
            )
        _require_examples(model, name)


def _check_shape(name: str, column: "SchemaColumn") -> None:
    declared = column.metadata or {}
    length, size, channels = declared.get("length"), declared.get("size"), declared.get("channels")
    if kind_of(column) == "vector":
        if type(length) is not int or not 1 <= length <= MAX_SIZE:
            raise InputError(
                f"src/model/schema.py: the vector {name!r} has the length {length!r}; declare a whole number, as "
                'metadata={"kind": "vector", "length": 64}.'
            )
        return
    sides = list(size) if isinstance(size, tuple | list) else []
    if [type(side) for side in sides] != [int, int] or min(sides) < 1 or 3 * sides[0] * sides[1] > MAX_SIZE:
        raise InputError(
            f"src/model/schema.py: the image {name!r} has the size {size!r}; declare its height and width, as "
            f'metadata={{"kind": "image", "size": (28, 28), "channels": 1}}, of at most {MAX_SIZE // 3:,} pixels.'
        )
    if channels not in (1, 3):
        raise InputError(
            f"src/model/schema.py: the image {name!r} has {channels!r} channels; declare 1 for gray, or 3 for RGB."
        )
    if column.nullable:
        raise InputError(
            f"src/model/schema.py: the image {name!r} is nullable, but pixels cannot be missing; remove `nullable`."
        )


def _require_examples(model: Model, name: str) -> None:
    """Raise InputError if a feature is a text, a vector or an image, but the model has no `EXAMPLES`."""
    if name in model.FEATURES and not examples_of(model):
        kind = kind_of(model.SCHEMA.columns[name])
        raise InputError(
            f"src/model/__init__.py lacks EXAMPLES, which the {kind} {name!r} needs, because {kind}s of deliveries are "
            "not published; add rows that anyone may see."
        )


def _check_texts(model: Model) -> None:
    for name in texts_of(model):
        bounds = [(check.statistics or {}).get("max_value") for check in model.SCHEMA.columns[name].checks]
        if not any(bounds):
            raise InputError(
                f"src/model/schema.py: the text {name!r} has no maximum length; "
                "add the check `pa.Check.str_length(max_value=2_000)`."
            )
        if name == model.TARGET:
            raise InputError(f"src/model/schema.py: the target {name!r} cannot be a text; declare a number or classes.")
        _require_examples(model, name)


def private_mark(model: Model, column: str) -> Any:
    """Return the value of the key `private` in the metadata of a column, or None if the key is missing."""
    return (model.SCHEMA.columns[column].metadata or {}).get("private")


def _check_marks(model: Model) -> None:
    marks = {name: private_mark(model, name) for name in model.FEATURES}
    for name, mark in marks.items():
        if mark not in (None, *MARKS):
            raise InputError(
                f"src/model/schema.py: the column {name!r} has the mark `private` {mark!r}; "
                f"use {', '.join(map(repr, MARKS))}."
            )
        if mark is None and any(marks.values()):
            raise InputError(
                f"src/model/schema.py: the column {name!r} has no mark `private`, but other features have one; "
                f"add metadata={{'private': ...}} with {', '.join(map(repr, MARKS))}."
            )


def _check_types(model: Model) -> None:
    from pandera.dtypes import is_datetime

    for name, column in model.SCHEMA.columns.items():
        _check_type(name, column, is_feature=name in model.FEATURES)
    if model.TIME and not is_datetime(model.SCHEMA.columns[model.TIME].dtype):
        raise InputError(f"src/model/schema.py: TIME is {model.TIME!r}, which is not a DateTime; correct its type.")
    for name in model.KEY:
        if getattr(model.SCHEMA.columns[name].dtype, "bit_width", None) in (16, 32):
            raise InputError(
                f"src/model/schema.py: the KEY column {name!r} is of type {model.SCHEMA.columns[name].dtype}, which "
                "rounds different numbers to the same value; declare it as float or str."
            )
    for name in (*model.KEY, model.TARGET, *([model.TIME] if model.TIME else [])):
        if model.SCHEMA.columns[name].nullable:
            raise InputError(
                f"src/model/schema.py: {name!r} may not be nullable, because it is in KEY, TARGET or TIME; correct it."
            )


def _check_type(name: str, column: "SchemaColumn", *, is_feature: bool) -> None:
    from pandera.dtypes import is_bool, is_datetime, is_float, is_int, is_string

    dtype = column.dtype
    if re.search(r'[\\"\x00-\x1f]', name):
        raise InputError(
            f"src/model/schema.py: the column {name!r} has a quotation mark, a backslash or a control character in "
            "its name, which JSON would have to escape; rename it."
        )
    if kind_of(column) in ARRAYS:
        return
    if dtype is None or not any(each(dtype) for each in (is_float, is_int, is_bool, is_string, is_datetime)):
        raise InputError(
            f"src/model/schema.py: the column {name!r} is of type {dtype}; "
            "use float, int, bool, str, pd.CategoricalDtype, DateTime, or object for a vector or an image."
        )
    if getattr(dtype, "tz", None) and is_feature:
        raise InputError(
            f"src/model/schema.py: the feature {name!r} has a time zone, but a request has only dates; deliver what "
            "the model needs of it as columns, such as the local date as DateTime and the hour as int."
        )
    without_missing = getattr(dtype, "type", None) is not None and not hasattr(dtype.type, "na_value")
    if (is_int(dtype) or is_bool(dtype)) and column.nullable and without_missing:
        others = '"boolean"' if is_bool(dtype) else '"Int64" or float'
        raise InputError(
            f"src/model/schema.py: the column {name!r} is nullable and of type {dtype}, which has no missing "
            f"values; use {others}."
        )

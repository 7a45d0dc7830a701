"""The seam: all that the machinery asks of a model.

The package `model` is the model. Nothing else in `slipway` imports it, and it imports nothing of `slipway`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from slipway.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema


class Regressor(Protocol):
    """What `Model.fit` returns for a regression: a scikit-learn estimator, or an object of your own.

    Estimators of scikit-learn, LightGBM, XGBoost and CatBoost, and pipelines of them, are exported to ONNX as
    docs/export.md describes. Any other object has a method `to_onnx` that returns an `onnx.ModelProto`. Its inputs are
    `numbers` (float32, [rows, numbers]) and `categories` (string, [rows, categories]), each present only if the model
    has such features, in the order of `Model.FEATURES`. Its last output is the prediction ([rows] or [rows, 1]) or the
    probabilities ([rows, classes]). If `to_onnx` has a parameter, it is passed a function that exports an estimator.
    """

    def predict(self, features: "pd.DataFrame", /) -> Any:
        """The predictions, an array of shape [rows]."""


class Classifier(Protocol):
    """What `Model.fit` returns for a classification; `to_onnx()` as for a regression."""

    @property
    def classes_(self) -> Any:
        """The labels, sorted."""

    def predict_proba(self, features: "pd.DataFrame", /) -> Any:
        """The probabilities, an array of shape [rows, classes] in the order of `classes_`."""


class Model(Protocol):
    """The names that the package `model` must have."""

    @property
    def SCHEMA(self) -> "DataFrameSchema":
        """Every column of a delivery: type, range or categories, and the known faults as dataframe checks.

        Use `float` for numbers, `str` for categories, pandera's `DateTime` for dates (with the format in
        `to_datetime_kwargs`). The check of a fault carries its sentence as `error`.
        """

    @property
    def KEY(self) -> Sequence[str]:
        """The columns that tell any two rows apart."""

    @property
    def TIME(self) -> str | None:
        """The date column by which rows become old, or None for data without time."""

    @property
    def TARGET(self) -> str:
        """The column to predict."""

    @property
    def FEATURES(self) -> Sequence[str]:
        """The columns that the model looks at; a request to the server carries just these."""

    def fit(
        self,
        features: "pd.DataFrame",
        target: "pd.Series[Any]",
        settings: Mapping[str, Any],
        seed: int,
    ) -> Regressor | Classifier:
        """Fit on the training rows.

        `features` has the columns of `FEATURES`: numbers as float32 (missing: NaN), dates as days since
        1970-01-01 (float32), categories as str (missing: the empty string). `target` is float64 for
        regression, the labels as delivered for classification. `settings` is `train.settings` of params.yaml.
        The same arguments must give the same model.
        """


def load_model() -> Model:
    """The model of this repository.

    Raises InputError where the package `model` cannot be imported or breaks the contract.
    """
    try:
        import model
    except Exception as error:  # it is somebody's code, and may fail in any way
        raise InputError(
            f"src/model cannot be imported ({type(error).__name__}: {error}); `slipway --debug` shows where it fails."
        ) from error
    check_contract(model)
    return model


def check_contract(model: Model) -> None:
    """Raise InputError for the first thing about the model's names that cannot work."""
    for name in ("SCHEMA", "KEY", "TIME", "TARGET", "FEATURES", "fit"):
        if not hasattr(model, name):
            raise InputError(
                f"src/model/__init__.py lacks the name {name}; slipway.contract.Model says what it must be."
            )
    used = [*model.KEY, *([model.TIME] if model.TIME else []), model.TARGET, *model.FEATURES]
    for column in used:
        if column not in model.SCHEMA.columns:
            raise InputError(f"src/model: {column!r} is used and is no column of SCHEMA; correct its name.")
    if model.TARGET in model.FEATURES:
        raise InputError(f"src/model: the target {model.TARGET!r} is among FEATURES, so the answer leaks; remove it.")
    if model.TARGET in model.KEY or not model.KEY or not model.FEATURES:
        raise InputError("src/model: KEY and FEATURES must each name a column, and KEY not the target; correct them.")
    _check_types(model)


def _check_types(model: Model) -> None:
    from pandera.dtypes import is_datetime, is_float, is_string

    for name, column in model.SCHEMA.columns.items():
        dtype = column.dtype
        if re.search(r'[\\"\x00-\x1f]', name):
            raise InputError(
                f"src/model/schema.py: the column {name!r} has a quotation mark, a backslash or a control character in "
                "its name, which JSON cannot say plainly; rename it."
            )
        known = dtype is not None and (is_float(dtype) or is_string(dtype) or is_datetime(dtype))
        if not known or getattr(dtype, "tz", None):
            raise InputError(
                f"src/model/schema.py: the column {name!r} is of type {dtype}; "
                "use float, str, or DateTime without a time zone."
            )
    if model.TIME and not is_datetime(model.SCHEMA.columns[model.TIME].dtype):
        raise InputError(f"src/model/schema.py: TIME is {model.TIME!r}, which is no DateTime; correct its type.")
    for name in model.KEY:
        if getattr(model.SCHEMA.columns[name].dtype, "bit_width", None) in (16, 32):
            raise InputError(
                f"src/model/schema.py: {name!r} is part of KEY and of type {model.SCHEMA.columns[name].dtype}, which "
                "merges numbers that differ; declare it as float or str."
            )
    for name in (*model.KEY, model.TARGET, *([model.TIME] if model.TIME else [])):
        if model.SCHEMA.columns[name].nullable:
            raise InputError(
                f"src/model/schema.py: {name!r} may not be nullable, being KEY, TARGET or TIME; correct it."
            )

"""The seam: all that the machinery asks of a model.

The package `model` is the model. Nothing else in `slipway` imports it, and it imports nothing of `slipway`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema


class Fitted(Protocol):
    """What `Model.fit` returns: any scikit-learn estimator, or an object of your own.

    Regression needs `predict(features)`, an array of shape [rows]. Classification needs
    `predict_proba(features)`, shape [rows, classes], and `classes_`, the labels in that order.

    A scikit-learn estimator is exported to ONNX by skl2onnx. Any other object brings a method
    `to_onnx()` that returns an `onnx.ModelProto` with the inputs `numbers` (float32, [rows, numbers]) and
    `categories` (string, [rows, categories]), each present only if the model has such features, in the
    order of `Model.FEATURES`; and, as its last output, the prediction ([rows] or [rows, 1]) or
    the probabilities ([rows, classes]).
    """


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
    ) -> Fitted:
        """Fit on the training rows.

        `features` has the columns of `FEATURES`: numbers as float32 (missing: NaN), dates as days since
        1970-01-01 (float32), categories as str (missing: the empty string). `target` is float64 for
        regression, the labels as delivered for classification. `settings` is `train.settings` of params.yaml.
        The same arguments must give the same model.
        """


def load_model() -> Model:
    """The model of this repository."""
    import model

    return model

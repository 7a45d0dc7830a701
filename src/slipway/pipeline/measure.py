"""Compute the loss for comparing models: a built-in loss, the cost of answers, or the function `loss` in src/model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.dtypes import is_float, is_int

from slipway.bundle import Decision, Schema
from slipway.config import Task
from slipway.contract import Model, kind_of
from slipway.errors import InputError
from slipway.pipeline.array_columns import objects
from slipway.pipeline.tensors import bounds_of, describe, features
from slipway.statistics.blocks import average
from slipway.statistics.metrics import SECOND, Floats, naive_prediction, row_losses

OwnLoss = Callable[[Any, Any, pd.DataFrame], Any]

STEPS = 100
"""Number of intervals between the quantiles of the target. These quantiles are tried as constant predictions if
src/model computes the loss.
"""


@dataclass(frozen=True)
class Measure:
    """The loss by which the models of a task are compared.

    `costs` is set if `task.cost` is set. `own` and `schema` are set if src/model computes the loss. `positive` is the
    index of the positive class of two classes.
    """

    task: Task
    costs: tuple[tuple[float, ...], ...] | None = None
    own: OwnLoss | None = None
    schema: Schema | None = None
    positive: int = SECOND

    @property
    def decision(self) -> Decision | None:
        """The decision with the smallest expected cost if the predicted probabilities are correct.

        The baseline and checks of single features use this decision.
        """
        return None if self.costs is None else Decision(costs=self.costs, threshold=ideal_threshold(self.costs))

    def features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Convert validated rows to the frame that `losses` needs.

        Raises InputError if src/model computes the loss and the rows lack a feature.
        """
        if self.schema is None:
            return rows
        if lacking := [column.name for column in self.schema.columns if column.name not in rows]:
            raise InputError(
                f"src/model: `loss` takes the columns of FEATURES, but these rows lack {lacking[0]!r}; "
                "choose a built-in `task.loss`, or use rows with that column."
            )
        return features(rows, self.schema)

    def losses(self, truth: Floats, answers: Floats, rows: pd.DataFrame, decision: Decision | None) -> Floats:
        """Return the loss of each row. `rows` is the result of `features`, and `decision` comes from the bundle."""
        if self.own is not None:
            return own_losses(self.own, truth, answers, rows)
        if self.task.loss == "cost":
            return cost_of_answers(self.costs or (), truth, answers, decision)
        return row_losses(self.task.loss, truth, answers)

    def is_defined(self, truth: Floats) -> NDArray[np.bool_]:
        """Return for each true value whether the loss is defined.

        A percentage error is undefined where the true value is 0.
        """
        is_percentage = self.task.loss == "mean_absolute_percentage_error"
        defined: NDArray[np.bool_] = (truth != 0) if is_percentage else np.ones(len(truth), dtype=bool)
        return defined

    def weights(self, rows: pd.DataFrame) -> Floats | None:
        """Return the weight of each validated row, or None if rows have equal weights.

        Raises InputError if a weight cannot be used.
        """
        return None if self.task.weight is None else row_weights(rows, self.task.weight)

    def naive(
        self,
        truth: Floats,
        sample: Floats,
        rows: pd.DataFrame,
        classes: int,
        weights: Floats | None = None,
        sample_weights: Floats | None = None,
    ) -> Floats:
        """Return the best constant prediction, with the shape [1, 1] or [1, classes].

        `truth` contains the target of all training rows, and `weights` their weights. If src/model computes the loss,
        several constants are tried on a sample of the training rows. `sample` contains the target of this sample,
        `sample_weights` its weights, and `rows` its frame for `losses`. For a regression, the mean and quantiles of the
        target are tried. For a classification, the shares of the classes are tried, and for each class the probability
        1.
        """
        if self.own is None:
            return naive_prediction(self.task.loss, self.task.kind, truth, classes, weights)
        if self.task.kind == "classification":
            shares = naive_prediction(self.task.loss, self.task.kind, truth, classes, weights)
            candidates = [shares, *np.eye(classes)[:, None, :]]
        else:
            values = [float(truth.mean()), *np.quantile(truth, np.linspace(0, 1, STEPS + 1)).tolist()]
            candidates = [np.array([[value]]) for value in values]
        means = [
            average(self.losses(sample, np.repeat(each, len(sample), axis=0), rows, None), sample_weights)
            for each in candidates
        ]
        best: Floats = candidates[int(np.argmin(means))]
        return best

    @property
    def stand_in(self) -> "Measure":
        """The loss for checks that read only one feature.

        This loss replaces a loss from src/model, because `loss` may need all columns of the rows.
        """
        if self.own is None:
            return self
        loss = "mean_absolute_error" if self.task.kind == "regression" else "log_loss"
        return replace(self, task=self.task.model_copy(update={"loss": loss}), own=None, schema=None)


def measure_of(task: Task, model: Model, classes: Sequence[str] | None) -> Measure:
    """Return the loss that params.yaml sets.

    Raises InputError if src/model lacks `loss`, if `task.cost` lacks a cost, if `task.positive` is not a class, or if
    `task.weight` does not name a weight column.
    """
    if task.weight is not None:
        check_weight(task.weight, model)
    costs = task.costs(classes or ()) if task.cost is not None else None
    positive = task.positive_index(classes or ())
    if not task.loss_is_own:
        return Measure(task, costs, positive=positive)
    own = getattr(model, "loss", None)
    if not callable(own):
        raise InputError(
            f"src/model/__init__.py lacks the function `loss`, which `task.loss: {task.loss}` in params.yaml needs; "
            "add it as docs/metrics.md describes."
        )
    schema = describe(model, task.kind, None if classes is None else tuple(classes))
    return Measure(task, costs, own, schema, positive)


def check_weight(name: str, model: Model) -> None:
    """Raise InputError unless `task.weight` names a number column without missing or negative values.

    The column must not be a feature, a key column, the target or the time.
    """
    where, column = f"params.yaml: `task.weight` is {name!r}", model.SCHEMA.columns.get(name)
    if column is None:
        raise InputError(f"{where}, but SCHEMA has no such column; correct the name.")
    if name in (*model.FEATURES, *model.KEY, model.TARGET, model.TIME):
        raise InputError(
            f"{where}, which src/model uses as a feature, key, target or time; deliver the weight as another column."
        )
    if kind_of(column) is not None or not (is_float(column.dtype) or is_int(column.dtype)) or column.nullable:
        raise InputError(f"{where}, which must be float or int and not nullable; correct src/model/schema.py.")
    (low, _), _ = bounds_of(column.checks)
    if low is None or low < 0:
        raise InputError(
            f"{where}, which may be negative by src/model/schema.py; add `pa.Check.ge(0)` there, so that validation "
            "rejects such rows."
        )


def row_weights(rows: pd.DataFrame, name: str) -> Floats:
    """Return the weights in the column `name` of validated rows. Raises InputError if the weights cannot be used."""
    if name not in rows:
        raise InputError(f"params.yaml: `task.weight` is {name!r}, but these rows lack the column; deliver it.")
    weights: Floats = rows[name].to_numpy(np.float64, na_value=np.nan)
    unusable = int((~(weights <= np.finfo(np.float32).max) | (weights < 0)).sum())
    if unusable or (len(weights) and not weights.any()):
        what = (
            f"is missing, negative or beyond single precision in {unusable:,}"
            if unusable
            else f"is 0 in all {len(weights):,}"
        )
        raise InputError(f"params.yaml: `task.weight` is {name!r}, which {what} rows; correct the deliveries.")
    return weights


def own_losses(own: OwnLoss, truth: Floats, answers: Floats, rows: pd.DataFrame) -> Floats:
    """Call `loss` of src/model twice, and return the loss of each row.

    Raises InputError unless both calls return the same losses: one per row, finite and not negative. Also raises
    InputError if `loss` changes its arguments.
    """
    found = [_called(own, truth, answers, rows) for _ in range(2)]
    if not np.array_equal(found[0], found[1], equal_nan=True):
        raise InputError("src/model: `loss` gives other numbers when it is called again; remove what is random in it.")
    if broken := int((~np.isfinite(found[0])).sum()):
        raise InputError(
            f"src/model: `loss` is infinite or missing for {broken} of {len(truth)} rows; return finite numbers."
        )
    if not np.isfinite(found[0].sum()):
        raise InputError("src/model: `loss` is so large that its mean is infinite; use a smaller unit.")
    if negative := int((found[0] < 0).sum()):  # with a negative loss, margins would allow a worse model
        raise InputError(
            f"src/model: `loss` is negative for {negative} of {len(truth)} rows; add a constant, so that 0 is the loss "
            "of the best possible answer."
        )
    return found[0]


def _called(own: OwnLoss, truth: Floats, answers: Floats, rows: pd.DataFrame) -> Floats:
    """Call `loss` with copies of its arguments. Raises InputError unless it returns one number for each row."""
    given = truth.copy(), answers.copy(), _deep_copy(rows)
    try:
        returned = own(*given)
        losses = np.asarray(returned)
    except Exception as error:  # the fork's own code may raise any exception
        # The message of an exception may quote a value of a row.
        raise InputError(
            f"src/model: `loss` failed ({type(error).__name__}); correct it (`slipway --debug evaluate` shows where it "
            "fails)."
        ) from error
    if losses.shape != truth.shape:
        raise InputError(
            f"src/model: `loss` returns the shape {losses.shape} for {len(truth)} rows; return one number for each."
        )
    if losses.dtype.kind not in "biuf" or np.ma.isMaskedArray(returned):
        what = "a masked array" if np.ma.isMaskedArray(returned) else f"values of the type {losses.dtype}"
        raise InputError(f"src/model: `loss` returns {what}; return an array of real numbers.")
    same = np.array_equal(given[0], truth, equal_nan=True) and np.array_equal(given[1], answers, equal_nan=True)
    if not same or not _equal(given[2], rows):
        raise InputError("src/model: `loss` changes its arguments; work on copies of them.")
    return losses.astype(np.float64)


def _deep_copy(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a copy that shares no memory with `rows`. pandas itself does not copy vectors and images in a frame."""
    arrays = {
        name: pd.Series(objects([value.copy() for value in rows[name]]), index=rows.index)
        for name in _array_columns(rows)
    }
    return rows.copy().assign(**arrays)


def _equal(given: pd.DataFrame, rows: pd.DataFrame) -> bool:
    arrays = _array_columns(rows)
    if [*given.columns] != [*rows.columns] or len(given) != len(rows):
        return False
    return given.drop(columns=arrays).equals(rows.drop(columns=arrays)) and all(
        np.array_equal(np.asarray(one), other, equal_nan=True)
        for name in arrays
        for one, other in zip(given[name], rows[name], strict=True)
    )


def _array_columns(rows: pd.DataFrame) -> list[str]:
    """Return the names of the columns whose values are vectors or images."""
    return [name for name in rows if len(rows) and isinstance(rows[name].iloc[0], np.ndarray)]


def cost_of_answers(
    costs: Sequence[Sequence[float]], truth: Floats, probabilities: Floats, decision: Decision | None
) -> Floats:
    """Return the cost of the answer for each row. If `decision` is None, the answer is the most probable class."""
    chosen = probabilities.argmax(axis=1) if decision is None else decision.chosen(probabilities)
    found: Floats = np.array(costs, dtype=np.float64)[truth.astype(int), chosen]
    return found


def ideal_threshold(costs: Sequence[Sequence[float]]) -> float | None:
    """Return the best threshold if both probabilities are correct (Elkan 2001), or None for more than two classes."""
    if len(costs) != 2:
        return None
    false_alarm, missed = costs[0][1] - costs[0][0], costs[1][0] - costs[1][1]
    return float(np.float32(false_alarm / (false_alarm + missed)))


def best_threshold(
    costs: Sequence[Sequence[float]], truth: Floats, probabilities: Floats, weights: Floats | None = None
) -> float:
    """Return the probability threshold with the smallest cost on `truth` (Sheng and Ling 2006).

    The second class is predicted if its probability is above the threshold.

    Candidates are the midpoints between neighbouring probabilities, one value below all probabilities, and one above
    all. If several candidates have the same cost, the candidate nearest to `ideal_threshold` is chosen. The result is a
    float32 number, like the probabilities.
    """
    ideal = float(ideal_threshold(costs) or 0.5)
    order = np.argsort(probabilities[:, 1], kind="stable")
    scores, positive = probabilities[order, 1].astype(np.float64), truth[order] == 1
    matrix = np.array(costs, dtype=np.float64)
    sizes = 1.0 if weights is None else weights[order]
    below = np.where(positive, matrix[1, 0], matrix[0, 0]) * sizes
    above = np.where(positive, matrix[1, 1], matrix[0, 1]) * sizes
    # Element `i` is the cost if the first `i` rows are below the threshold.
    total = np.concatenate([[0.0], np.cumsum(below)]) + np.concatenate([[0.0], np.cumsum(above[::-1])])[::-1]
    values, first = np.unique(scores, return_index=True)
    candidates = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])
    cost = total[[*first, len(scores)]]
    equal = cost <= cost.min() * (1 + 1e-12)
    ends = np.concatenate([[0.0], values, [1.0]])
    if any(equal[i] and ends[i] < ideal <= ends[i + 1] for i in range(len(cost))):
        return ideal
    nearest = np.flatnonzero(equal)[np.argmin(np.abs(candidates[equal] - ideal))]
    return float(np.float32(candidates[nearest]))

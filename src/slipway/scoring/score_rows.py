"""Check and predict one block of rows, as the server does. Each row that the server would reject gets a reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from slipway.bundle import Tensors
from slipway.scoring.read_part import Block
from slipway.serving.problems import Problem
from slipway.serving.served_model import ServedModel


@dataclass(frozen=True)
class Scored:
    """The positions and predictions of the valid rows of a block, and the reason for each invalid row, by position."""

    valid: NDArray[np.int64]
    predictions: NDArray[np.float32]
    invalid: dict[int, str]


def score_rows(model: ServedModel, block: Block) -> Scored:
    """Predict every valid row of a block."""
    step = model.records.most
    parts = [
        _score_chunk(model, block, range(start, min(start + step, len(block.rows))))
        for start in range(0, len(block.rows), step)
    ]
    width = len(model.schema.outputs)
    return Scored(
        np.concatenate([np.empty(0, np.int64), *(part.valid for part in parts)]),
        np.concatenate([np.empty((0, width), np.float32), *(part.predictions for part in parts)]),
        {row: reason for part in parts for row, reason in part.invalid.items()},
    )


def _score_chunk(model: ServedModel, block: Block, rows: range) -> Scored:
    columns = block.columns(rows)
    try:
        return Scored(np.array(rows), model.predict(model.records.from_columns(columns)), {})
    except Exception:  # a row is invalid, or the model graph fails for a row
        return _score_one_by_one(model, columns, rows)


def _score_one_by_one(model: ServedModel, columns: dict[str, list[Any]], rows: range) -> Scored:
    """Check the rows of a chunk one by one, because some rows are invalid.

    The valid rows are still predicted together.
    """
    invalid: dict[int, str] = {}
    valid: list[int] = []
    records: list[msgspec.Struct] = []
    for row, values in zip(rows, zip(*columns.values(), strict=True), strict=True):
        sent = dict(zip(columns, values, strict=True))
        try:
            records.append(_record(model, sent))
            valid.append(row)
        except Problem as problem:
            invalid[row] = _reason(problem)
    while records:
        try:
            return Scored(np.array(valid), model.predict(_tensors(model, records)), invalid)
        except Exception:
            reasons = {i: why for i, record in enumerate(records) if (why := _why_no_prediction(model, record))}
            if not reasons:
                raise
            for index in sorted(reasons, reverse=True):
                invalid[valid.pop(index)] = reasons[index]
                del records[index]
    width = len(model.schema.outputs)
    return Scored(np.empty(0, np.int64), np.empty((0, width), np.float32), invalid)


def _record(model: ServedModel, sent: dict[str, Any]) -> msgspec.Struct:
    """Convert a row to a record. If the row is invalid, raise Problem with all its faults."""
    try:
        record: msgspec.Struct = msgspec.convert(sent, model.records.one)
        model.records.from_records((record,))  # also checks the ranges of dates
    except msgspec.ValidationError as error:
        model.records.from_rows([sent], lambda *_: "")  # raises Problem with all faults
        raise Problem(422, str(error)) from None
    return record


def _reason(problem: Problem) -> str:
    return "; ".join(fault.detail for fault in problem.faults) or problem.detail


def _tensors(model: ServedModel, records: Sequence[msgspec.Struct]) -> Tensors:
    return model.records.from_records(records)[0]


def _why_no_prediction(model: ServedModel, record: msgspec.Struct) -> str:
    """Return why a valid row has no prediction, or "" if it has one."""
    try:
        predictions = model.run(_tensors(model, [record]))[:, : len(model.schema.outputs)]
    except Exception as error:  # the message can quote a value of the row
        return f"the model fails for this row ({type(error).__name__})"
    return "" if np.isfinite(predictions).all() else "the prediction is not a finite number"

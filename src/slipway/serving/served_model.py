"""The model that a server loads.

The model returns a finite prediction for each row, and counts each row in the metrics.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slipway.bundle import CPU, GOLDEN, SIGNALS, Tensors, load_bundle, read_golden, read_reference
from slipway.errors import InputError
from slipway.serving.metrics import Metrics
from slipway.serving.problems import Problem, pointer
from slipway.serving.records import Records

GOLDEN_TOLERANCE = 1e-4
"""Relative and absolute tolerance for predictions. Predictions of one model differ slightly between processors."""


class ServedModel:
    """One bundle with its reader of records, its golden rows and its metrics.

    Raises InputError if a file of the bundle is missing or corrupt, or if the prediction for a golden row differs from
    the recorded prediction. With such a difference, the server would not serve the model that passed the gate.
    """

    def __init__(self, path: Path, name: str, max_records: int, providers: Sequence[str] = CPU) -> None:
        bundle = load_bundle(path, providers)
        reference, self.golden = read_reference(path), read_golden(path)
        self.name = name
        self.runs_on_cpu = tuple(providers) == CPU
        self.hash = bundle.hash
        self.schema = bundle.schema
        self.records = Records(bundle.schema, max_records)
        self.predictions = np.empty((0, 1), dtype=np.float32)
        """The predictions of the last call of `predict`."""
        # `session.run` would check the names of the inputs again before it calls this method. This check takes 1.7 µs,
        # which is 4% of the CPU time of a request with one record.
        self._session_run = bundle.session._sess.run
        self._outputs = [output.name for output in bundle.session.get_outputs()]
        self._width = len(bundle.schema.outputs) if SIGNALS in self._outputs else None
        self._check_golden(path)
        self.reference = reference
        self.metrics = self.new_metrics()

    def new_metrics(self) -> Metrics:
        """Return metrics that start at zero."""
        return Metrics(self.schema, self.reference, {"name": self.name, "bundle": self.hash})

    def predict(self, tensors: Tensors) -> NDArray[np.float32]:
        """Return predictions of shape [rows, 1], or [rows, classes]. Raises Problem if a prediction is not finite."""
        self.predictions = self.accept(tensors, self.run(tensors))
        return self.predictions

    def accept(self, tensors: Tensors, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Count rows and their outputs, and return the predictions. Raises Problem if a prediction is not finite."""
        predictions, signals = outputs, None
        if self._width is not None:
            predictions, signals = outputs[:, : self._width], outputs[:, self._width :]
        total = predictions.item() if predictions.size == 1 else predictions.sum()
        if not math.isfinite(total) and not np.isfinite(predictions).all():
            row = int(np.flatnonzero(~np.isfinite(predictions).all(axis=1))[0])
            raise Problem(422, f"The prediction for record {row} is not a finite number; leave the record out.")
        self.metrics.predicted(tensors, predictions, signals)
        return predictions

    def run(self, tensors: Tensors) -> NDArray[np.float32]:
        """Return predictions without counting them. The predictions can be infinite or NaN.

        If the graph has signals, they are in further columns.
        """
        answers: list[NDArray[np.float32]] = self._session_run(self._outputs, tensors, None)
        answer = answers[0] if answers[0].ndim == 2 else answers[0].reshape(len(answers[0]), -1)
        return answer if self._width is None else np.hstack([answer, answers[1]])

    def golden_tensors(self) -> Tensors:
        """Return the inputs of the model graph for all golden rows, even if they exceed the row limit of a request."""
        rows, most = [dict(row) for row in self.golden.rows], self.records.most
        read = (self.records.from_rows(rows[start : start + most], pointer) for start in range(0, len(rows) or 1, most))
        # The inputs are copied, because the reader overwrites the inputs of a single record when it reads the next
        # record.
        parts = [{name: each.copy() for name, each in part.items()} for part in read]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check_golden(self, path: Path) -> None:
        try:
            answers = self.run(self.golden_tensors())[:, : len(self.schema.outputs)]
        except Problem as problem:
            raise InputError(f"{path}/{GOLDEN}: {problem}; restore the bundle.") from None
        if not np.allclose(answers, self.golden.predictions, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE):
            raise InputError(f"{path}: the model's predictions differ from those in {GOLDEN}; restore the bundle.")

"""Diagnostics for the report: feature importance, data for plots, latency."""

import time

import numpy as np
import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import Latency
from slipway.bundle import Bundle
from slipway.config import Params
from slipway.contract import Model
from slipway.pipeline.tensors import features, tensors
from slipway.statistics.metrics import Floats, row_losses

IMPORTANCE_ROWS = 2_000
IMPORTANCE_SHUFFLES = 5
LATENCY_CALLS = 1_000


def importance(bundle: Bundle, rows: pd.DataFrame, truth: Floats, params: Params) -> dict[str, float]:
    """Return the permutation importance of each feature, largest first.

    The importance is the rise of the mean loss when the feature is shuffled, on at most 2,000 rows. See Breiman 2001,
    and Fisher, Rudin and Dominici 2019.
    """
    every = -(-len(rows) // IMPORTANCE_ROWS)
    chosen = truth[::every]
    frame = features(rows.iloc[::every], bundle.schema)
    random = np.random.default_rng(params.evaluate.seed)

    def loss_of(frame: pd.DataFrame) -> float:
        answer = bundle.predict(tensors(frame, bundle.schema)).astype(np.float64)
        return float(row_losses(params.task.loss, chosen, answer).mean())

    def shuffled(name: str) -> pd.DataFrame:
        return frame.assign(**{name: random.permutation(frame[name].to_numpy())})

    untouched = loss_of(frame)
    rises = {
        str(name): float(np.mean([loss_of(shuffled(str(name))) for _ in range(IMPORTANCE_SHUFFLES)])) - untouched
        for name in frame
    }
    return dict(sorted(rises.items(), key=lambda item: -item[1]))


def write_plots(
    answers: dict[str, Floats], rows: pd.DataFrame, truth: Floats, rises: dict[str, float], model: Model
) -> None:
    """Write the data of the plots in dvc.yaml. Without a TIME column, residuals by time are omitted."""
    with atomic.replacing(artifacts.PLOTS) as fresh:
        fresh.mkdir()
        pd.Series(rises, name="rise_of_loss").rename_axis("feature").to_csv(fresh / "importance.csv")
        actual = pd.DataFrame({"actual": truth})
        for name, answer in answers.items():
            actual[name] = answer[:, 0] if answer.shape[1] == 1 else answer.argmax(axis=1)
        actual.to_csv(fresh / "predicted_against_actual.csv", index=False)
        if model.TIME:
            residuals = actual[list(answers)].sub(actual["actual"], axis=0)
            day = rows[model.TIME].dt.date.to_numpy()
            residuals.groupby(day).mean().rename_axis("day").to_csv(fresh / "residual_by_time.csv")


def measure_latency(bundles: dict[str, Bundle], rows: pd.DataFrame) -> Latency:
    """Measure the median time to score one row, in microseconds."""
    medians = {}
    for name, bundle in bundles.items():
        row = tensors(features(rows.iloc[:1], bundle.schema), bundle.schema)
        durations = []
        for _ in range(LATENCY_CALLS):
            start = time.perf_counter_ns()
            bundle.predict(row)
            durations.append(time.perf_counter_ns() - start)
        medians[name] = round(float(np.median(durations)) / 1_000, 1)
    return Latency(champion=medians.get("champion"), challenger=medians["challenger"])

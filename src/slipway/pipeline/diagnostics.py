"""Write the data for DVC plots, and measure the latency of the models."""

import time

import numpy as np
import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import FeatureScore, Latency
from slipway.bundle import Bundle
from slipway.contract import Model
from slipway.pipeline.tensors import features, tensors
from slipway.statistics.metrics import Floats

LATENCY_CALLS = 1_000


def write_plots(
    answers: dict[str, Floats], rows: pd.DataFrame, truth: Floats, scored: tuple[FeatureScore, ...], model: Model
) -> None:
    """Write the data for the plots that dvc.yaml defines. Omit residuals by time if rows have no TIME column."""
    with atomic.replacing(artifacts.PLOTS) as fresh:
        fresh.mkdir()
        rises = [(each.name, each.challenger) for each in scored if each.challenger is not None]
        pd.DataFrame(rises, columns=["feature", "rise_of_loss"]).to_csv(fresh / "importance.csv", index=False)
        actual = pd.DataFrame({"actual": truth})
        for name, answer in answers.items():
            actual[name] = answer[:, 0] if answer.shape[1] == 1 else answer.argmax(axis=1)
        actual.to_csv(fresh / "predicted_against_actual.csv", index=False)
        if model.TIME:
            residuals = actual[list(answers)].sub(actual["actual"], axis=0)
            day = rows[model.TIME].dt.date.to_numpy()
            residuals.groupby(day).mean().rename_axis("day").to_csv(fresh / "residual_by_time.csv")


def measure_latency(bundles: dict[str, Bundle], rows: pd.DataFrame) -> Latency:
    """Measure the median time that each bundle takes to score one row, in microseconds."""
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

"""Use BentoML with adaptive batching to serve the pipeline on pandas."""

import os

import bentoml
import joblib
import pandas as pd
from tabular import frame_of


@bentoml.service(workers=1)
class Model:
    """A service with one route, /predict."""

    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["PIPELINE"])

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1_000)
    def predict(self, records: list[dict]) -> list[float]:
        """Predict the records of many requests at once."""
        frame: pd.DataFrame = frame_of(records)
        return self.pipeline.predict(frame).tolist()

"""Use BentoML with adaptive batching to serve a graph with one numeric input."""

import bentoml
import numpy as np
from numbers_graph import load, predict


@bentoml.service(workers=1)
class Model:
    """A service with one route, /predict."""

    def __init__(self) -> None:
        self.session = load()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1_000)
    def predict(self, records: list[dict]) -> list[float]:
        """Predict the records of many requests at once."""
        return predict(self.session, np.array([list(each.values()) for each in records], dtype=np.float32))

"""Use LitServe with batching to serve a graph with one numeric input: `python litserve_onnx.py PORT`."""

import sys

import litserve
import numpy as np
from numbers_graph import load, predict


class Model(litserve.LitAPI):
    """One route, /predict."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the graph."""
        self.session = load()

    def decode_request(self, request: dict) -> np.ndarray:
        """Convert a record to one row of numbers."""
        return np.array(list(request.values()), dtype=np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Join the rows from many requests to one array."""
        return np.stack(inputs)

    def predict(self, rows: np.ndarray) -> list[float]:
        """Predict the rows of many requests at once."""
        return predict(self.session, np.atleast_2d(rows))

    def unbatch(self, output: list[float]) -> list[float]:
        """Return the list unchanged."""
        return output

    def encode_response(self, output: float) -> dict:
        """Return the answer to one request."""
        return {"prediction": output}


if __name__ == "__main__":
    model = Model(max_batch_size=16, batch_timeout=0.001)
    server = litserve.LitServer(model, accelerator="cpu", workers_per_device=1, fast_queue=True)
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)

"""Use LitServe with batching to serve the pipeline on pandas: `python litserve_server.py PORT`."""

import os
import sys

import joblib
import litserve
from tabular import frame_of


class Model(litserve.LitAPI):
    """One route, /predict."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the pipeline."""
        self.pipeline = joblib.load(os.environ["PIPELINE"])

    def decode_request(self, request: dict) -> dict:
        """Return the record unchanged."""
        return request

    def batch(self, inputs: list[dict]) -> list[dict]:
        """Return the list unchanged."""
        return inputs

    def predict(self, records: list[dict]) -> list[float]:
        """Predict the records of many requests at once."""
        return self.pipeline.predict(frame_of(records)).tolist()

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

"""Use MLServer with batching to serve a graph with one numeric input."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from numbers_graph import load, predict


class Model(MLModel):
    """An MLServer runtime for the graph."""

    async def load(self) -> bool:
        """Load the graph."""
        self.session = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predict the rows of the only input."""
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        output = NumpyCodec.encode_output("prediction", np.array(predict(self.session, rows), dtype=np.float32))
        return InferenceResponse(model_name=self.name, outputs=[output])

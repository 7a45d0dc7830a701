"""Run a graph with one input `numbers` on one thread, as Slipway does."""

import os

import numpy as np
import onnxruntime


def load() -> onnxruntime.InferenceSession:
    """Load the graph that the variable GRAPH names."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, rows: np.ndarray) -> list[float]:
    """Return the prediction for each row."""
    return session.run(None, {"numbers": rows})[0].ravel().tolist()

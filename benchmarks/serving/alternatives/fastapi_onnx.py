"""Serve the pipeline with FastAPI, exported to ONNX in the usual way, with one input for each column."""

import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import create_model
from tabular import EPOCH, is_date

EXAMPLE = json.loads(Path(os.environ["EXAMPLE"]).read_text())
Record = create_model(
    "Record", **{name: (date if is_date(value) else type(value), ...) for name, value in EXAMPLE.items()}
)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
async def predict(record: Record) -> dict[str, float]:
    """Predict one record, on the event loop."""
    inputs = {}
    for name, value in record.model_dump().items():
        if isinstance(value, str):
            inputs[name] = np.array([[value]], dtype=object)
        else:
            number = value.toordinal() - EPOCH if isinstance(value, date) else value
            inputs[name] = np.array([[number]], dtype=np.float32)
    return {"prediction": float(session.run(None, inputs)[0].ravel()[0])}

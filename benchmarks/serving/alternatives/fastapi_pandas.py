"""Serve the pipeline with FastAPI as in many tutorials: a pydantic model, a one-row data frame, `pipeline.predict`."""

import json
import os
from pathlib import Path

import joblib
from fastapi import FastAPI
from pydantic import create_model
from tabular import frame_of

EXAMPLE = json.loads(Path(os.environ["EXAMPLE"]).read_text())
Record = create_model("Record", **{name: (type(value), ...) for name, value in EXAMPLE.items()})

app = FastAPI()
pipeline = joblib.load(os.environ["PIPELINE"])


@app.post("/predict")
def predict(record: Record) -> dict[str, float]:
    """Predict one record, on a thread from FastAPI's pool."""
    return {"prediction": float(pipeline.predict(frame_of([record.model_dump()]))[0])}

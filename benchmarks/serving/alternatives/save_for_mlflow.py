"""Save a fitted pipeline as an MLflow model: `python save_for_mlflow.py PIPELINE EXAMPLE FOLDER`."""

import json
import sys
from pathlib import Path

import joblib
import mlflow.sklearn
from mlflow.models import infer_signature
from tabular import frame_of

pipeline_file, example_file, folder = sys.argv[1:]
pipeline = joblib.load(pipeline_file)
example = frame_of([json.loads(Path(example_file).read_text())])
mlflow.sklearn.save_model(
    pipeline,
    folder,
    signature=infer_signature(example, pipeline.predict(example)),
    serialization_format="cloudpickle",  # the skops format rejects trees without a list of trusted types
    pip_requirements=[],
)

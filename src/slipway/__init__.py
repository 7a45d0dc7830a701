"""The framework. A model passes through its packages in this order: pipeline, review, release, serving, monitoring."""

import os

# Disable the telemetry of ONNX Runtime, MLflow and DVC unless the user has set these variables.
for _variable in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"):
    os.environ.setdefault(_variable, "true")

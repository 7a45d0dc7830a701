"""The machinery that ships the model: pipeline → review → release → serving → monitoring."""

import os

# What a model is and where it runs is its owner's: these tell their makers about it, unless they are told not to.
for _variable in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"):
    os.environ.setdefault(_variable, "true")

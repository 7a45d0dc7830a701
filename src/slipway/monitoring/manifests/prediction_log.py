"""The settings of the prediction log, as a component of Kustomize that the overlays include."""

from typing import Any

from slipway.config import PredictionLog

ENVIRONMENT = "SLIPWAY_ENVIRONMENT"
LABEL = "metadata.labels['app.kubernetes.io/instance']"
"""The label that contains the name of the environment. Each overlay sets it."""


def component(settings: PredictionLog | None) -> dict[str, Any]:
    """Return the Kustomize component with these settings. Without settings, the component changes nothing."""
    head = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    if settings is None:
        return {**head, "patches": []}
    patch = {"target": {"kind": "Deployment", "name": "model"}, "path": "settings.yaml"}
    return {**head, "components": ["../shipper"], "patches": [patch]}


def settings_patch(settings: PredictionLog) -> dict[str, Any]:
    """Return the patch of the Deployment that contains the settings.

    Each `$` of a value is doubled, because Kubernetes replaces `$(NAME)` in a value, and turns `$$` into `$`.
    """
    address = settings.address.rstrip("/").replace("$", "$$")
    shipper = [
        {"name": ENVIRONMENT, "valueFrom": {"fieldRef": {"fieldPath": LABEL}}},
        {"name": "SLIPWAY_PREDICTION_LOG_ADDRESS", "value": f"{address}/$({ENVIRONMENT})"},
    ]
    if settings.keep_days is not None:
        shipper.append({"name": "SLIPWAY_PREDICTION_LOG_KEEP_DAYS", "value": str(settings.keep_days)})
    share = {"name": "SLIPWAY_PREDICTION_LOG_SHARE", "value": str(settings.share)}
    containers = {
        "containers": [{"name": "server", "env": [share]}],
        "initContainers": [{"name": "prediction-log-shipper", "image": settings.image, "env": shipper}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "model"},
        "spec": {"template": {"spec": containers}},
    }

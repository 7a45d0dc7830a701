"""The objects of a canary of image 2, with a status as Argo Rollouts 1.9 writes it."""

import copy
from typing import Any

from slipway.release import canary
from tests.slipway.release.conftest import image

Objects = dict[str, dict[str, Any]]
OF = "deployment/model"


def of_image(number: int) -> dict[str, Any]:
    """Return the specification of a Deployment."""
    reference = f"{image(number).name}:{image(number).tag}@{image(number).digest}"
    return {"spec": {"template": {"spec": {"containers": [{"image": reference}]}}}}


APPLIED: Objects = {
    OF: {"metadata": {"generation": 7}, **of_image(2)},
    canary.ROLLOUT: {
        "metadata": {"generation": 3},
        "status": {"observedGeneration": "3", "workloadObservedGeneration": "7", "phase": "Progressing"},
    },
}


def with_status(**status: Any) -> Objects:
    found = copy.deepcopy(APPLIED)
    found[canary.ROLLOUT]["status"] |= status
    return found

"""Follow a canary in the cluster, until Argo Rollouts has promoted or aborted it."""

import time
from collections.abc import Callable
from typing import Any

from slipway.errors import CheckFailed, InputError
from slipway.release.component import Image

Read = Callable[[str], dict[str, Any]]
"""Returns an object of the cluster by its kind and name, such as `deployment/model`."""
ROLLOUT = "rollouts.argoproj.io/model"
PAUSE = 1.0
"""Seconds between two requests to the cluster."""
ABORTED = "aborted"


def follow(read: Read, deployment: str, image: Image, timeout: int) -> str:
    """Wait until all replicas run the image. Return a sentence with the duration in seconds.

    `deployment` is the workload that the Rollout refers to. If the cluster does not answer, the request is repeated.
    Raises CheckFailed if the canary is aborted, or if it is not promoted within `timeout` seconds.
    """
    began, state = time.monotonic(), ""
    while time.monotonic() - began < timeout:
        try:
            rollout = read(ROLLOUT)
            state = _waits_for(rollout, read(deployment), image)
        except InputError as error:
            state = str(error)
        if not state:
            return f"Argo Rollouts has promoted the canary, {time.monotonic() - began:.0f} s later"
        if state == ABORTED:
            raise CheckFailed(f"Argo Rollouts has aborted the canary: {rollout['status'].get('message', 'no reason')}")
        time.sleep(PAUSE)
    raise CheckFailed(f"Argo Rollouts has not promoted the canary after {timeout} s: {state}.")


def _waits_for(rollout: dict[str, Any], deployment: dict[str, Any], image: Image) -> str:
    """Return ABORTED, or what the canary waits for, or "" if all replicas run the image.

    The status of a Rollout can be outdated. It contains the generations of Rollout and Deployment that it describes.
    """
    status = rollout.get("status", {})
    images = [each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]]
    if not any(str(image.digest or image.tag) in each for each in images):
        return "the release is not applied yet"
    seen = (status.get("observedGeneration"), status.get("workloadObservedGeneration"))
    if seen != tuple(str(each["metadata"]["generation"]) for each in (rollout, deployment)):
        return "Argo Rollouts has not read the release yet"
    if status.get("abort"):
        return ABORTED
    if status.get("phase") == "Healthy":
        return ""
    return str(status.get("message") or status.get("phase") or "it has no status")

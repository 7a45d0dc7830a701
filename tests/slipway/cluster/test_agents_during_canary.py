"""Flux and Argo CD apply a rollback while Argo Rollouts runs a canary of the release before it.

Needs an agent as in test_agents.py, and the controller that `make rollouts` installs.
"""

from typing import Any

import pytest

from tests.slipway.cluster.agents import BOUND, Followed
from tests.slipway.cluster.kubectl import Production, wait

COMPONENT = "- ../../components/canary #"


@pytest.fixture
def staging(followed: Followed, namespaces: dict[str, str]) -> Production:
    """Staging with the component `canary`. The Rollout runs image A."""
    production = followed.production
    overlay = production.overlay.with_name("staging")
    file = overlay / "kustomization.yaml"
    file.write_text(file.read_text().replace(f"# {COMPONENT}", COMPONENT))
    environment = Production(production.cluster, namespaces["staging"], overlay, production.images)
    followed.push(production.images["A"], environment)
    wait(lambda: status(environment).get("phase") == "Healthy", "The Rollout does not become healthy")
    return environment


def status(environment: Production) -> dict[str, Any]:
    """Return the status of the Rollout. It is empty until its controller has observed the last change."""
    items = environment.read("rollouts.argoproj.io")["items"]
    found = items[0] if items else {"metadata": {"generation": 0}, "status": {}}
    current = found.get("status", {})
    return dict(current) if current.get("observedGeneration") == str(found["metadata"]["generation"]) else {}


def test_rollback_does_not_wait_for_a_canary(followed: Followed, staging: Production) -> None:
    followed.push(staging.images["B"], staging)
    wait(lambda: status(staging).get("pauseConditions"), "The canary does not start")
    followed.push(staging.images["A"], staging)
    seconds = followed.wait_for(staging.images["A"], staging)
    print(f"the rollback was applied after {seconds:.1f} s")
    assert seconds < BOUND
    wait(lambda: status(staging).get("phase") == "Healthy", "The stable replicas do not take over")

"""Flux and Argo CD apply releases and rollbacks, revert manual changes, and leave the replicas to the autoscaler.

`make flux` and `make argocd` install them. SLIPWAY_FLUX_HOST and SLIPWAY_ARGOCD_HOST are an address of this machine to
which they can connect: 127.0.0.1 if they run on it, or the gateway of kind's network. An agent without this variable is
not tested.
"""

import time
from collections.abc import Iterator

import pytest

from slipway.release.component import Image
from tests.slipway.cluster.agents import AGENTS, Followed, container, following
from tests.slipway.cluster.kubectl import Load, Production, wait

BOUND = 30
"""Seconds in which an agent must apply a commit, after it was notified."""


@pytest.fixture(scope="module", params=AGENTS, ids=lambda agent: agent.folder)
def followed(request: pytest.FixtureRequest, production: Production) -> Iterator[Followed]:
    """An agent, and the repository that it follows. Production runs image A."""
    with following(request.param, production) as found:
        yield found


def test_rollback_does_not_wait_for_the_release_before_it(followed: Followed) -> None:
    """A release whose image does not exist has no ready pod. Its rollout fails after progressDeadlineSeconds."""
    production, good = followed.production, followed.production.images["A"]
    bad = Image(good.name, good.tag, f"sha256:{'0' * 64}")
    followed.push(bad)
    print(f"the release was applied after {followed.wait_for(bad):.1f} s")
    wait(
        lambda: followed.production.read("deployment", "model")["status"].get("unavailableReplicas"),
        "No pod is started",
    )
    followed.push(good)
    seconds = followed.wait_for(good)
    print(f"its rollback was applied after {seconds:.1f} s")
    assert seconds < BOUND
    production.settle()


def test_release_by_an_agent_drops_no_request(followed: Followed, load: Load) -> None:
    with load.watched(f"from A to B by {followed.agent.name}") as seen:
        followed.push(followed.production.images["B"])
        print(f"the release was applied after {followed.wait_for(followed.production.images['B']):.1f} s")
        followed.production.settle()
    assert seen.failed == 0
    assert len(load.go_on(3).releases) == 1


def test_agent_reverts_manual_changes_except_replicas(followed: Followed) -> None:
    production, replicas = followed.production, 5
    wanted = container(production)["env"]
    production.must("set", "env", "deployment/model", "SLIPWAY_GRACE=1")
    production.must("delete", "poddisruptionbudget", "model")
    production.scale(replicas)
    began = time.monotonic()
    followed.notify(followed.agent.applies)
    wait(lambda: container(production)["env"] == wanted, "The environment variable is not reverted")
    budget = ("get", "poddisruptionbudget", "model", f"--namespace={production.namespace}")
    wait(lambda: production.cluster.run(*budget).returncode == 0, "The disruption budget is not created")
    print(f"manual changes were reverted after {time.monotonic() - began:.1f} s")
    assert production.read("deployment", "model")["spec"]["replicas"] == replicas
    production.scale(3)


def test_model_keeps_running_without_its_agent(followed: Followed) -> None:
    followed.leave()
    assert "deletionTimestamp" not in followed.production.read("deployment", "model")["metadata"]
    followed.production.settle()

"""Flux and Argo CD apply releases and rollbacks, revert manual changes, and leave the replicas to the autoscaler.

`make flux` and `make argocd` install them. SLIPWAY_FLUX_HOST and SLIPWAY_ARGOCD_HOST are an address of this machine to
which they can connect: 127.0.0.1 if they run on it, or the gateway of kind's network. An agent without this variable is
not tested.
"""

import time

from slipway.release.component import Image
from tests.slipway.cluster.agents import BOUND, Followed, container
from tests.slipway.cluster.kubectl import Load, wait


def test_rollback_does_not_wait_for_the_release_before_it(followed: Followed) -> None:
    """A release whose image does not exist has no ready pod. Its rollout fails after progressDeadlineSeconds."""
    production, good = followed.production, followed.production.images["A"]
    bad = Image(good.name, good.tag, f"sha256:{'0' * 64}")
    followed.push(bad, production)
    print(f"the release was applied after {followed.wait_for(bad, production):.1f} s")
    wait(
        lambda: followed.production.read("deployment", "model")["status"].get("unavailableReplicas"),
        "No pod is started",
    )
    followed.push(good, production)
    seconds = followed.wait_for(good, production)
    print(f"its rollback was applied after {seconds:.1f} s")
    assert seconds < BOUND
    production.settle()


def test_release_by_an_agent_drops_no_request(followed: Followed, load: Load) -> None:
    production, image = followed.production, followed.production.images["B"]
    with load.watched(f"from A to B by {followed.agent.name}") as seen:
        followed.push(image, production)
        print(f"the release was applied after {followed.wait_for(image, production):.1f} s")
        production.settle()
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

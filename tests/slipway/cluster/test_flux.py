"""Flux applies releases and rollbacks, corrects manual changes, and leaves the replicas to the autoscaler.

The cluster needs the source-controller and the kustomize-controller. SLIPWAY_FLUX_HOST is an address of this machine to
which they can connect: 127.0.0.1 if they run on it, or the gateway of kind's network.
"""

import time

from slipway.release.component import Image
from tests.slipway.cluster.flux import KUSTOMIZATION, Flux, container
from tests.slipway.cluster.kubectl import Load, wait

BOUND = 30
"""Seconds in which Flux must apply a commit, after it was notified."""


def test_rollback_does_not_wait_for_the_release_before_it(flux: Flux) -> None:
    """A release whose image does not exist has no ready pod. Its rollout fails after progressDeadlineSeconds."""
    good = flux.production.images["A"]
    bad = Image(good.name, good.tag, f"sha256:{'0' * 64}")
    flux.push(bad)
    print(f"the release was applied after {flux.wait_for(bad):.1f} s")
    wait(lambda: flux.production.read("deployment", "model")["status"].get("unavailableReplicas"), "No pod is started")
    flux.push(good)
    seconds = flux.wait_for(good)
    print(f"its rollback was applied after {seconds:.1f} s")
    assert seconds < BOUND
    flux.production.settle()


def test_release_by_flux_drops_no_request(flux: Flux, load: Load) -> None:
    with load.watched("from A to B by Flux") as seen:
        flux.push(flux.production.images["B"])
        print(f"the release was applied after {flux.wait_for(flux.production.images['B']):.1f} s")
        flux.production.settle()
    assert seen.failed == 0
    assert len(load.go_on(3).releases) == 1


def test_flux_reverts_manual_changes_except_replicas(flux: Flux) -> None:
    production, replicas = flux.production, 5
    wanted = container(production)["env"]
    production.must("set", "env", "deployment/model", "SLIPWAY_GRACE=1")
    production.must("delete", "poddisruptionbudget", "model")
    production.scale(replicas)
    began = time.monotonic()
    flux.notify(KUSTOMIZATION)
    wait(lambda: container(production)["env"] == wanted, "Flux does not revert the environment variable")
    budget = ("get", "poddisruptionbudget", "model", f"--namespace={production.namespace}")
    wait(lambda: production.cluster.run(*budget).returncode == 0, "Flux does not create the disruption budget")
    print(f"manual changes were reverted after {time.monotonic() - began:.1f} s")
    assert production.read("deployment", "model")["spec"]["replicas"] == replicas
    production.scale(3)


def test_model_keeps_running_without_flux(flux: Flux) -> None:
    flux.leave()
    assert "deletionTimestamp" not in flux.production.read("deployment", "model")["metadata"]
    flux.production.settle()

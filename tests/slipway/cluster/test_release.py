"""No request is dropped by a release, a rollback, a deleted replica or scaling."""

import pytest

from tests.slipway.cluster.kubectl import CLIENTS, Load, Production


@pytest.mark.parametrize(("old", "new"), [("A", "B"), ("B", "A")], ids=["release", "rollback"])
def test_release_drops_no_request(production: Production, load: Load, old: str, new: str) -> None:
    production.release(old)
    before = load.go_on(3)
    with load.watched(f"from {old} to {new}") as seen:
        production.release(new)
    assert seen.failed == 0
    after = load.go_on(3)
    assert len(before.releases) == len(after.releases) == 1
    assert seen.releases == before.releases | after.releases
    assert before.releases != after.releases, "A and B are the same release, so the test cannot tell them apart"
    assert after.bundles == {each.split()[0] for each in after.releases}


def test_deleted_replica_drops_no_request(production: Production, load: Load) -> None:
    name = production.pods()[0]["metadata"]["name"]
    with load.watched("a replica deleted") as seen:
        production.must("delete", "pod", name)
        production.settle()
    assert seen.failed == 0
    assert name not in [pod["metadata"]["name"] for pod in production.pods()]


def test_killed_replica_drops_only_the_requests_it_was_answering(production: Production, load: Load) -> None:
    """Each client has one request in progress, and can reach the dead replica once more when it retries."""
    name = production.pods()[0]["metadata"]["name"]
    with load.watched("a replica killed") as seen:
        production.must("delete", "pod", name, "--grace-period=0", "--force")
        production.settle()
    assert seen.failed <= 2 * CLIENTS


def test_scaling_drops_no_request(production: Production, load: Load) -> None:
    with load.watched("from 3 to 10 replicas and back") as seen:
        production.scale(10)
        production.scale(3)
    assert seen.failed == 0

"""From a delivery to its release and back: the real workflows by act, with a real engine, registries and origin."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from slipway.release.history import PRODUCTION, STAGING, Live, live
from slipway.release.landing import snapshot
from workflows.forge import Forge, PullRequest
from workflows.test_pull_request import DECIDED, JUDGED, POSTED, SET_UP

OVERLAY = ["kustomize/overlays/{}/kustomization.yaml", "kustomize/overlays/{}/release.yaml"]
CHAMPION = ["champion.dvc", "dvc.lock", "metrics/evaluation.json", "metrics/release.json", "metrics/verdict.json"]
SHIPPED = dict.fromkeys(("candidate", "image", "staging", "production"), "success")
RELEASED = [*SET_UP, "actions/download-artifact", "slipway promote {0}", "slipway deploy {0}"]


@pytest.fixture
def shipping(forge: Forge, images: str) -> Forge:
    """A forge of a team that has said where its images go, and has released the champion of this repository."""
    work = forge.clone("first")
    work.edit("params.yaml", "image: null", f"image: {images}/team/houses")
    work.commit("Say where images go")
    work.must("git", "push", "--quiet", "origin", "main")
    work.must("slipway", "candidate")
    for environment in (STAGING, PRODUCTION):
        image = ("--image", f"{images}/team/houses", "--tag", "sha-first", "--digest", f"sha256:{1:064x}")
        work.must("slipway", "promote", environment, *image)
    return forge


def edit(forge: Forge, *edits: tuple[str, str, str]) -> None:
    """Change files of main, as a merge would."""
    work = forge.clone(f"edit-{forge.git('rev-parse', '--short', 'main')}")
    for file, old, new in edits:
        work.edit(file, old, new)
    work.commit("Edit")
    work.must("git", "push", "--quiet", "origin", "main")


def released(forge: Forge, environment: str) -> Live:
    found = live(snapshot("main", forge.bare), environment)
    assert found
    return found


def files(forge: Forge, *revisions: str) -> list[str]:
    return forge.git("diff", "--name-only", *revisions).splitlines()


def deliver(forge: Forge) -> PullRequest:
    work = forge.clone("delivery")
    work.must("dvc", "pull", "--quiet", "data.dvc")
    work.must("slipway", "ingest")
    work.must("dvc", "push", "--quiet", "data.dvc")
    work.commit("Deliver 1997H2")
    return forge.propose(work, 7, "delivery")


@contextmanager
def running(host: str, image: str) -> Iterator[str]:
    """The address of a container of the image, as a cluster would pull it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = docker.DockerClient(base_url=host)
    container = client.containers.run(image, detach=True, environment={"SLIPWAY_PORT": str(port)}, network_mode="host")
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        container.remove(force=True)


def judge(forge: Forge, pull: PullRequest) -> None:
    """The pull request shows that the delivery makes a better model."""
    run = forge.check(pull, "opened")
    assert run.jobs == {"changes": "success", "model": "success", "pass": "success"}
    assert run.ran("changes") == [*SET_UP, "slipway changes"]
    assert run.ran("model") == [*JUDGED, "slipway record"]
    assert run.ran("pass") == DECIDED
    assert "May be merged: the verdict is ship, and no other job had work." in run.log["pass"]
    report = forge.report(run)
    assert report.judged
    assert report.judged.verdict.verdict == "ship"
    assert (report.pull_request, report.override) == (7, None)
    assert (report.lineage.commit, report.lineage.head) == (pull.merge, pull.head)
    assert [each.name for each in report.changes.deliveries or ()] == ["1997H2"]

    posted = forge.comment(run)
    assert posted.jobs == {"comment": "success"}
    assert posted.ran("comment") == POSTED
    (body,) = forge.github.state.bodies(7)
    assert "SHIP" in body
    assert report.judged.verdict.reason.split(",")[0].split("$")[0] in body
    pictures = forge.git("ls-tree", "-r", "--name-only", "reports").splitlines()
    assert {Path(name).parent for name in pictures} == {Path(f"7/{pull.head[:12]}")}


def test_from_a_delivery_to_its_release_and_back(shipping: Forge, bases: dict[str, str]) -> None:
    forge, registry = shipping, f"sqlite:///{shipping.folder}/mlflow.db"
    forge.secrets = {"MLFLOW_TRACKING_URI": registry}
    before = released(forge, PRODUCTION)
    pull = deliver(forge)
    judge(forge, pull)
    merged = forge.merge(pull)

    run = forge.ship(**bases)
    assert run.jobs == SHIPPED, run.log
    for environment in (STAGING, PRODUCTION):
        assert run.ran(environment) == [step.format(environment) for step in RELEASED]
    after = released(forge, PRODUCTION)
    assert after == released(forge, STAGING) != before
    assert (after.origin.commit, after.origin.version) == (merged, "1")
    assert after.image.tag == f"sha-{merged[:12]}"
    assert (after.origin.verdict or "").startswith("ship: mean absolute error falls by $")
    staged, shipped = forge.git("rev-list", "--reverse", "--first-parent", f"{merged}..main").splitlines()
    assert files(forge, merged, staged) == [each.format(STAGING) for each in OVERLAY]
    remote = [path for path in files(forge, staged, shipped) if path.startswith("sample/remote/files/md5/")]
    expected = sorted([*CHAMPION, *(each.format(PRODUCTION) for each in OVERLAY), *remote])
    assert files(forge, staged, shipped) == expected
    assert forge.git("diff", "--diff-filter=A", "--name-only", staged, shipped).splitlines() == remote
    name = f"{after.image.name}@{after.image.digest}"
    assert (forge.artifacts / "attested").read_text().count(name) == 2
    clone = forge.clone("after")
    clone.must("dvc", "pull", "--quiet")
    assert "up to date" in clone.must("dvc", "status")
    host = bases["DOCKER_HOST"]
    with running(host, name) as url:
        shown = clone.run("slipway", "status", "--live", url, DOCKER_HOST=host, MLFLOW_TRACKING_URI=registry)
    assert shown.code == 0, shown.out
    assert shown.out.count("  holds  ") == 7
    assert "is the champion" in shown.out

    again = forge.ship(**bases)
    assert again.jobs == {"candidate": "success"}
    assert "nothing to release" in again.log["candidate"]
    assert forge.git("rev-parse", "main") == shipped

    back = forge.roll_back(PRODUCTION)
    assert back.jobs == {"rollback": "success"}, back.log
    assert released(forge, PRODUCTION) == before
    # Byte for byte, but for what was pushed to the remote, and for staging.
    assert files(forge, merged, "main") == [*(each.format(STAGING) for each in OVERLAY), *remote]


def test_staging_that_does_not_become_healthy(shipping: Forge, bases: dict[str, str]) -> None:
    """Production is not touched; staging goes back; an issue says so."""
    forge, before = shipping, released(shipping, PRODUCTION)
    edit(
        forge,
        ("params.yaml", "urls: {}", "urls: {staging: 'http://127.0.0.1:1'}"),
        ("params.yaml", "patience: 600", "patience: 2"),
        ("src/slipway/serving/settings.py", 'PREFIX = "SLIPWAY_"', 'PREFIX = "SLIPWAY_"  # another server'),
    )
    run = forge.ship(**bases)
    assert run.jobs == {"candidate": "success", "image": "success", "staging": "failure"}, run.log
    assert "does not answer with bundle" in run.log["staging"]
    assert run.ran(STAGING)[-2:] == ["slipway rollback staging", "slipway incident staging"]
    assert released(forge, PRODUCTION) == released(forge, STAGING) == before
    (issue,) = forge.github.state.issues
    assert issue["title"] == "A release to staging failed, and was taken back"


def test_an_image_that_cannot_be_pushed(forge: Forge, bases: dict[str, str]) -> None:
    edit(forge, ("params.yaml", "image: null", "image: localhost:1/team/houses"))
    tip = forge.git("rev-parse", "main")
    run = forge.ship(**bases)
    assert run.jobs == {"candidate": "success", "image": "failure"}
    assert "localhost:1/team/houses" in run.log["image"]
    assert "cannot be pushed" in run.log["image"]
    assert forge.git("rev-parse", "main") == tip


def test_a_fresh_fork_is_green(forge: Forge) -> None:
    """It has not said where images go, and needs no secret."""
    run = forge.ship()
    assert run.jobs == {"candidate": "success"}
    assert "params.yaml does not say where images are pushed" in run.log["candidate"]

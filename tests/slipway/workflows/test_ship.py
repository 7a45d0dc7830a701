"""From a delivery to its release and back: the real workflows by act, with a real engine, registries and origin."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from slipway.integrations.git import snapshot
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, STAGING, live
from tests.slipway.conftest import ROOT
from tests.slipway.workflows.forge import Forge, PullRequest, Run
from tests.slipway.workflows.test_pull_request import DECIDED, JUDGED, POSTED, SET_UP

RELEASE = "kustomize/overlays/{}/release/kustomization.yaml"
CHAMPION = ["champion.dvc", "dvc.lock", "metrics/evaluation.json", "metrics/release.json", "metrics/verdict.json"]
SHIPPED = dict.fromkeys(("candidate", "image", "staging", "production"), "success")
RELEASED = [*SET_UP, "actions/download-artifact", "slipway promote {0}", "slipway deploy {0}"]


@pytest.fixture
def watching(forge: Forge) -> Forge:
    """A forge of a team with a source of its own, still empty."""
    (forge.folder / "source").mkdir()
    edit(forge, ("params.yaml", "source: sample/source", f"source: file://{forge.folder}/source"))
    return forge


@pytest.fixture
def shipping(watching: Forge, images: str) -> Forge:
    """It has said where its images go, and has released the champion of this repository."""
    forge = watching
    edit(forge, ("params.yaml", "image: null", f"image: {images}/team/houses"))
    work = forge.clone("first")
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


def released(forge: Forge, environment: str) -> Deployed:
    found = live(snapshot("main", forge.bare), environment)
    assert found
    return found


def files(forge: Forge, *revisions: str) -> list[str]:
    return forge.git("diff", "--name-only", *revisions).splitlines()


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


def arrive(forge: Forge, name: str, rows: int | None = None, more: str = "") -> None:
    """Have a delivery, or its first rows, lie in the source."""
    lines = (ROOT / f"sample/source/{name}.csv").read_text().splitlines()
    (forge.folder / "source" / f"{name}.csv").write_text("\n".join(lines[:rows]) + (more or "\n"))


def started(forge: Forge) -> list[str]:
    """The workflows that were started since this was asked last."""
    names = [each["workflow"] for each in forge.github.state.dispatched]
    forge.github.state.dispatched.clear()
    return names


def judge(forge: Forge, pull: PullRequest) -> Run:
    """The pull request shows that the delivery makes a better model."""
    run = forge.ask(pull)
    assert run.jobs == {"changes": "success", "model": "success", "pass": "success"}, run.log
    assert run.ran("changes") == [*SET_UP, "slipway changes"]
    assert run.ran("model") == [*JUDGED, "slipway record"]
    assert run.ran("pass") == DECIDED
    assert "May be merged: the verdict is ship, and no other job had work." in run.log["pass"]
    report = forge.report(run)
    assert report.judged
    assert report.judged.verdict.verdict == "ship"
    assert (report.pull_request, report.override) == (pull.number, None)
    assert [each.name for each in report.changes.deliveries or ()] == ["1997H2"]
    return run


def post(forge: Forge, pull: PullRequest, run: Run) -> None:
    """The report is posted, and the pull request merges itself."""
    posted = forge.comment(run)
    assert posted.jobs == {"comment": "success", "merge": "success"}, posted.log
    assert posted.ran("comment") == POSTED
    (body,) = forge.github.state.bodies(pull.number)
    assert "SHIP" in body
    assert "mean absolute error falls by" in body
    pictures = forge.git("ls-tree", "-r", "--name-only", "reports").splitlines()
    assert {Path(name).parent for name in pictures} == {Path(f"{pull.number}/{pull.head[:12]}")}
    assert forge.github.state.pulls[str(pull.number)]["merging"] == f"{pull.title} (#{pull.number})"


def test_from_a_file_in_the_source_to_its_release_and_back(shipping: Forge, bases: dict[str, str]) -> None:
    forge, registry = shipping, f"sqlite:///{shipping.folder}/mlflow.db"
    forge.secrets = {"MLFLOW_TRACKING_URI": registry}
    before = released(forge, PRODUCTION)
    arrive(forge, "1997H2")
    found = forge.look_for_data()
    assert found.jobs == {"propose": "success"}, found.log
    assert started(forge) == ["pull-request.yml"]
    pull = forge.opened(1)
    assert pull.title.startswith("Take in 1997H2: ")
    post(forge, pull, judge(forge, pull))
    assert started(forge) == ["ship.yml"]
    merged = forge.merge(pull)

    forge.settings |= bases
    run = forge.ship()
    assert run.jobs == SHIPPED, run.log
    for environment in (STAGING, PRODUCTION):
        assert run.ran(environment) == [step.format(environment) for step in RELEASED]
    after = released(forge, PRODUCTION)
    assert after == released(forge, STAGING) != before
    assert (after.provenance.commit, after.registry_version) == (merged, "1")
    assert after.image.tag == f"sha-{merged[:12]}"
    assert (after.provenance.reason or "").startswith("mean absolute error falls by $")
    staged, shipped = forge.git("rev-list", "--reverse", "--first-parent", f"{merged}..main").splitlines()
    assert files(forge, merged, staged) == [RELEASE.format(STAGING)]
    remote = [path for path in files(forge, staged, shipped) if path.startswith("sample/remote/files/md5/")]
    expected = sorted([*CHAMPION, RELEASE.format(PRODUCTION), *remote])
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
    assert "has the alias champion" in shown.out

    again = forge.ship()
    assert again.jobs == {"candidate": "success"}
    assert "nothing to release" in again.log["candidate"]
    assert forge.git("rev-parse", "main") == shipped

    back = forge.roll_back(PRODUCTION)
    assert back.jobs == {"rollback": "success"}, back.log
    assert released(forge, PRODUCTION) == before
    # Byte for byte, but for what was pushed to the remote, and for staging.
    assert files(forge, merged, "main") == [RELEASE.format(STAGING), *remote]


def test_a_delivery_that_is_held_and_one_that_is_not_fit(watching: Forge) -> None:
    """One is not opened twice; the next builds on main, with its data; a broken one is left and told of."""
    forge = watching
    arrive(forge, "1997H2", rows=120)  # too few to say anything
    assert forge.look_for_data().jobs == {"propose": "success"}
    held = forge.opened(1)
    run = forge.ask(held)
    assert run.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert forge.comment(run).jobs == {"comment": "success"}
    assert "HOLD" in forge.github.state.bodies(1)[0]
    assert "merging" not in forge.github.state.pulls["1"]
    again = forge.look_for_data()
    assert (again.jobs, "the source has no new delivery" in again.log["propose"]) == ({"propose": "success"}, True)

    arrive(forge, "1998H1", rows=200, more=" and half a")
    broken = forge.look_for_data()
    assert broken.jobs == {"propose": "failure"}
    assert "1998H1.csv is truncated" in broken.log["propose"]
    arrive(forge, "1998H2", rows=200)
    assert forge.look_for_data().jobs == {"propose": "success"}
    assert forge.git("rev-parse", "delivery/1998H2~") == forge.git("rev-parse", "main")
    body = forge.github.state.pulls["2"]["body"]
    assert "\n- 1997H2: 11" in body
    assert "1998H1.csv is truncated" in body
    assert len(forge.github.state.pulls) == 2


def test_a_live_model_that_decays_is_told_of_in_one_issue(watching: Forge) -> None:
    """While it lasts; and new data is looked for."""
    forge = watching
    for name in ("1997H2", "1998H1"):
        arrive(forge, name)
    first = forge.monitor()
    assert first.jobs == {"monitor": "success"}, first.log
    assert "decay on 1998H1: ALARM: mean absolute error is $" in first.log["monitor"]
    (issue,) = forge.github.state.issues
    assert "- **decay on 1998H1**: mean absolute error is $" in issue["body"]
    assert issue["body"].startswith("Since today:")
    assert started(forge) == ["new-data.yml"]

    assert forge.monitor().jobs == {"monitor": "success"}
    assert [each["title"] for each in forge.github.state.issues] == ["The live model needs attention"]
    assert issue["body"].startswith("Since 2000-01-02:")
    assert started(forge) == ["new-data.yml"]

    (forge.folder / "source/1998H1.csv").unlink()
    last = forge.monitor()
    assert "decay on 1997H2: no alarm" in last.log["monitor"]
    assert issue["state"] == "closed"
    assert started(forge) == []


def test_staging_that_does_not_become_healthy(shipping: Forge, bases: dict[str, str]) -> None:
    """Production is not touched; staging goes back; an issue says so."""
    forge, before = shipping, released(shipping, PRODUCTION)
    edit(
        forge,
        ("params.yaml", "urls: {}", "urls: {staging: 'http://127.0.0.1:1'}"),
        ("params.yaml", "timeout_seconds: 600", "timeout_seconds: 2"),
        ("src/slipway/serving/settings.py", 'PREFIX = "SLIPWAY_"', 'PREFIX = "SLIPWAY_"  # another server'),
    )
    forge.variables, forge.secrets = {"SLIPWAY_APP_ID": "1"}, {"SLIPWAY_APP_KEY": "a key"}
    forge.settings |= {**bases, "FORGE_APP_TOKEN": forge.github.state.token}
    run = forge.ship()
    assert run.jobs == {"candidate": "success", "image": "success", "staging": "failure"}, run.log
    assert "actions/create-github-app-token" in run.ran(STAGING)
    assert "does not answer with bundle" in run.log["staging"]
    assert run.ran(STAGING)[-2:] == ["slipway rollback staging", "slipway report-failure staging"]
    assert released(forge, PRODUCTION) == released(forge, STAGING) == before
    (issue,) = forge.github.state.issues
    assert issue["title"] == "A release to staging failed, and was rolled back"


def test_an_image_that_cannot_be_pushed(forge: Forge, bases: dict[str, str]) -> None:
    edit(forge, ("params.yaml", "image: null", "image: localhost:1/team/houses"))
    tip = forge.git("rev-parse", "main")
    forge.settings |= bases
    run = forge.ship()
    assert run.jobs == {"candidate": "success", "image": "failure"}
    assert "localhost:1/team/houses" in run.log["image"]
    assert "cannot be pushed" in run.log["image"]
    assert forge.git("rev-parse", "main") == tip


def test_a_fresh_fork_is_green(forge: Forge) -> None:
    """It needs no secret, neither as it is made nor adopted and still without a model of its own."""
    quiet(forge, "release.image is not set in params.yaml", "is the template's sample")
    work = forge.clone("adopted")
    work.must("slipway", "init", "--repository", "https://github.com/team/houses")
    work.commit("Adopt the template")
    work.must("git", "push", "--quiet", "origin", "main")
    quiet(forge, "data.dvc has no delivery yet", "nothing to do: ")
    assert (forge.github.state.pulls, forge.github.state.issues, started(forge)) == ({}, [], [])


def quiet(forge: Forge, of_release: str, of_data: str) -> None:
    """What a push to main and the schedules start ends well, and does nothing."""
    told = ((forge.ship, "candidate", of_release), (forge.look_for_data, "propose", of_data))
    for start, job, words in (*told, (forge.monitor, "monitor", of_data)):
        run = start()
        assert run.jobs == {job: "success"}, run.log
        assert words in run.log[job]

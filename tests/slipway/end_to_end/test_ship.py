"""From a delivery to its release and back: act runs the real workflows, with a real engine, registry and origin."""

import os
import re
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import numpy as np
import pandas as pd
import pytest

from demo.fakes.github_repo import GitHubRepo, PullRequest
from demo.fakes.workflow_run import Run
from slipway.artifacts import BUNDLE, SCORES, VALIDATED
from slipway.artifacts import CHAMPION as CHAMPION_FOLDER
from slipway.bundle import TRAINING_ROWS, folder_hash
from slipway.integrations.git import snapshot
from slipway.integrations.image_registry import digest_of
from slipway.integrations.ports import free_port
from slipway.release.component import Deployed, Image
from slipway.release.history import PRODUCTION, STAGING, live
from tests.slipway.conftest import ROOT
from tests.slipway.end_to_end.repo import check, clone, comment, propose, read_report
from tests.slipway.end_to_end.test_pull_request import DECIDED, JUDGED, POSTED, SET_UP

RELEASE = "kustomize/overlays/{}/release/kustomization.yaml"
CHAMPION = ["champion.dvc", "dvc.lock", "metrics/evaluation.json", "metrics/release.json", "metrics/verdict.json"]
SHIPPED = dict.fromkeys(("candidate", "image", "staging", "production"), "success")
RELEASED = [*SET_UP, "actions/download-artifact", "actions/create-github-app-token"]
RELEASED += ["slipway promote {0}", "slipway deploy {0}"]


@pytest.fixture
def watching(repo: GitHubRepo) -> GitHubRepo:
    """Set up a source of deliveries, which is still empty."""
    (repo.folder / "source").mkdir()
    edit(repo, ("params.yaml", "source: sample/source", f"source: file://{repo.folder}/source"))
    return repo


@pytest.fixture
def shipping(watching: GitHubRepo, images: str) -> GitHubRepo:
    """Name a registry for images, and release the champion of this repository."""
    repo = watching
    edit(repo, ("params.yaml", "image: null", f"image: {images}/team/houses"))
    work = clone(repo, "first")
    work.must("slipway", "candidate")
    for environment in (STAGING, PRODUCTION):
        image = ("--image", f"{images}/team/houses", "--tag", "sha-first", "--digest", f"sha256:{1:064x}")
        work.must("slipway", "promote", environment, *image)
    return repo


def edit(repo: GitHubRepo, *edits: tuple[str, str, str]) -> None:
    """Change files on `main`."""
    work = clone(repo, f"edit-{repo.git('rev-parse', '--short', 'main')}")
    for file, old, new in edits:
        work.edit(file, old, new)
    work.commit("Edit")
    work.must("git", "push", "--quiet", "origin", "main")


def turn_batch_on(repo: GitHubRepo) -> None:
    """Add the component `batch` to both overlays, and let Ship build its image."""
    for environment in (STAGING, PRODUCTION):
        overlay = f"kustomize/overlays/{environment}/kustomization.yaml"
        edit(repo, (overlay, "# - ../../components/batch", "- ../../components/batch"))
    repo.variables["BATCH"] = "1"


def released(repo: GitHubRepo, environment: str) -> Deployed:
    found = live(snapshot("main", repo.bare), environment)
    assert found
    return found


def files(repo: GitHubRepo, *revisions: str) -> list[str]:
    return repo.git("diff", "--name-only", *revisions).splitlines()


@contextmanager
def running(host: str, image: str) -> Iterator[str]:
    """Run a container of an image, which is pulled as a cluster pulls it; yields its address."""
    port = free_port()
    client = docker.DockerClient(base_url=host)
    container = client.containers.run(image, detach=True, environment={"SLIPWAY_PORT": str(port)}, network_mode="host")
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        container.remove(force=True)


def deliver(repo: GitHubRepo, name: str, rows: int | None = None, more: str = "") -> None:
    """Put a delivery, or its first lines, into the source."""
    lines = (ROOT / f"sample/source/{name}.csv").read_text().splitlines()
    (repo.folder / "source" / f"{name}.csv").write_text("\n".join(lines[:rows]) + (more or "\n"))


def look_for_data(repo: GitHubRepo) -> Run:
    """Run New data."""
    return repo.run(repo.start_by_hand("new-data.yml"))


def monitor(repo: GitHubRepo) -> Run:
    """Run Monitor."""
    return repo.run(repo.start_by_hand("monitor.yml"))


def ship(repo: GitHubRepo) -> Run:
    """Run Ship, as a push to `main` starts it."""
    run = repo.push_to_main()
    assert run
    return repo.run(run)


def ship_nothing(repo: GitHubRepo) -> None:
    """Run Ship where the last release has the model of `main`."""
    again = ship(repo)
    assert again.jobs == {"candidate": "success"}
    assert "nothing to release" in again.log["candidate"]


def started(repo: GitHubRepo) -> list[str]:
    """Return the workflows that were started by the API since the last call."""
    names = [each["workflow"] for each in repo.github.state.dispatched]
    repo.github.state.dispatched.clear()
    return names


def judge(repo: GitHubRepo, pull: PullRequest) -> Run:
    """Check the pull request of the delivery 1997H2, which makes the model better."""
    run = check(repo, pull)
    assert run.jobs == {"changes": "success", "model": "success", "pass": "success"}, run.log
    assert run.ran("changes") == [*SET_UP, "slipway changes"]
    assert run.ran("model") == [*JUDGED, "slipway record"]
    assert run.ran("pass") == DECIDED
    assert "May be merged: the verdict is ship, and no other job had work." in run.log["pass"]
    report = read_report(repo, run)
    assert report.result
    assert report.result.verdict.verdict == "ship"
    assert (report.pull_request, report.override) == (pull.number, None)
    assert [each.name for each in report.changes.deliveries or ()] == ["1997H2"]
    return run


def post(repo: GitHubRepo, pull: PullRequest) -> None:
    """Post the report, which merges the pull request."""
    posted = comment(repo, pull)
    assert posted.jobs == {"charts": "success", "comment": "success", "merge": "success"}, posted.log
    assert posted.ran("comment") == POSTED
    (body,) = repo.github.state.bodies(pull.number)
    assert "SHIP" in body
    assert "mean absolute error falls by" in body
    pictures = repo.git("ls-tree", "-r", "--name-only", "reports").splitlines()
    assert {Path(name).parent for name in pictures} == {Path(f"{pull.number}/{pull.head[:12]}")}
    assert repo.github.state.pulls[str(pull.number)]["merging"] == f"{pull.title} (#{pull.number})"


def test_a_delivery_is_released_and_rolled_back(shipping: GitHubRepo, bases: dict[str, str]) -> None:
    """With an App, whose pull requests and merges start workflows."""
    repo, registry = shipping, f"sqlite:///{shipping.folder}/mlflow.db"
    repo.secrets |= {"MLFLOW_TRACKING_URI": registry, "MLFLOW_TRACKING_USERNAME": "houses"}  # part of the image's name
    repo.install_app()
    turn_batch_on(repo)
    before = released(repo, PRODUCTION)
    deliver(repo, "1997H2")
    found = look_for_data(repo)
    assert found.jobs == {"propose": "success"}, found.log
    pull = repo.pulls[1]
    assert pull.title.startswith("Ingest 1997H2: ")
    judge(repo, pull)
    post(repo, pull)
    assert started(repo) == []
    merged = repo.github.state.pulls["1"]["merged"]

    repo.settings |= bases
    run = repo.run(repo.take("ship.yml"))
    assert run.jobs == SHIPPED, run.log
    for environment in (STAGING, PRODUCTION):
        assert run.ran(environment) == [step.format(environment) for step in RELEASED]
    after = released(repo, PRODUCTION)
    assert after == released(repo, STAGING) != before
    assert (after.provenance.commit, after.registry_version) == (merged, "1")
    assert after.image.tag == f"sha-{merged[:12]}"
    assert (after.provenance.reason or "").startswith("mean absolute error falls by $")
    batch = f"{after.image.name}:{after.image.tag}-batch"
    assert after.batch == Image(*batch.rsplit(":", 1), digest_of(batch))
    staged, shipped = repo.git("rev-list", "--reverse", "--first-parent", f"{merged}..main").splitlines()
    assert files(repo, merged, staged) == [RELEASE.format(STAGING)]
    remote = [path for path in files(repo, staged, shipped) if path.startswith("sample/remote/files/md5/")]
    expected = sorted([*CHAMPION, RELEASE.format(PRODUCTION), *remote])
    assert files(repo, staged, shipped) == expected
    assert repo.git("diff", "--diff-filter=A", "--name-only", staged, shipped).splitlines() == remote
    name = f"{after.image.name}@{after.image.digest}"
    assert (repo.artifacts / "attested").read_text().count(name) == 2
    after_release = clone(repo, "after")
    after_release.must("dvc", "pull", "--quiet")
    assert "up to date" in after_release.must("dvc", "status")
    host = bases["DOCKER_HOST"]
    with running(host, name) as url:
        shown = after_release.run("slipway", "status", "--live", url, DOCKER_HOST=host, MLFLOW_TRACKING_URI=registry)
    assert shown.code == 0, shown.out
    assert shown.out.count("  holds  ") == 7
    assert "has the alias champion" in shown.out

    ship_nothing(repo)
    assert repo.git("rev-parse", "main") == shipped

    back = repo.run(repo.start_by_hand("rollback.yml", environment=PRODUCTION, to=""))
    assert back.jobs == {"rollback": "success"}, back.log
    assert back.needless == {"rollback": ["contents: write"]}  # the App pushes
    assert released(repo, PRODUCTION) == before
    # Everything is as before, except for what was pushed to the remote, and staging.
    assert files(repo, merged, "main") == [RELEASE.format(STAGING), *remote]


def test_a_held_delivery_stays_open_and_an_invalid_one_in_the_source(watching: GitHubRepo) -> None:
    """The next delivery is proposed on `main`, with the rows of the held one."""
    repo = watching
    repo.install_app()
    deliver(repo, "1997H2", rows=120)  # too few for a verdict
    assert look_for_data(repo).jobs == {"propose": "success"}
    held = repo.pulls[1]
    run = check(repo, held)
    assert run.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert comment(repo, held).jobs == {"charts": "success", "comment": "success"}
    assert "HOLD" in repo.github.state.bodies(1)[0]
    assert "merged" not in repo.github.state.pulls["1"]
    again = look_for_data(repo)
    assert (again.jobs, "the source has no new delivery" in again.log["propose"]) == ({"propose": "success"}, True)

    deliver(repo, "1998H1", rows=200, more=" and half a")
    broken = look_for_data(repo)
    assert broken.jobs == {"propose": "failure"}
    assert "1998H1.csv is truncated" in broken.log["propose"]
    deliver(repo, "1998H2", rows=200)
    assert look_for_data(repo).jobs == {"propose": "success"}
    assert repo.git("rev-parse", "delivery/1998H2~") == repo.git("rev-parse", "main")
    body = repo.github.state.pulls["2"]["body"]
    assert "\n- 1997H2: 11" in body
    assert "1998H1.csv is truncated" in body
    assert len(repo.pulls) == 2


def test_held_data_lands_and_the_next_delivery_is_judged_with_its_rows(shipping: GitHubRepo) -> None:
    """The pull request of the first delivery is merged, its model is not released, and the next is trained on both."""
    repo, before = shipping, released(shipping, PRODUCTION)
    edit(repo, ("params.yaml", "when_held: wait", "when_held: land"))
    repo.install_app()
    merged = land(repo)
    shipped = repo.run(repo.take("ship.yml"))
    assert shipped.jobs == {"candidate": "success"}, shipped.log
    assert "nothing to release: the model of the last change is held (mean absolute" in shipped.log["candidate"]
    assert repo.git("rev-parse", "main") == merged
    assert released(repo, PRODUCTION) == released(repo, STAGING) == before

    words = clone(repo, "settings")  # a change that the pipeline does not read is not held for the landed data
    words.edit("params.yaml", "timeout_seconds: 600", "timeout_seconds: 500")
    words.commit("Wait less")
    other = check(repo, propose(repo, words, 7, "settings"))
    assert other.jobs["pass"] == "success", other.log
    assert "as on main, because this change touches nothing that the pipeline reads" in other.log["pass"]

    deliver(repo, "1998H1")
    assert look_for_data(repo).jobs == {"propose": "success"}
    later = repo.pulls[8]
    run = check(repo, later)
    judged = read_report(repo, run)
    assert judged.result
    assert judged.result.verdict.verdict == "ship"
    assert [each.name for each in judged.changes.deliveries or ()] == ["1998H1"]
    work = clone(repo, "later")
    work.must("git", "checkout", "--quiet", f"origin/{later.branch}")
    work.must("dvc", "pull", "--quiet", "data.dvc", "champion.dvc")
    with tarfile.open(repo.artifacts / str(run.identity) / "bundle.tar") as packed:
        packed.extractall(work.path / BUNDLE, filter="data")
    assert folder_hash(work.path / BUNDLE) == judged.result.verdict.challenger_bundle
    for stage in ("validate", "split", "evaluate"):
        work.must("slipway", stage)
    check_training_rows(work.path)


def land(repo: GitHubRepo) -> str:
    """Deliver rows that are too few to show an improvement. Return the commit that merges them without their model."""
    deliver(repo, "1997H2", rows=120)
    assert look_for_data(repo).jobs == {"propose": "success"}
    pull, start = repo.pulls[1], repo.git("rev-parse", "main")
    body = repo.github.state.pulls["1"]["body"]
    assert "if the gate passes. Otherwise only its data is merged, and the champion stays." in body
    run = check(repo, pull)
    assert run.jobs == {"changes": "success", "model": "success", "pass": "success"}, run.log
    assert "so only the data is merged, the champion stays, and nothing is released" in run.log["pass"]
    held = read_report(repo, run)
    assert held.result
    assert (held.result.verdict.verdict, held.lands) == ("hold", True)
    posted = comment(repo, pull)
    assert posted.jobs == {"charts": "success", "comment": "success", "merge": "success"}, posted.log
    (text,) = repo.github.state.bodies(1)
    assert "HOLD" in text
    assert "the data of this delivery can be merged" in text
    assert repo.git("rev-parse", "main~") == start
    message = repo.git("show", "-s", "--format=%b", "main")
    assert "only its data is merged (ingest.when_held: land)." in message
    assert "The champion stays, and nothing is released." in message
    others = [path for path in files(repo, start, "main") if not path.startswith("sample/remote/")]
    assert others == ["data.dvc"]  # and not dvc.lock: that and metrics/ stay those of the last release
    return repo.git("rev-parse", "main")


def check_training_rows(workspace: Path) -> None:
    """Check that landed rows are trained on, and that no model is judged on a row that it was trained on."""
    rows = pd.read_parquet(workspace / VALIDATED)
    challenger, champion = (np.load(workspace / each / TRAINING_ROWS) for each in (BUNDLE, CHAMPION_FOLDER))
    landed = rows["row_id"][rows["delivery"] == "1997H2"]
    assert len(landed) > 100
    assert np.isin(landed, challenger).all()
    assert not np.isin(landed, champion).any()
    judged_on = pd.read_parquet(workspace / SCORES)["row_id"]
    assert not np.isin(judged_on, np.concatenate([challenger, champion])).any()


def test_a_decayed_model_has_one_open_issue_and_starts_new_data(watching: GitHubRepo) -> None:
    """The issue is updated while the alarm lasts, and closed when it ends."""
    repo = watching
    for name in ("1997H2", "1998H1"):
        deliver(repo, name)
    first = monitor(repo)
    assert first.jobs == {"monitor": "success"}, first.log
    assert re.search(r"decay on 1998H1: ALARM: bundle \w{12}: mean absolute error rose by ", first.log["monitor"])
    (issue,) = repo.github.state.issues
    assert re.search(
        r"decay on 1998H1\*\*: bundle \w{12}: mean absolute error rose by .*; the worst days", issue["body"]
    )
    assert issue["body"].startswith("Since today:")
    assert started(repo) == ["new-data.yml"]
    assert first.needless == {}

    assert monitor(repo).jobs == {"monitor": "success"}
    assert [each["title"] for each in repo.github.state.issues] == ["The champion needs attention"]
    assert issue["body"].startswith("Since 2000-01-02:")
    assert started(repo) == ["new-data.yml"]

    (repo.folder / "source/1998H1.csv").unlink()
    last = monitor(repo)
    assert "decay on 1997H2: no alarm" in last.log["monitor"]
    assert issue["state"] == "closed"
    assert started(repo) == []


KUBECTL = r"""#!/bin/sh
# A cluster in which Argo Rollouts has aborted the canary of the newest release.
case "$1 $2" in
kustomize\ *) printf 'kind: Rollout\n' ;;
"get deployment/model")
  digest=$(git --git-dir=ORIGIN show main:RELEASE | grep -o 'sha256:[0-9a-f]*')
  printf '{"metadata": {"generation": 1}, "spec": {"template": {"spec": {"containers": [{"image": "%s"}]}}}}' "$digest"
  ;;
"get rollouts.argoproj.io/model")
  printf '{"metadata": {"generation": 1}, "status": {"observedGeneration": "1", "workloadObservedGeneration": "1",'
  printf ' "abort": true, "message": "metric errors assessed Failed"}}'
  ;;
esac
"""


def test_a_release_whose_canary_is_aborted_is_rolled_back(
    shipping: GitHubRepo, bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Production does not change, and an issue is opened."""
    repo, before = shipping, released(shipping, PRODUCTION)
    edit(
        repo,
        ("src/slipway/serving/settings.py", 'PREFIX = "SLIPWAY_"', 'PREFIX = "SLIPWAY_"  # another server'),
    )
    programs = repo.folder / "programs"
    programs.mkdir()
    (programs / "kubectl").write_text(
        KUBECTL.replace("ORIGIN", str(repo.bare)).replace("RELEASE", RELEASE.format(STAGING))
    )
    (programs / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    repo.secrets["KUBE_CONFIG"] = "of the cluster"
    repo.install_app()
    repo.settings |= bases
    run = ship(repo)
    assert run.jobs == {"candidate": "success", "image": "success", "staging": "failure"}, run.log
    assert "actions/create-github-app-token" in run.ran(STAGING)
    assert "Argo Rollouts has aborted the canary: metric errors assessed Failed" in run.log["staging"]
    assert run.needless[STAGING] == ["contents: write"]  # the App pushes
    assert run.ran(STAGING)[-2:] == ["slipway rollback staging", "slipway report-failure staging"]
    assert released(repo, PRODUCTION) == released(repo, STAGING) == before
    (issue,) = repo.github.state.issues
    assert issue["title"] == "A release to staging failed, and was rolled back"


def test_a_release_stops_where_the_image_cannot_be_pushed(repo: GitHubRepo, bases: dict[str, str]) -> None:
    edit(repo, ("params.yaml", "image: null", "image: localhost:1/team/houses"))
    tip = repo.git("rev-parse", "main")
    repo.settings |= bases
    run = ship(repo)
    assert run.jobs == {"candidate": "success", "image": "failure"}
    assert "localhost:1/team/houses" in run.log["image"]
    assert "cannot be pushed" in run.log["image"]
    assert repo.git("rev-parse", "main") == tip


def test_a_fresh_fork_is_green(repo: GitHubRepo) -> None:
    """The workflows pass without secrets, both in a copy of the template and after `slipway init` without a model."""
    runs_without_effect(repo, "release.image is not set in params.yaml", "is the template's sample")
    work = clone(repo, "initialized")
    work.must("slipway", "init", "--repository", "https://github.com/team/houses")
    work.commit("Start from the template")
    work.must("git", "push", "--quiet", "origin", "main")
    runs_without_effect(repo, "data.dvc has no delivery yet", "nothing to do: ")
    assert (repo.github.state.pulls, repo.github.state.issues, started(repo)) == ({}, [], [])


def runs_without_effect(repo: GitHubRepo, of_release: str, of_data: str) -> None:
    """Run Ship, and New data and Monitor by their schedules, which succeed and do nothing."""
    repo.variables["SLIPWAY_SCHEDULES"] = "true"
    pushed = repo.push_to_main()
    assert pushed
    new_data, monitor = map(repo.start_by_schedule, ("new-data.yml", "monitor.yml"))
    told = ((pushed, "candidate", of_release), (new_data, "propose", of_data), (monitor, "monitor", of_data))
    for started, job, words in told:
        run = repo.run(started)
        assert run.jobs == {job: "success"}, run.log
        assert words in run.log[job]

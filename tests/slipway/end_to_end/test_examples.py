"""Each model in examples/, from a clone of the template to the predictions of its released image."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from demo.fakes.github_repo import GitHubRepo
from examples.image import generate as digits
from examples.text import generate as tickets
from slipway import artifacts
from slipway.artifacts import PARITY, VERDICT, Parity, Verdict
from slipway.bundle import load_bundle
from slipway.release.history import PRODUCTION, STAGING
from tests.model.test_conformance import PATHS, ask
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.end_to_end.example_fork import copy_example
from tests.slipway.end_to_end.repo import check, clone, comment, propose, read_report
from tests.slipway.end_to_end.test_ship import SHIPPED, released, running, ship


def copy_sales(folder: Path) -> None:
    """Deliver the sales of the template, because a fork no longer has them."""
    shutil.copytree(ROOT / "sample/source", folder, dirs_exist_ok=True)


EXAMPLES: dict[str, Callable[[Path], None]] = {
    "text": tickets.write_deliveries,
    "image": digits.write_deliveries,
    "torch-table": copy_sales,
}
OWN = ("src/model/", "requirements/model.in", "params.yaml")
"""The files of a fork that an example replaces."""
REQUESTED = 20
"""Number of rows of the holdout that are sent to a server."""


@pytest.mark.usefixtures("podman")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_ships(name: str, repo: GitHubRepo, bases: dict[str, str], images: str) -> None:
    fork = start_fork(repo, name, images)
    template = fork.must("git", "rev-parse", "HEAD").strip()
    use_example(fork, name)
    fork.edit("params.yaml", "image: null", f"image: {images}/your-team/{name}")
    fork.must("dvc", "repro", "--quiet")
    fork.must("dvc", "push", "--quiet")
    first = Verdict.read(fork.path / VERDICT)
    assert first.verdict == "first"
    assert Parity.read(fork.path / PARITY).rows_beyond_tolerance == 0
    fork.commit("Replace the model")

    repo.settings |= {"PYTHONPATH": fork.environment["PYTHONPATH"].replace(str(fork.path / "src"), "src"), **bases}
    pull = propose(repo, fork, 7, "first-model", title="Replace the model")
    run = check(repo, pull)
    assert run.jobs == {"changes": "success", "test": "success", "model": "success", "pass": "success"}, run.log
    assert "Running stage 'train'" in run.log["model"]
    report = read_report(repo, run)
    assert report.result
    assert report.result.verdict.challenger_bundle == first.challenger_bundle  # trained in another folder
    assert comment(repo, pull).jobs == {"charts": "success", "comment": "success"}
    repo.merge_by_hand(pull)
    shipped = ship(repo)
    assert shipped.jobs == SHIPPED, shipped.log
    live = released(repo, PRODUCTION)
    assert (live.provenance.bundle, released(repo, STAGING)) == (first.challenger_bundle, live)
    with running(bases["DOCKER_HOST"], f"{live.image.name}@{live.image.digest}") as url:
        check_predictions(fork, url)

    files, lines = changed_by_hand(fork, template)
    assert not [file for file in files if not file.startswith(OWN)]
    print(f"examples/{name} changes {len(files)} files by hand, with {lines} lines: {', '.join(files)}")
    assert (len(files) <= 7, lines <= 190) == (True, True)


def test_a_forgotten_seed_of_pytorch_stops_train(origin: Repository, tmp_path: Path) -> None:
    fork = origin.clone(tmp_path / "fork")
    use_example(fork, "torch-table")
    fork.edit("src/model/train.py", "    torch.manual_seed(seed)\n", "")
    for stage in ("validate", "split"):
        fork.must("slipway", stage)
    refused = fork.run("slipway", "train")
    assert refused.code == 1
    assert "`fit` gives another model when it is called again with the same arguments; pass `seed`" in refused.err
    assert not (fork.path / artifacts.BUNDLE).exists()


@pytest.mark.parametrize(
    ("page", "name", "count"), [("text", "text", 4), ("vectors-and-images", "image", 6), ("pytorch", "torch-table", 3)]
)
def test_a_page_shows_its_example(page: str, name: str, count: int) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    shown = re.findall(r"^```(?:python|yaml|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    example = ROOT / "examples" / name
    files = [*example.rglob("src/**/*.py"), *example.rglob("*.in"), example / "params.yaml"]
    assert len(shown) == count
    for block in shown:
        assert block in "".join(path.read_text() for path in files)


def start_fork(repo: GitHubRepo, name: str, images: str) -> Repository:
    """Clone the template, and give the clone its names and an image in the registry `images`."""
    fork = clone(repo, "fork")
    hosts = ("--staging-host", f"{name}-staging.example.com", "--production-host", f"{name}.example.com")
    address = ("--repository", f"https://github.com/your-team/{name}", "--image", f"{images}/your-team/{name}")
    fork.must("slipway", "init", "--name", name, *address, *hosts)
    fork.commit("Start from the template")
    fork.must("git", "push", "--quiet", "origin", "main")
    return fork


def use_example(fork: Repository, name: str) -> None:
    """Replace the model and the data."""
    shutil.rmtree(fork.path / artifacts.DATA, ignore_errors=True)
    copy_example(ROOT / "examples" / name, fork)
    EXAMPLES[name](fork.path / artifacts.DATA)
    fork.must("dvc", "add", "--quiet", "data")


def check_predictions(fork: Repository, url: str) -> None:
    """Check that all protocols of a server give the predictions of the evaluation."""
    rows = pd.read_parquet(fork.path / artifacts.HOLDOUT)
    scores = pd.read_parquet(fork.path / artifacts.SCORES).filter(regex=r"^(row_id|challenger_\d+)$")
    chosen = rows.merge(scores, on="row_id", validate="one_to_one").head(REQUESTED)
    schema = load_bundle(fork.path / artifacts.BUNDLE).schema
    with httpx.Client(base_url=url) as client:
        for path in PATHS:
            answered = ask(lambda body, path=path: client.post(path, json=body).json(), path, schema, chosen)
            np.testing.assert_allclose(answered, chosen.filter(like="challenger_"), rtol=1e-5, atol=1e-5)


def changed_by_hand(fork: Repository, template: str) -> tuple[list[str], int]:
    """Return the files that differ from a commit and that no program writes, and the number of lines in the change."""
    written = ("*.dvc", "dvc.lock", "metrics", "sample/remote")
    listed = fork.must("git", "diff", "--numstat", template, "HEAD", "--", ".", *(f":!{each}" for each in written))
    rows = [line.split("\t") for line in listed.splitlines()]
    return [file for _, _, file in rows], sum(int(added) for added, _, _ in rows)

"""docs/make-it-yours.md, run block by block: a fork with its own data, task and framework ships a model."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.fakes.github_repo import GitHubRepo
from demo.fakes.github_server import GitHub, State
from slipway.artifacts import PARITY, VERDICT, Parity, Verdict
from slipway.bundle import load_bundle
from slipway.release.history import PRODUCTION, STAGING
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.end_to_end.image.conftest import bases, images, podman  # noqa: F401 (fixtures)
from tests.slipway.end_to_end.repo import check, clone, comment, propose
from tests.slipway.end_to_end.test_ship import SHIPPED, released, ship
from tests.slipway.tools import require

PAGE = (ROOT / "docs/make-it-yours.md").read_text()
BLOCK = re.compile(r"(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FRAMEWORK = (
    "src/slipway",
    "dvc.yaml",
    ".github/workflows",
    "Dockerfile",
    "kustomize/base",
    "Makefile",
    "pyproject.toml",
)
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@localhost",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@localhost",
}


@pytest.fixture
def repo(
    origin: Repository, warm_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GitHubRepo]:
    """A repository on the fake of GitHub, made from the template, whose CI runs the real .ci/run.

    The tests of the fork have a folder of their own. Otherwise they would delete the large folders of earlier runs.
    """
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with GitHub(State(), tmp_path).serving() as github:
        yield GitHubRepo(tmp_path, origin.path, github, settings={"FAKE_VENV": str(warm_environment)})


def do(fork: Repository, section: int, registry: str = "") -> None:
    """Run a section of the page: write files, apply changes, run commands. `console` blocks are for people."""
    (text,) = re.findall(rf"^## {section}\. .*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    for file, kind, block in BLOCK.findall(text):
        if kind == "sh":
            fork.must("sh", "-e", "-c", block.replace("ghcr.io", registry or "ghcr.io"), **AUTHOR)
        elif kind == "diff":
            (fork.path / "change").write_text(block)
            fork.must("git", "apply", "change")
            (fork.path / "change").unlink()
        elif file:
            (fork.path / file).write_text(block)


def use_environment(fork: Repository) -> None:
    """Link the environment of the tests as `.venv`. It has the packages that the page locks."""
    environment = fork.path / ".venv"
    environment.mkdir()
    for each in Path(sys.prefix).iterdir():
        (environment / each.name).symlink_to(each)
    fork.must("make", "--touch", "setup")


@pytest.mark.usefixtures("podman")
def test_a_fork_ships_another_model(repo: GitHubRepo, bases: dict[str, str], images: str) -> None:  # noqa: F811, PLR0915
    require("libgomp.so.1")  # LightGBM
    fork = clone(repo, "fork")
    template = fork.must("git", "rev-parse", "HEAD").strip()
    do(fork, 1, images)
    assert not [each for each in ("demo", "benchmarks", "tests/slipway") if (fork.path / each).exists()]
    do(fork, 2)
    files, lines = changed_by_hand(fork)
    use_environment(fork)
    do(fork, 3)
    do(fork, 4)
    first = Verdict.read(fork.path / VERDICT)
    (shown,) = re.findall(r"^FIRST: (.*)$", PAGE, re.MULTILINE)
    assert (first.verdict, without_numbers(first.reason)) == ("first", without_numbers(shown))
    assert Parity.read(fork.path / PARITY).rows_beyond_tolerance == 0
    began = time.monotonic()
    do(fork, 5)
    tested = time.monotonic() - began
    do(fork, 6)

    began = time.monotonic()
    pull = propose(repo, fork, 7, "first-model", title="Recognise digits")
    run = check(repo, pull)
    checked = time.monotonic() - began
    assert run.jobs == {"changes": "success", "test": "success", "model": "success", "pass": "success"}, run.log
    assert "tests/model/test_conformance.py" not in run.log["test"]  # pytest names a file only if a test fails
    assert re.search(r"=+ \d+ passed(, \d+ warnings?)? in ", re.sub(r"\x1b\[[\d;]*m", "", run.log["test"]))
    assert "May be merged: the verdict is first" in run.log["pass"]
    assert comment(repo, pull).jobs == {"charts": "success", "comment": "success"}
    assert "log loss falls by 2." in repo.github.state.bodies(7)[0]
    repo.merge_by_hand(pull)
    repo.settings |= bases
    shipped = ship(repo)
    assert shipped.jobs == SHIPPED, shipped.log
    live = released(repo, PRODUCTION)
    provenance = live.provenance
    assert (provenance.bundle, provenance.verdict) == (first.challenger_bundle, "first")
    assert provenance.reason == first.reason
    assert live.image.name == f"{images}/your-team/digits"
    assert released(repo, STAGING) == live

    do(fork, 7)
    second = Verdict.read(fork.path / VERDICT)
    assert (second.reference, second.verdict, second.holdout.first) == ("champion", "ship", None)
    assert load_bundle(fork.path / "champion").schema.classes == tuple("0123456789")
    assert live.image.tag in fork.must("slipway", "status")
    do(fork, 8)
    held = check(repo, propose(repo, fork, 8, "fewer-trees", title="Train faster"))
    assert held.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert "The model is held (balanced accuracy is 0." in held.log["pass"]
    assert fork.must("git", "diff", "--name-only", template, "origin/main", "--", *FRAMEWORK) == (
        ".github/workflows/cluster.yml\n"
    )
    print(
        f"Changed by hand: {files} files, {lines} lines. `make test`: {tested:.0f} s. Checks of a pull request: "
        f"{checked:.0f} s. The second delivery: {second.verdict}, {second.reason}"
    )
    assert (files, lines < 55) == (5, True)
    assert f"You edit five files by hand, {lines} lines in total." in PAGE
    assert fork.run("make", "demo").err.startswith("The demo, the benchmarks and the tests of the framework are in the")


def test_the_gate_is_tried_locally_before_the_first_release(repo: GitHubRepo) -> None:
    """The trial does not change the branch of the first model."""
    require("libgomp.so.1")  # LightGBM
    fork = clone(repo, "fork")
    for section in (1, 2, 3, 4, 6):
        do(fork, section)
    before = fork.must("git", "rev-parse", "HEAD"), Verdict.read(fork.path / VERDICT)
    trial, undo = blocks("Try the gate locally")
    fork.must("sh", "-e", "-c", trial, **AUTHOR)
    verdict = fork.run("slipway", "verdict")
    assert (verdict.code, "HOLD: balanced accuracy is 0." in verdict.out) == (1, True), verdict.out
    assert Verdict.read(fork.path / VERDICT).champion_bundle == before[1].challenger_bundle
    fork.must("slipway", "report")
    assert "HOLD" in (fork.path / "build/report/report.md").read_text()
    fork.must("sh", "-e", "-c", undo, **AUTHOR)
    assert (fork.must("git", "rev-parse", "HEAD"), Verdict.read(fork.path / VERDICT)) == before
    assert fork.must("git", "status", "--porcelain") == ""
    assert fork.must("dvc", "status").strip() == "Data and pipelines are up to date."


def blocks(title: str) -> list[str]:
    """Return the `sh` blocks of a section without a number."""
    (text,) = re.findall(rf"^## {title}$.*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    return [block for _, kind, block in BLOCK.findall(text) if kind == "sh"]


def without_numbers(sentence: str) -> str:
    """Replace the numbers in a sentence, which another processor may round differently."""
    return re.sub(r"[\d.,]+", "#", sentence)


def changed_by_hand(fork: Repository) -> tuple[int, int]:
    """Count the files that a person wrote or changed, and the lines that the page has for that."""
    files = fork.must("git", "diff", "--name-only").splitlines()
    assert fork.must("git", "ls-files", "--others", "--exclude-standard") == ""
    written = [block for file, kind, block in BLOCK.findall(PAGE) if file]
    changed = [line for _, kind, block in BLOCK.findall(PAGE) if kind == "diff" for line in block.splitlines()]
    new = [line for line in changed if line.startswith("+") and not line.startswith("+++")]
    return len(files), sum(len(block.splitlines()) for block in written) + len(new)

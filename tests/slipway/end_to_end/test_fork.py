"""docs/make-it-yours.md, played: other data, classification, no dates, another framework, and the same machinery."""

import re
import sys
from pathlib import Path

import pytest

from slipway.artifacts import PARITY, VERDICT, Parity, Verdict
from slipway.bundle import load_bundle
from slipway.release.history import PRODUCTION, STAGING
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.image.conftest import bases, images, podman  # noqa: F401 (fixtures)
from tests.slipway.workflows.conftest import forge, start  # noqa: F401 (fixtures)
from tests.slipway.workflows.forge import Forge
from tests.slipway.workflows.test_ship import SHIPPED, released

PAGE = (ROOT / "docs/make-it-yours.md").read_text()
BLOCK = re.compile(r"(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MACHINERY = ("src/slipway", "dvc.yaml", ".github/workflows", "Dockerfile", "kustomize/base", "Makefile")
CHEAP = ("test_bundle.py", "manifests/test_agents.py")
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@localhost",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@localhost",
}


def do(fork: Repository, section: int, registry: str = "") -> None:
    """What a section of the page says: files are written, changes applied, commands run. `console` is not for here."""
    (text,) = re.findall(rf"^## {section}\. .*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    for file, kind, block in BLOCK.findall(text):
        if kind == "sh":
            fork.must("sh", "-e", "-c", block.replace("ghcr.io", registry), **AUTHOR)
        elif kind == "diff":
            (fork.path / "change").write_text(block)
            fork.must("git", "apply", "change")
            (fork.path / "change").unlink()
        elif file:
            (fork.path / file).write_text(block)


def have_environment(fork: Repository) -> None:
    """As `make setup` would make it; what the page locks is locked here already, for the tests."""
    environment = fork.path / ".venv"
    environment.mkdir()
    for each in Path(sys.prefix).iterdir():
        (environment / each.name).symlink_to(each)
    fork.must("make", "--touch", "setup")


@pytest.mark.usefixtures("podman")
def test_a_fork_ships_another_model(forge: Forge, bases: dict[str, str], images: str) -> None:  # noqa: F811
    fork = forge.clone("fork")
    template = fork.must("git", "rev-parse", "HEAD").strip()
    do(fork, 1, images)
    do(fork, 2)
    files, lines = by_hand(fork)
    have_environment(fork)
    do(fork, 3)
    do(fork, 4)
    first = Verdict.read(fork.path / VERDICT)
    (shown,) = re.findall(r"^FIRST: (.*)$", PAGE, re.MULTILINE)
    assert (first.verdict, in_words(first.reason)) == ("first", in_words(shown))
    assert Parity.read(fork.path / PARITY).rows_beyond_tolerance == 0
    do(fork, 5)

    pull = forge.propose(fork, 7, "first-model", title="Tell digits")
    run = forge.check(pull, "opened")
    assert run.jobs == {"changes": "success", "test": "success", "model": "success", "pass": "success"}, run.log
    assert "May be merged: the verdict is first" in run.log["pass"]
    assert forge.comment(run).jobs == {"comment": "success"}
    assert "log loss falls by 2." in forge.github.state.bodies(7)[0]
    forge.merge(pull)
    forge.settings |= bases
    shipped = forge.ship()
    assert shipped.jobs == SHIPPED, shipped.log
    live = released(forge, PRODUCTION)
    provenance = live.provenance
    assert (provenance.bundle, provenance.verdict) == (first.challenger_bundle, "first")
    assert provenance.reason == first.reason
    assert live.image.name == f"{images}/your-team/digits"
    assert released(forge, STAGING) == live

    do(fork, 6)
    second = Verdict.read(fork.path / VERDICT)
    assert (second.reference, second.verdict, second.holdout.first) == ("champion", "ship", None)
    assert load_bundle(fork.path / "champion").schema.classes == tuple("0123456789")
    assert live.image.tag in fork.must("slipway", "status")
    do(fork, 7)
    held = forge.check(forge.propose(fork, 8, "fewer-trees", title="Save time"))
    assert held.jobs == {"changes": "success", "model": "success", "pass": "failure"}
    assert "The model is held (balanced accuracy is 0." in held.log["pass"]
    assert "How often answers of some certainty are right" in forge.reported(held, "report.md").decode()

    assert fork.must("git", "diff", "--name-only", template, "origin/main", "--", *MACHINERY) == ""
    print(f"By hand: {files} files, {lines} lines written. The second delivery: {second.verdict}, {second.reason}")
    assert (files <= 5, lines < 150) == (True, True)
    assert f"Five files change by hand, {lines} lines;" in PAGE
    still = fork.must(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{each}" for each in CHEAP)
    )
    assert "Left out is what tries the machinery on the sample" in still
    print(still.splitlines()[-1])


def in_words(sentence: str) -> str:
    """Without its numbers, which another processor may round differently."""
    return re.sub(r"[\d.,]+", "#", sentence)


def by_hand(fork: Repository) -> tuple[int, int]:
    """How many files a person has written or changed, and the lines that the page has for that."""
    files = fork.must("git", "diff", "--name-only").splitlines()
    assert fork.must("git", "ls-files", "--others", "--exclude-standard") == ""
    written = [block for file, kind, block in BLOCK.findall(PAGE) if file]
    changed = [line for _, kind, block in BLOCK.findall(PAGE) if kind == "diff" for line in block.splitlines()]
    new = [line for line in changed if line.startswith("+") and not line.startswith("+++")]
    return len(files), sum(len(block.splitlines()) for block in written) + len(new)

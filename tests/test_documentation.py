"""Every command in the documentation runs, and every link and path leads somewhere."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Repository

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLAYED = {"make-it-yours.md"}
"""What tests/end_to_end/test_fork.py plays, in a fork and between its pull requests."""
# What runs this; what does not end, and is tried in tests/serving; what tests/end_to_end plays.
NOT_HERE = {"make test", "slipway serve", "make demo"}


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line not in NOT_HERE]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in PLAYED and commands(page)], ids=lambda page: page.stem
)
def test_commands_run(page: Path, clone: Callable[[str], Repository]) -> None:
    """In the order of the page, in one fresh clone that has the environment already."""
    repository = clone("reader")
    (repository.path / ".venv").symlink_to(sys.prefix)
    for file in ("requirements/setup.txt", "requirements/dev.txt", "pyproject.toml"):
        os.utime(repository.path / file, (0, 0))
    for command in commands(page):
        repository.must("sh", "-c", command, GIT_CONFIG_GLOBAL=os.devnull)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    made_by_running = ("build/", "data/", "champion/", ".venv/")
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text):
        assert path.startswith(made_by_running) or (ROOT / path).exists(), path


def test_make_and_slipway_know_what_is_named() -> None:
    tasks = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    verbs = Repository(ROOT).must("slipway", "--help")
    for page in PAGES:
        assert set(re.findall(r"`make (\w+)`", page.read_text())) <= tasks
        for verb in re.findall(r"`slipway (\w+)", page.read_text()):
            assert f" {verb} " in verbs


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150

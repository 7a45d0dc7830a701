"""Fixtures: a bare `origin` with this working tree on `main`, and clones with candidates that no pipeline made."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from slipway.bundle import folder_hash
from slipway.provenance import Provenance
from slipway.release import candidate
from slipway.release.component import Image
from tests.slipway.conftest import Repository

NAME = "ghcr.io/team/houses"
FEW_TREES = {"max_iter: 200": "max_iter: 20", "learning_rate: 0.08": "learning_rate: 0.3"}
"""Edits of params.yaml with which the pipeline is faster, and the model worse than the champion."""
MAY_BE_WORSE = {"  margin: 0 #": "  margin: -0.2\n  margin_reason: few trees #"}
"""An edit of params.yaml with which the worse model ships."""


@dataclass
class Clock:
    """A clock that runs only while the program sleeps."""

    now: float = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def image(number: int) -> Image:
    """Return an image with a number in its tag and digest."""
    return Image(NAME, f"sha-{number:012x}", f"sha256:{number:064x}")


def flags(number: int) -> list[str]:
    """Return the flags of an image for the command line."""
    this = image(number)
    return ["--image", this.name, "--tag", this.tag, "--digest", this.digest or ""]


@pytest.fixture
def bare(origin: Repository, tmp_path: Path) -> Repository:
    origin.must("git", "clone", "--quiet", "--bare", str(origin.path), str(tmp_path / "origin.git"))
    return Repository(tmp_path / "origin.git")


@pytest.fixture
def work(origin: Repository, bare: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone of `bare`, which is the working directory."""
    clone = origin.clone(tmp_path / "work")
    clone.must("git", "remote", "set-url", "origin", str(bare.path))
    monkeypatch.chdir(clone.path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for variable in ("MLFLOW_TRACKING_URI", "GITHUB_ACTIONS", "GITHUB_TOKEN", "GITHUB_OUTPUT"):
        monkeypatch.delenv(variable, raising=False)
    return clone


@pytest.fixture
def offer(work: Repository) -> Callable[[str], candidate.Candidate]:
    """Make a candidate of the last commit: a bundle that contains the given words, and its champion.dvc."""

    def make(words: str) -> candidate.Candidate:
        folder = work.path / candidate.FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        (work.path / candidate.BUNDLE).mkdir(parents=True)
        (work.path / candidate.BUNDLE / "model.onnx").write_text(words)
        bundle = folder_hash(work.path / candidate.BUNDLE)
        files = {
            "champion.dvc": f"outs:\n- md5: {bundle}.dir\n  path: champion\n",
            "metrics/release.json": json.dumps({"champion": bundle}),
            "dvc.lock": f"stages:\n  evaluate:\n    deps:\n    - path: champion\n      md5: {bundle}.dir\n",
        }
        for name, content in files.items():
            file = work.path / candidate.FILES / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        provenance = Provenance(
            bundle=bundle,
            commit=work.must("git", "rev-parse", "HEAD").strip(),
            verdict="ship",
            reason=f"{words} is better",
        )
        made = candidate.Candidate(provenance=provenance, files=tuple(files))
        made.write(work.path / candidate.FILE)
        return made

    return make

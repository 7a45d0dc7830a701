"""Only a model that was judged and may ship becomes the champion."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import Result
from slipway.artifacts import RELEASE, VERDICT, Release, Verdict
from slipway.bundle import folder_hash

Run = Callable[..., Result]


@pytest.fixture
def judged(workplace: Path, slipway: Run) -> Path:
    """A first model with its verdict, in a folder where DVC works."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    for verb in ("validate", "split", "train", "evaluate", "gate"):
        assert slipway(verb).code == 0
    return workplace


@pytest.mark.usefixtures("judged")
def test_what_may_ship_is_crowned(slipway: Run) -> None:
    assert slipway("crown").code == 0
    release = Release.read(RELEASE)
    tracked = yaml.safe_load(Path("champion.dvc").read_text())["outs"][0]["md5"]
    assert folder_hash(Path("champion")) == folder_hash(Path("build/bundle")) == release.champion
    assert tracked == f"{release.champion}.dir"
    assert (release.verdict, release.value) == ("first", Verdict.read(VERDICT).challenger_loss)
    # Judged again, it is itself, and its decay can be told.
    for verb in ("evaluate", "gate"):
        assert slipway(verb).code == 0
    again = Verdict.read(VERDICT)
    assert again.verdict == "unchanged"
    assert again.decay
    assert again.decay.at_release == again.decay.now


@pytest.mark.parametrize("verdict", ["hold", "unchanged"])
@pytest.mark.usefixtures("judged")
def test_what_may_not_ship_is_not(slipway: Run, verdict: str) -> None:
    Verdict.read(VERDICT).model_copy(update={"verdict": verdict}).write(VERDICT)
    refused(slipway, "only what may ship is crowned")


@pytest.mark.usefixtures("judged")
def test_another_bundle_than_the_one_judged_is_not(slipway: Run) -> None:
    """Somebody changes the bundle after the verdict."""
    (Path("build/bundle") / "golden.json").write_text("{}")
    refused(slipway, "run `dvc repro` first")


@pytest.mark.usefixtures("judged")
def test_no_verdict_no_champion(slipway: Run) -> None:
    VERDICT.unlink()
    result = slipway("crown")
    assert result.code == 2
    assert not Path("champion.dvc").exists()


@pytest.mark.usefixtures("judged")
def test_a_champion_is_replaced_whole(slipway: Run) -> None:
    shutil.copytree("build/bundle", "champion", dirs_exist_ok=True)
    (Path("champion") / "stale.json").write_text("{}")
    assert slipway("crown").code == 0
    assert not (Path("champion") / "stale.json").exists()


def refused(slipway: Run, words: str) -> None:
    before = RELEASE.read_text()
    result = slipway("crown")
    assert (result.code, words in result.err) == (1, True)
    assert not list(Path("champion").iterdir())
    assert not Path("champion.dvc").exists()
    assert RELEASE.read_text() == before

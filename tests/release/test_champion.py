"""Only a model that was judged, by the rules and against the champion of this moment, becomes the champion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import Repository
from slipway.artifacts import BUNDLE, CHAMPION, RELEASE, VERDICT, Release, Verdict
from slipway.bundle import folder_hash

Clone = Callable[[str], Repository]


def test_what_may_ship_is_crowned(judged: Clone) -> None:
    """After it main is consistent: the pipeline compares the champion with itself, and knows how it scored."""
    repository = judged("crowned")
    (repository.path / CHAMPION / "stale.json").write_text("{}")
    repository.must("dvc", "checkout", "--force", "--quiet", "champion")
    shipped = Verdict.read(repository.path / VERDICT)
    repository.must("slipway", "crown")
    release = Release.read(repository.path / RELEASE)
    tracked = yaml.safe_load((repository.path / "champion.dvc").read_text())["outs"][0]["md5"]
    assert folder_hash(repository.path / CHAMPION) == folder_hash(repository.path / BUNDLE) == release.champion
    assert tracked == f"{release.champion}.dir"
    assert (release.verdict, release.value) == ("ship", shipped.challenger_loss)

    repository.must("dvc", "repro")
    after = Verdict.read(repository.path / VERDICT)
    assert (after.verdict, after.champion_bundle) == ("unchanged", shipped.challenger_bundle)
    assert after.decay
    assert after.decay.at_release == after.decay.now == shipped.challenger_loss
    assert "up to date" in repository.must("dvc", "status")
    assert repository.run("slipway", "crown").code == 1  # unchanged: there is nothing to crown


def edit_verdict(repository: Repository) -> None:
    repository.edit(str(VERDICT), '"reason": "', '"reason": "truly, ')


def edit_rules(repository: Repository) -> None:
    repository.edit("params.yaml", "  margin: 0 #", "  margin: 0.2 #")


def edit_bundle(repository: Repository) -> None:
    (repository.path / BUNDLE / "golden.json").unlink()
    (repository.path / BUNDLE / "golden.json").write_text("{}")


def move_champion(repository: Repository) -> None:
    """Another release came in between."""
    shutil.rmtree(repository.path / CHAMPION)
    shutil.copytree(repository.path / BUNDLE, repository.path / CHAMPION)
    released = json.loads((repository.path / RELEASE).read_text())
    released["champion"] = folder_hash(repository.path / CHAMPION)
    (repository.path / RELEASE).write_text(json.dumps(released))
    repository.must("dvc", "add", "--quiet", "champion")


@pytest.mark.parametrize("change", [edit_verdict, edit_rules, edit_bundle, move_champion])
def test_a_verdict_on_something_else_crowns_nobody(judged: Clone, change: Callable[[Repository], None]) -> None:
    repository = judged("changed")
    change(repository)
    refused(repository, "changed after the verdict was given")


def test_what_may_not_ship_is_not_crowned(clone: Clone) -> None:
    repository = clone("unchanged")
    repository.must("dvc", "pull", "--quiet")
    refused(repository, "only what may ship is crowned")


def test_a_verdict_that_was_changed_by_hand_crowns_nobody(judged: Clone) -> None:
    repository = judged("held")
    repository.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    repository.must("dvc", "repro")
    refused(repository, "says hold")
    repository.edit(str(VERDICT), '"verdict": "hold"', '"verdict": "ship"')
    refused(repository, "gate changed after the verdict was given")


def refused(repository: Repository, words: str) -> None:
    files = [RELEASE, Path("champion.dvc")]
    before = [(repository.path / file).read_text() for file in files]
    champion = folder_hash(repository.path / CHAMPION)
    result = repository.run("slipway", "crown")
    assert result.code == 1, result.out
    assert words in result.err
    assert [(repository.path / file).read_text() for file in files] == before
    assert folder_hash(repository.path / CHAMPION) == champion

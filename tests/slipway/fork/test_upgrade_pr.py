"""Renewed lock files get one pull request at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.fakes.github_server import Failure, GitHub, State
from slipway.errors import InputError
from slipway.fork.upgrade_pr import open_upgrade_pr
from slipway.integrations.git import branches
from tests.slipway.conftest import Repository
from tests.slipway.release.conftest import bare, work  # noqa: F401 (fixtures)

LOCK = "requirements/serve.txt"


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    with GitHub(State(), tmp_path).serving() as github:
        yield github


@pytest.fixture
def upgraded(work: Repository) -> Repository:  # noqa: F811
    """The working directory, in which one package and a base image are renewed."""
    upgraded = (work.path / "Dockerfile").read_text().replace("-trixie AS", f"-trixie@sha256:{1:064x} AS")
    (work.path / "Dockerfile").write_text(upgraded)
    (work.path / LOCK).write_text((work.path / LOCK).read_text() + "newer==2\n")
    return work


@pytest.mark.usefixtures("work")
def test_nothing_is_proposed_if_no_version_has_changed(github: GitHub) -> None:
    assert "have the newest versions" in open_upgrade_pr(github.variables())
    assert branches("upgrade/*", {}) == []


def test_an_upgrade_gets_one_pull_request_with_nothing_else(upgraded: Repository, github: GitHub) -> None:
    (upgraded.path / "README.md").write_text("# Another change of the work tree\n")
    said = open_upgrade_pr(github.variables())
    (branch,) = branches("upgrade/*", {})
    assert said.startswith("Upgrade the locked packages: ")
    assert github.state.pulls["1"]["branch"] == branch
    upgraded.must("git", "fetch", "--quiet", "origin", branch)
    assert upgraded.must("git", "diff", "--name-only", "HEAD", "FETCH_HEAD").split() == ["Dockerfile", LOCK]
    assert upgraded.must("git", "show", f"FETCH_HEAD:{LOCK}").endswith("newer==2\n")

    assert "is open; merge or close it first" in open_upgrade_pr(github.variables())
    github.state.pulls["1"]["state"] = "closed"
    assert "was proposed before; delete the branch" in open_upgrade_pr(github.variables())
    assert len(github.state.pulls) == 1


@pytest.mark.usefixtures("upgraded")
def test_an_error_of_github_is_reported_in_one_sentence(github: GitHub) -> None:
    github.state.failures.append(Failure(500, "GET"))
    with pytest.raises(InputError, match="GitHub does not list pull requests"):
        open_upgrade_pr(github.variables())
    assert branches("upgrade/*", {}) == []


@pytest.mark.usefixtures("upgraded")
def test_without_a_token_the_command_is_named() -> None:
    assert "gh pr create --head upgrade/" in open_upgrade_pr({})

"""Commits on `main` of a remote, made without a work tree."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from slipway.errors import CheckFailed, InputError
from slipway.integrations import git
from slipway.integrations.git import Snapshot, commit_to_main, create_branch, snapshot
from slipway.integrations.process import ProcessFailed
from tests.slipway.conftest import Repository


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    start = Repository(tmp_path / "start")
    start.path.mkdir()
    start.must("git", "init", "--quiet", "--initial-branch=main")
    (start.path / "run.sh").write_text("one\n")
    (start.path / "run.sh").chmod(0o755)
    start.commit("Start")
    start.must("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "remote.git"))
    return Repository(tmp_path / "remote.git")


@pytest.fixture
def clone(remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone of the remote, which is the working directory."""
    cloned = remote.clone(tmp_path / "clone")
    monkeypatch.chdir(cloned.path)
    return cloned


def content(remote: Repository, path: str) -> str:
    return remote.must("git", "show", f"main:{path}")


def test_commit_to_main_keeps_the_work_tree_and_the_mode_of_files(remote: Repository, clone: Repository) -> None:
    (clone.path / "run.sh").write_text("edited by a person\n")
    commit = commit_to_main(lambda _: {"run.sh": b"two\n", "new": b"n"}, "Change\n", {})
    assert remote.must("git", "rev-parse", "main").strip() == commit
    assert (content(remote, "run.sh"), content(remote, "new")) == ("two\n", "n")
    assert remote.must("git", "ls-tree", "main", "run.sh").startswith("100755")
    assert (clone.path / "run.sh").read_text() == "edited by a person\n"


@pytest.mark.usefixtures("clone")
def test_commit_to_main_can_remove_a_file(remote: Repository) -> None:
    commit_to_main(lambda _: {"run.sh": None, "new": b"n"}, "Move\n", {})
    assert remote.must("git", "ls-tree", "--name-only", "main") == "new\n"


@pytest.mark.usefixtures("clone")
def test_commit_to_main_without_changes_pushes_nothing(remote: Repository) -> None:
    before = remote.must("git", "rev-parse", "main")
    assert commit_to_main(lambda _: {}, "Nothing\n", {}) is None
    assert remote.must("git", "rev-parse", "main") == before


@pytest.mark.usefixtures("clone")
def test_commit_to_main_starts_again_when_another_push_comes_first(remote: Repository, tmp_path: Path) -> None:
    other, seen = remote.clone(tmp_path / "other"), []

    def edit(base: Snapshot) -> Mapping[str, bytes]:
        seen.append(base.name)
        if len(seen) == 1:
            (other.path / "theirs").write_text("t")
            other.commit("Theirs")
            other.must("git", "push", "--quiet", "origin", "main")
        return {"ours": b"o"}

    assert commit_to_main(edit, "Ours\n", {})
    assert len(seen) == 2
    assert remote.must("git", "ls-tree", "--name-only", "main").split() == ["ours", "run.sh", "theirs"]


@pytest.mark.usefixtures("clone")
def test_a_rule_of_the_remote_ends_in_one_sentence(remote: Repository) -> None:
    hook = remote.path / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho GH006: Protected branch update failed\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CheckFailed, match=r"protects main from this push \(.*remote: GH006.*SLIPWAY_APP_KEY\.$"):
        commit_to_main(lambda _: {"new": b"n"}, "New\n", {})


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("error: GH001: Large files detected.", "a file is larger than GitHub accepts"),
        ("error: GH013: Repository rule violations found\n- GITHUB PUSH PROTECTION", "it contains a secret"),
        ("refusing to allow a GitHub App to create or update workflow `a.yml`", "may not change workflow files"),
    ],
)
def test_a_refusal_that_is_not_a_rule_names_its_cause(remote: Repository, printed: str, words: str) -> None:
    hook = remote.path / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\necho '{printed}'\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CheckFailed, match=words) as refused:
        commit_to_main(lambda _: {"new": b"n"}, "New\n", {})
    assert "bypass" not in str(refused.value)


@pytest.mark.usefixtures("clone")
def test_an_existing_branch_is_not_created_again(remote: Repository) -> None:
    assert create_branch("delivery/a", lambda _: {"new": b"1"}, "One\n", {})
    assert not create_branch("delivery/a", lambda _: {"new": b"2"}, "Two\n", {})
    assert remote.must("git", "show", "delivery/a:new") == "1"


@pytest.mark.usefixtures("clone")
def test_git_with_a_token_is_killed_when_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent))
    monkeypatch.setattr(git, "GIT_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(ProcessFailed, match=r"did not end within 0\.5 seconds"):
        git.tip({"GITHUB_TOKEN": "very-secret"})


def test_git_never_shows_the_token(clone: Repository) -> None:
    """Git quotes an address that it cannot reach."""
    clone.must("git", "remote", "set-url", "origin", "https://very-secret@localhost:1/a/b.git")
    with pytest.raises(ProcessFailed) as failed:
        git.tip({"GITHUB_TOKEN": "very-secret"})
    assert "localhost" in str(failed.value)
    assert "very-secret" not in f"{failed.value} {failed.value.output}"


@pytest.mark.usefixtures("clone")
def test_an_unknown_commit_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^commit 'nowhere' not found; fetch it with `git fetch origin`\.$"):
        snapshot("nowhere")

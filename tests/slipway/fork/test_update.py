"""`slipway update`: a fork takes another version of the framework, completely or not at all."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.fork import update
from slipway.fork.record import RECORD
from slipway.integrations import git_files
from tests.slipway.conftest import Repository, Result

Run = Callable[..., Result]
AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
CHANGELOG = """\
# Changelog

## 0.3.0

### Upgrade

- Add `gate.patience` to
  `params.yaml`.
- Delete `wine.txt`.

## 0.2.0

### Added

- A changelog.
"""


@pytest.fixture(scope="module")
def template(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The template with the tags v0.2.0 and v0.3.0. The second has a changed, a new and a removed framework file."""
    template = origin.clone(tmp_path_factory.mktemp("template") / "slipway")
    (template.path / "CHANGELOG.md").write_text(CHANGELOG[CHANGELOG.index("## 0.2.0") :])
    template.commit("Version 0.2.0")
    template.must("git", "tag", "v0.2.0")
    template.edit("src/slipway/pipeline/gate.py", '"""gate:', '"""Gate:')
    template.edit("src/slipway/config.py", "    floors: dict", "    patience: int\n    floors: dict")
    (template.path / "src/slipway/pipeline/new.py").write_text('"""New."""\n')
    (template.path / "docs/mlflow.md").unlink()
    (template.path / "CHANGELOG.md").write_text(CHANGELOG)
    template.edit("requirements/train.txt", "docker==", "docker==0+")
    template.edit("src/model/train.py", '"""Fit the model."""', '"""Changed in the template."""')
    (template.path / "demo/new.py").write_text('"""New."""\n')
    template.commit("Version 0.3.0")
    template.must("git", "tag", "v0.3.0")
    return template


@pytest.fixture(scope="module")
def first_fork(template: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A fork made from v0.2.0 without its history, with a model, params, an overlay and a page of its own."""
    path = tmp_path_factory.mktemp("fork") / "wine"
    template.must("git", "clone", "--quiet", "--branch", "v0.2.0", str(template.path), str(path))
    shutil.rmtree(path / ".git")
    fork = Repository(path)
    fork.must("git", "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "Ada"), ("user.email", "ada@localhost")):
        fork.must("git", "config", key, value)
    fork.commit("Start from the template")
    fork.must("slipway", "init", "--repository", "https://github.com/acme/wine")
    fork.commit("Take the names")
    fork.edit("params.yaml", "timeout_seconds: 600", "timeout_seconds: 900")
    fork.edit("src/model/train.py", '"""Fit the model."""', '"""Ours."""')
    fork.edit("kustomize/overlays/staging/autoscaler.yaml", "maxReplicas: 6", "maxReplicas: 9")
    fork.edit("requirements/train.txt", "docker==", "lightgbm==9\ndocker==")
    (path / "requirements/model.in").write_text("lightgbm\n")
    (path / "docs/ours.md").write_text("# Ours\n")
    (path / "tests/model/test_ours.py").write_text("def test_ours() -> None: ...\n")
    fork.commit("Make it ours")
    return fork


@pytest.fixture
def fork(first_fork: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy of `first_fork`, which is the working directory."""
    first_fork.must("cp", "-a", str(first_fork.path), str(tmp_path / "wine"))
    monkeypatch.chdir(tmp_path / "wine")
    return Repository(tmp_path / "wine")


def staged(fork: Repository) -> dict[str, str]:
    lines = fork.must("git", "diff", "--cached", "--no-renames", "--name-status").splitlines()
    return {path: state for state, path in (line.split("\t") for line in lines)}


def test_a_fork_takes_a_newer_version(fork: Repository, template: Repository, slipway: Run) -> None:
    done = slipway("update", "v0.3.0", "--from", str(template.path))
    assert done.code == 0, done
    assert staged(fork) == {
        ".slipway.json": "M",
        "CHANGELOG.md": "M",
        "docs/mlflow.md": "D",
        "requirements/train.txt": "M",
        "src/slipway/config.py": "M",
        "src/slipway/pipeline/gate.py": "M",
        "src/slipway/pipeline/new.py": "A",
    }
    assert fork.must("git", "status", "--porcelain").count("\n") == len(staged(fork))
    assert not Path("docs/mlflow.md").exists()
    for path in ("src/slipway/pipeline/gate.py", "src/slipway/pipeline/new.py", "requirements/train.txt"):
        assert Path(path).read_text() == (template.path / path).read_text()
    record = json.loads(RECORD.read_text())
    assert (record["template"], record["version"], record["identity"]["name"]) == (str(template.path), "v0.3.0", "wine")
    assert re.search(r"0\.\d+\.\d+ to v0\.3\.0: 5 files changed, 1 added and 1 removed", done.out)
    assert "0.3.0: Add `gate.patience` to `params.yaml`." in done.out
    assert "0.3.0: Delete `wine.txt`." in done.out
    assert re.search(r"params\.yaml, line \d+: `gate\.patience` is missing below this line; add it", done.out)
    for command in ("make lock", "make setup", "make pipeline", "make test"):
        assert command in done.out
    assert "make image" not in done.out


def test_the_same_version_again_changes_nothing(fork: Repository, template: Repository, slipway: Run) -> None:
    assert slipway("update", "v0.3.0", "--from", str(template.path)).code == 0
    fork.commit("Update the framework")
    fork.edit("requirements/train.txt", "docker==", "lightgbm==9\ndocker==")  # make lock
    fork.edit("params.yaml", "  floors:", "  patience: 3\n  floors:")
    fork.commit("Lock")
    again = slipway("update", "v0.3.0")
    assert (again.code, "nothing to change" in again.out, staged(fork)) == (0, True, {})


def test_a_changed_file_of_the_framework_is_refused(fork: Repository, template: Repository, slipway: Run) -> None:
    fork.edit("src/slipway/pipeline/gate.py", '"""gate:', '"""Our gate:')
    fork.edit(".github/workflows/ship.yml", "name: Ship", "name: Release")
    (fork.path / "Dockerfile").unlink()
    (fork.path / "src/slipway/pipeline/new.py").write_text("ours = True\n")
    fork.commit("Change the framework")
    refused = slipway("update", "v0.3.0", "--from", str(template.path))
    assert refused.code == 1
    listed = ".github/workflows/ship.yml, Dockerfile, src/slipway/pipeline/gate.py, src/slipway/pipeline/new.py"
    assert f"4 files of the framework were changed here: {listed}; undo" in refused.err
    assert fork.must("git", "status", "--porcelain") == ""


def test_keep_leaves_a_changed_file_unchanged(fork: Repository, template: Repository, slipway: Run) -> None:
    fork.edit("src/slipway/pipeline/gate.py", '"""gate:', '"""Our gate:')
    fork.commit("Change the framework")
    ours = Path("src/slipway/pipeline/gate.py").read_text()
    options = ("--from", str(template.path), "--keep", "src/slipway/pipeline/gate.py")
    done = slipway("update", "v0.3.0", *options)
    assert (done.code, "src/slipway/pipeline/gate.py, which differs from v0.3.0" in done.out) == (0, True)
    assert Path("src/slipway/pipeline/gate.py").read_text() == ours
    fork.commit("Update the framework")
    assert "src/slipway/pipeline/gate.py" in slipway("update", "v0.3.0").err  # the next update names it again
    unknown = slipway("update", "v0.3.0", *options, "--keep", "Makefile")
    assert (unknown.code, "--keep Makefile is not a file of the framework that was changed" in unknown.err) == (2, True)


@pytest.mark.parametrize("file", ["params.yaml", "src/slipway/untracked.py"])
def test_a_work_tree_that_is_not_clean_is_refused(
    fork: Repository, template: Repository, slipway: Run, file: str
) -> None:
    with (fork.path / file).open("a") as opened:
        opened.write("# more\n")
    before = fork.must("git", "status", "--porcelain")
    refused = slipway("update", "v0.3.0", "--from", str(template.path))
    assert (refused.code, f"{file} has uncommitted changes" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == before


def test_an_interrupted_update_is_undone_by_git(
    fork: Repository, template: Repository, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = update.plan("v0.3.0", str(template.path), ())
    run = git_files.process.run

    def killed(*command: str, **options: object) -> str:
        if command[1] == "checkout-index":
            run(*command[:-3], **options)  # type: ignore[arg-type]
            raise KeyboardInterrupt
        return run(*command, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(git_files.process, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            update.apply(planned)
    assert slipway("update", "v0.3.0", "--from", str(template.path)).code == 1
    fork.must("git", "reset", "--quiet", "--hard")
    assert fork.must("git", "status", "--porcelain") == ""
    assert slipway("update", "v0.3.0", "--from", str(template.path)).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["v9"], "The address of the template is unknown; pass it with --from URL"),
        (["v9", "--from", "{template}"], "The tag 'v9' of"),
        (["v0.3.0", "--from", "nowhere"], "cannot be fetched"),
        (["v0.3.0", "--from", "https://hunter2@127.0.0.1:9/a/b"], "address of the template contains a secret"),
        (
            ["v0.3.0", "--from", "https://127.0.0.1:9/a/b?token=hunter2"],
            "address of the template contains a secret",
        ),
        (["v0.3.0", "--from", "ssh://ada:hunter2@127.0.0.1:9/a/b"], "address of the template contains a secret"),
        (["--from", "{template}", "--", "--upload-pack=touch hacked"], "cannot be fetched"),
        (["v0.3.0", "--from", "--upload-pack=touch hacked"], "cannot be fetched"),
    ],
)
def test_a_tag_that_cannot_be_fetched_is_an_error_of_one_sentence(
    fork: Repository, template: Repository, slipway: Run, arguments: list[str], words: str
) -> None:
    refused = slipway("update", *(each.format(template=template.path) for each in arguments))
    assert (refused.code, words in refused.err, refused.err.count("\n")) == (2, True, 1), refused.err
    assert "hunter2" not in refused.err
    assert fork.must("git", "status", "--porcelain") == ""


@pytest.mark.usefixtures("fork")
def test_update_without_a_record_asks_for_slipway_init(slipway: Run) -> None:
    RECORD.unlink()
    refused = slipway("update", "v0.3.0")
    assert (refused.code, "run `slipway init` first" in refused.err) == (2, True)


def test_a_tag_before_the_first_version_is_refused(fork: Repository, template: Repository, slipway: Run) -> None:
    template.must("git", "tag", "--force", "old", template.must("git", "rev-list", "--max-parents=0", "HEAD").strip())
    empty = template.must(
        "git", *AUTHOR, "commit-tree", "-m", "Empty", template.must("git", "mktree", "--missing").strip()
    )
    template.must("git", "tag", "--force", "old", empty.strip())
    refused = slipway("update", "old", "--from", str(template.path))
    assert (refused.code, "so it is not a version to update to" in refused.err) == (2, True)
    assert fork.must("git", "status", "--porcelain") == ""

"""Which jobs a change starts."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.artifacts import SOURCES
from slipway.errors import CheckFailed, InputError
from slipway.release.history import PRODUCTION, release_file
from slipway.review import changes
from slipway.review.changes import JOBS, classify, pipeline_paths
from tests.slipway.conftest import ROOT, Repository, Result

PIPELINE = pipeline_paths(ROOT / "dvc.yaml")
ALL = set(JOBS)


@pytest.mark.parametrize(
    ("path", "jobs"),
    [
        # Documentation alone starts nothing.
        ("README.md", set()),
        ("docs/decisions/gate.md", set()),
        ("docs/loop.svg", set()),
        ("LICENSE", set()),
        (".github/pull_request_template.md", set()),
        # Inputs and results of the pipeline, which no test reads.
        ("data.dvc", {"model"}),
        ("params.yaml", {"model"}),
        ("dvc.lock", {"model"}),
        ("champion.dvc", {"model"}),
        ("metrics/release.json", {"model"}),
        ("sample/remote/files/md5/0b/a311270ad69a0fbbe295ccc09578a2", {"model"}),
        # The pipeline itself.
        ("dvc.yaml", {"test", "model"}),
        (".dvc/config", {"test", "model"}),
        (".dvcignore", {"test", "model"}),
        ("requirements/train.txt", {"test", "model"}),
        ("src/model/train.py", {"test", "model"}),
        ("src/model/notes.md", {"model"}),
        ("src/slipway/pipeline/gate.py", {"test", "model"}),
        # The contents of the image.
        ("Dockerfile", {"test", "image"}),
        (".dockerignore", {"test", "image"}),
        ("requirements/serve.txt", {"test", "image"}),
        ("src/slipway/serving/page.html", {"test", "image"}),
        ("src/slipway/release/smoke.py", {"test", "image"}),
        ("src/slipway/bundle.py", {"test", "model", "image"}),
        # Covered by tests only.
        ("src/slipway/cli/review.py", {"test"}),
        ("src/slipway/release/champion.py", {"test"}),
        ("tests/test_atomic.py", {"test"}),
        ("benchmarks/gate.py", {"test"}),
        (".ci/run", {"test"}),
        (".github/workflows/pull-request.yml", {"test"}),
        ("Makefile", {"test"}),
        ("sample/source/1998H1.csv", {"test"}),
        # Unknown files.
        ("kustomization.yaml", ALL),
        ("", ALL),
        (" README.txt", ALL),
        ("src", ALL),
        ("README.md\n", ALL),
        ("docs\n/x", ALL),
        ("../docs/x", ALL),
    ],
)
def test_a_path_starts_the_jobs_that_depend_on_it(path: str, jobs: set[str]) -> None:
    assert classify([path], PIPELINE) == jobs


def test_a_change_starts_the_jobs_of_all_its_files() -> None:
    assert classify([], PIPELINE) == set()
    assert classify(["README.md", "data.dvc", "Dockerfile"], PIPELINE) == ALL


def test_every_file_that_the_image_contains_starts_the_job_image() -> None:
    assert {path for path in SOURCES if "image" not in classify([path], PIPELINE)} == set()


def test_every_dependency_of_a_stage_starts_the_model() -> None:
    assert {path for path in PIPELINE if "model" not in classify([path], PIPELINE)} == set()


def test_no_file_of_this_repository_is_unknown(origin: Repository) -> None:
    listed = origin.must("git", "ls-files", "-z").split("\0")[:-1]
    assert [path for path in listed if classify([path], PIPELINE) == ALL] == [
        "src/slipway/bundle.py",
        "src/slipway/images.py",
        "src/slipway/statistics/bins.py",
    ]


def test_all_forms_of_paths_in_dvc_yaml_are_read(tmp_path: Path) -> None:
    stages = tmp_path / "dvc.yaml"
    stages.write_text(
        "stages:\n"
        "  one: {cmd: a, wdir: part, deps: [x/, ../y], outs: [{z: {cache: false}}], params: [key, {other.yaml: [k]}]}\n"
        "  two: {foreach: [1], do: {cmd: b, deps: [plain]}}\n"
    )
    assert pipeline_paths(stages) == {"part/x", "y", "part/z", "part/other.yaml", "plain"}
    stages.write_text("stages: {one: {foreach: [1], do: {cmd: b, deps: ['parts/${item}']}}}")
    assert classify(["src/slipway/cli/review.py"], pipeline_paths(stages)) == {
        "test",
        "model",
    }  # any file could be meant


@pytest.mark.parametrize("text", ["", "[]", "stages: 3", "stages: {a: 3}", "stages: {a: {deps: [3]}}", "a: [", "\x00"])
def test_an_invalid_dvc_yaml_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(InputError, match=r"dvc\.yaml is not valid; run `dvc stage list` to see why"):
        pipeline_paths(tmp_path / "dvc.yaml")


@pytest.fixture
def branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository on a branch whose base `main` has moved on."""
    repository = Repository(tmp_path / "r")
    repository.path.mkdir()
    monkeypatch.chdir(repository.path)
    repository.must("git", "init", "--quiet", "--initial-branch=main")
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    Path("src").mkdir()
    Path("src/a.py").write_text("a = 1\n" * 20)
    repository.commit("Start")
    repository.must("git", "checkout", "--quiet", "-b", "change")
    repository.must("git", "checkout", "--quiet", "main")
    Path("Dockerfile").write_text("FROM scratch\n")
    repository.commit("Merge of others")
    repository.must("git", "checkout", "--quiet", "change")
    return repository


def test_later_commits_of_main_do_not_belong_to_the_change(branch: Repository) -> None:
    Path("README.md").write_text("# Words\n")
    branch.commit("Words")
    assert changes.changed_files(None) == ("README.md",)
    changed = changes.find_changes(None)
    assert (changed.test, changed.model, changed.image) == (False, False, False)
    assert changed.base == branch.must("git", "rev-parse", "HEAD~").strip()


def test_origin_main_comes_before_the_local_main(branch: Repository) -> None:
    branch.must("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    branch.must("git", "branch", "--force", "main", "HEAD~0")
    Path("params.yaml").write_text("a: 1\n")
    branch.commit("Rules")
    branch.must("git", "branch", "--force", "main", "HEAD")
    assert changes.find_changes(None).model
    assert not changes.find_changes("main").model


def test_hostile_file_names_are_not_interpreted(branch: Repository) -> None:
    names = {
        " README.md",
        "-rf",
        "--output=x",
        "a\nDockerfile\n",
        '"; touch pwned; "',
        "$(touch pwned)",
        "ä\t.md ",
        "docs\\x",
    }
    for name in names:
        Path(name).write_text("x")
    branch.commit("Names")
    assert set(changes.changed_files(None)) == names
    assert changes.find_changes(None).test
    assert not Path("pwned").exists()


def test_a_file_name_that_is_not_utf_8_is_refused(branch: Repository) -> None:
    Path(os.fsdecode(b"src/\xff.py")).touch()
    branch.commit("Bytes")
    with pytest.raises(InputError, match=r"^The name of a changed file is not UTF-8; rename the file\.$"):
        changes.changed_files(None)


def test_a_file_moved_into_the_documentation_still_starts_the_tests(branch: Repository) -> None:
    Path("docs").mkdir()
    Path("src/a.py").rename("docs/a.py")
    branch.commit("Move")
    assert set(changes.changed_files(None)) == {"src/a.py", "docs/a.py"}
    assert changes.find_changes(None).test


def test_the_verb_writes_the_outputs_of_its_step(
    branch: Repository, tmp_path: Path, slipway: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text("a: 1\n")
    branch.commit("Rules")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    assert slipway("changes").code == 0
    assert (tmp_path / "output").read_text() == "test=false\nmodel=true\nimage=false\n"


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("base", ["nowhere", "--all", "-h", "HEAD; touch pwned"])
def test_an_unknown_base_is_refused(base: str) -> None:
    with pytest.raises(InputError, match="not found; fetch it with `git fetch origin main`"):
        changes.find_changes(base)
    assert not Path("pwned").exists()


def test_a_clone_without_main_is_refused(branch: Repository) -> None:
    branch.must("git", "branch", "--quiet", "-D", "main")
    with pytest.raises(InputError, match="commit origin/main not found"):
        changes.find_changes(None)


def test_the_image_job_has_no_work_before_the_first_release(branch: Repository) -> None:
    Path("Dockerfile").write_text("FROM scratch\n# and more\n")
    branch.commit("Image")
    Path("metrics").mkdir()
    for champion, work in (("null", False), ('"b1"', True)):
        Path("metrics/release.json").write_text(f'{{"champion": {champion}}}')
        assert changes.find_changes("HEAD~").image is work


@pytest.fixture
def released(branch: Repository) -> Path:
    """The release component of production, which `main` has too."""
    file = Path(release_file(PRODUCTION))
    file.parent.mkdir(parents=True)
    file.write_text("images: [{name: model, newTag: unreleased}]\n")
    (file.parents[1] / "kustomization.yaml").write_text("components: [release]\n")
    branch.commit("Overlay")
    branch.must("git", "branch", "--force", "main", "HEAD")
    return file


@pytest.mark.parametrize("how", ["edited", "removed", "made a link"])
def test_a_change_of_a_release_component_is_refused(branch: Repository, released: Path, how: str) -> None:
    other = released.with_name("kustomization.yml")  # kustomize also reads a file with this name
    other.write_text("images: [{name: model, newName: other/image, newTag: any}]\n")
    if how == "edited":
        other.replace(released)
    else:
        released.unlink()
        if how == "made a link":
            released.symlink_to(other.name)
    branch.commit("Deploy another image")
    with pytest.raises(CheckFailed, match="only a release may change which image an environment runs; undo it with"):
        changes.find_changes(None)


@pytest.mark.usefixtures("released")
def test_an_overlay_can_be_added_and_removed(branch: Repository) -> None:
    overlays = Path("kustomize/overlays")
    shutil.copytree(overlays / PRODUCTION, overlays / "second")
    shutil.rmtree(overlays / PRODUCTION)
    branch.commit("Replace an environment")
    assert changes.find_changes(None).test

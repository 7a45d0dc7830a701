"""A release ships the bundle that was reviewed, also if training again gives other bytes."""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from demo.fakes.github_server import GitHub, State
from slipway import artifacts
from slipway.bundle import folder_hash
from slipway.config import load_params
from slipway.errors import CheckFailed
from slipway.integrations.github_comments import CommentText
from slipway.release import reviewed_bundle
from slipway.release.candidate import BUNDLE, FILE, Candidate
from slipway.release.review_lookup import Review
from tests.slipway.conftest import Repository
from tests.slipway.release.conftest import FEW_TREES, MAY_BE_WORSE

HEAD = "a" * 40
FIT = "    return make_pipeline(encoder(), trees).fit(features, target)\n"
NOISY_FIT = """\
    model = make_pipeline(encoder(), trees).fit(features, target)
    for (tree,) in trees._predictors:
        tree.nodes["value"] *= 1 + 1e-6 * int.from_bytes(os.urandom(4)) / 2**32
    return model
"""


@dataclass
class Uploads:
    """The artifacts that runs on GitHub have uploaded."""

    artifacts: Path

    def upload(self, run: int, bundle: Path) -> None:
        (self.artifacts / str(run)).mkdir(parents=True)
        with tarfile.open(self.artifacts / f"{run}/bundle.tar", "w") as packed:
            packed.add(bundle, ".")

    def now(self) -> str:
        """Return the time of a new event. All events are made at the same time."""
        return "2026-11-24T12:00:00Z"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "artifacts")


@pytest.fixture
def github(tmp_path: Path, uploads: Uploads) -> Iterator[GitHub]:
    path = ".github/workflows/pull-request.yml"
    runs = {number: {"id": number, "path": path, "head_sha": HEAD, "status": "completed"} for number in (1, 2)}
    host: Any = uploads
    with GitHub(State(host=host, runs=runs), tmp_path).serving() as github:
        yield github


@pytest.fixture
def pulled(judged: Callable[[str], Repository], monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone in which the model of 1997H2 was trained again. It is the working directory."""
    repository = judged("pulled")
    monkeypatch.chdir(repository.path)
    for name, value in repository.environment.items():
        monkeypatch.setenv(name, value)
    return repository


def reviewed(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Copy the trained bundle, and change its graph."""
    shutil.copytree(artifacts.BUNDLE, folder)
    graph = onnx.load(str(folder / "model.onnx"))
    change(graph)
    onnx.save(graph, str(folder / "model.onnx"))
    return folder


def describe(graph: onnx.ModelProto) -> None:
    graph.doc_string = "Another processor wrote this."


def answer_more(graph: onnx.ModelProto) -> None:
    """Double the leaves of the trees."""
    for node in graph.graph.node:
        for attribute in node.attribute:
            if "weights" in attribute.name or attribute.name == "leaf_weights":
                for index, value in enumerate(attribute.floats):
                    attribute.floats[index] = 2 * value
                for index, value in enumerate(attribute.t.float_data):
                    attribute.t.float_data[index] = 2 * value
                if attribute.t.raw_data:
                    values = onnx.numpy_helper.to_array(attribute.t) * 2
                    attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))


def restore(bundle: str, github: GitHub) -> Any:
    rebuilt = folder_hash(artifacts.BUNDLE)
    review = Review("pull request 7", bundle, None, HEAD)
    return reviewed_bundle.restore(review, rebuilt, load_params(artifacts.PARAMS), github.variables())


@pytest.mark.usefixtures("pulled")
def test_the_reviewed_bytes_take_the_place_of_those_that_were_trained_again(
    tmp_path: Path, github: GitHub, uploads: Uploads
) -> None:
    """The newest run has uploaded another bundle, which is left out."""
    bundle = reviewed(tmp_path / "reviewed", describe)
    uploads.upload(1, bundle)
    uploads.upload(2, artifacts.BUNDLE)
    verdict = restore(folder_hash(bundle), github)
    assert (verdict.verdict, verdict.challenger_bundle) == ("ship", folder_hash(bundle))
    assert folder_hash(artifacts.BUNDLE) == folder_hash(bundle)


@pytest.mark.usefixtures("pulled")
def test_a_model_that_answers_differently_is_refused(tmp_path: Path, github: GitHub, uploads: Uploads) -> None:
    bundle, before = reviewed(tmp_path / "reviewed", answer_more), folder_hash(artifacts.BUNDLE)
    uploads.upload(1, bundle)
    with pytest.raises(CheckFailed, match=r"differ by more than gate\.equality_tolerance, so nothing is released"):
        restore(folder_hash(bundle), github)
    assert folder_hash(artifacts.BUNDLE) == before


def altered(bundle: Path) -> None:
    (bundle / "schema.json").write_text("{}")


def outside(bundle: Path) -> None:
    (bundle / "folder").mkdir()
    shutil.move(bundle / "schema.json", bundle / "folder/schema.json")


@pytest.mark.usefixtures("pulled")
@pytest.mark.parametrize("attack", [altered, outside, None])
def test_altered_or_missing_bytes_are_refused(
    attack: Callable[[Path], None] | None, tmp_path: Path, github: GitHub, uploads: Uploads
) -> None:
    bundle, before = reviewed(tmp_path / "reviewed", describe), folder_hash(artifacts.BUNDLE)
    wanted = folder_hash(bundle)
    if attack:
        attack(bundle)
        uploads.upload(1, bundle)
    with pytest.raises(CheckFailed, match="which is not in the artifact `bundle` of any run on aaaaaaaaaaaa"):
        restore(wanted, github)
    assert folder_hash(artifacts.BUNDLE) == before


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_any_byte_changed_or_cut_off_is_not_an_error(
    compression: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as packed:
        for name in ("model.onnx", "schéma.json", "..", ".", "/root.json", "folder/x", "n" * 300):
            packed.writestr(name, bytes(range(64)) * 2)
    whole = archive.getvalue()
    damaged = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in (1, 128)]
    for content in [whole, *damaged, *(whole[:length] for length in range(0, len(whole), 7))]:
        shutil.rmtree(reviewed_bundle.FOLDER, ignore_errors=True)
        reviewed_bundle._unpack(content)
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} <= {"model.onnx"}


def test_a_fit_with_other_bytes_on_each_run_is_released_as_reviewed(
    pulled: Repository, github: GitHub, uploads: Uploads
) -> None:
    """The DVC remote is in the repository, so on `main` the model is trained again."""
    pulled.edit("src/model/train.py", FIT, NOISY_FIT)
    pulled.edit("src/model/train.py", "from collections.abc", "import os\nfrom collections.abc")
    random = {"  parity_tolerance:": "  check_determinism: false\n  parity_tolerance:"}
    for old, new in {"image: null": "image: localhost:1/team/houses", **random, **FEW_TREES, **MAY_BE_WORSE}.items():
        pulled.edit("params.yaml", old, new)
    pulled.must("dvc", "repro")
    uploads.upload(1, pulled.path / artifacts.BUNDLE)
    shown = folder_hash(pulled.path / artifacts.BUNDLE)
    pulled.must("git", "checkout", "--quiet", "dvc.lock", "metrics")  # a pull request does not have to bring them
    pulled.commit("Train with noise (#7)")
    merged = pulled.must("git", "rev-parse", "HEAD").strip()
    github.state.pulls["7"] = {"head": HEAD, "from": "team/houses", "state": "closed", "merged": merged}
    github.state.comment(CommentText("SHIP", HEAD, shown).complete, "github-actions[bot]", "Bot")
    pulled.must("slipway", "candidate", GITHUB_ACTIONS="true", **github.variables())
    candidate = Candidate.read(pulled.path / FILE)
    assert candidate.provenance.bundle == shown == folder_hash(pulled.path / BUNDLE)
    assert "up to date" in pulled.must("dvc", "status")

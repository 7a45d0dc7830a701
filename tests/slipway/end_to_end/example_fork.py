"""A fork whose first model is one of examples/, and the search for secrets in everything that leaves the machine."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from slipway import artifacts
from slipway.provenance import Provenance
from slipway.release import image
from tests.slipway.conftest import Repository
from tests.slipway.tools import require_torch

LOCAL = ("data/", "build/validated.parquet", "build/split/", "build/deliveries/", ".dvc/cache/", ".git/")
"""Files with the rows themselves, which go only to the DVC remote. git has none of them (`git ls-files`)."""


@dataclass(frozen=True)
class Fork:
    """A repository whose first model is an example, and the output of all verbs that ran in it."""

    repository: Repository
    printed: str


def copy_example(example: Path, fork: Repository) -> None:
    """Copy the files of an example into a clone, and let the programs in the clone find the packages that it needs."""
    shutil.copytree(example / "src", fork.path / "src", dirs_exist_ok=True)
    shutil.copy(example / "params.yaml", fork.path)
    if (example / "requirements").is_dir():
        shutil.copytree(example / "requirements", fork.path / "requirements", dirs_exist_ok=True)
        fork.environment["PYTHONPATH"] += f"{os.pathsep}{require_torch()}"


def run_example(fork: Repository, example: Path, write_data: Callable[[Path], None], feature: str) -> Fork:
    """Replace the model and the data of a clone, and run the pipeline, the report, the record and the drift."""
    for folder in ("src/model", "champion", "data"):
        shutil.rmtree(fork.path / folder, ignore_errors=True)
    copy_example(example, fork)
    write_data(fork.path / "data")
    (fork.path / "champion").mkdir()
    (fork.path / artifacts.RELEASE).write_text('{"champion": null}')
    for lock in (artifacts.LOCK, artifacts.EVALUATION, artifacts.VERDICT):
        (fork.path / lock).unlink()
    fork.must("dvc", "add", "--quiet", "data", "champion")
    fork.commit("Replace the model")
    printed = [fork.must("dvc", "repro"), fork.must("slipway", "report", "--base", "HEAD~1")]
    printed.append(fork.must("slipway", "record"))
    shutil.copytree(fork.path / artifacts.BUNDLE, fork.path / artifacts.CHAMPION, dirs_exist_ok=True)
    drift = fork.run("slipway", "drift", "--delivery", "2025-3")
    assert feature in drift.out
    return Fork(fork, "".join([*printed, drift.out, drift.err]))


def published_files(fork: Fork) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the contents of all files that leave the machine."""
    folder = fork.repository.path
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    code = {*fork.repository.must("git", "ls-tree", "-r", "--name-only", "HEAD~1", "src", "tests", "examples").split()}
    published = {name: path for name, path in files.items() if not name.startswith(LOCAL) and name not in code}
    for needed in ("build/bundle/model.onnx", "build/report/report.md", "build/drift.json", "mlflow.db"):
        assert needed in published
    assert len([name for name in published if name.endswith("quarantine.csv")]) == 2  # one of them is in MLflow
    for name, path in published.items():
        yield name, content(path)


def image_files(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the contents of the files of which the image is built."""
    monkeypatch.chdir(fork.repository.path)
    provenance = Provenance(bundle="0" * 32, data=None, commit="0" * 40, verdict="first", reason="better")
    image._write_context(artifacts.BUNDLE, provenance, (), artifacts.SOURCES)
    with tarfile.open(image.CONTEXT) as tar:
        members = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        assert "bundle/model.onnx" in members
        for name, file in members.items():
            assert file, name
            yield name, file.read()


def content(path: Path) -> bytes:
    """Return the bytes of a file, and the values of a Parquet file, which compresses them."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_csv().encode()
    return path.read_bytes()


def found(content: bytes, secrets: Sequence[str]) -> list[str]:
    """Return the secrets in some bytes, in any case, and also in the escapes of JSON."""
    lower = content.lower()
    words = [word for secret in secrets for word in (secret, *secret.split(), json.dumps(secret)[1:-1])]
    return [word for word in words if word.lower().encode() in lower]

"""The identity of a bundle is the hash that DVC computes for its directory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.bundle import TRAINING_ROWS, Bundle, Schema, contained, folder_hash
from slipway.errors import InputError
from tests.slipway.conftest import ROOT

NAMES = st.text("abcXYZ019._- é", min_size=1, max_size=8).filter(lambda name: name.strip(". ") == name)


def test_the_hash_equals_that_in_the_dvc_file(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.json", "A", "z é.bin", "deep/x"):
        (folder / name).write_text(name)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([*dvc, "add", "--quiet", "bundle"], cwd=tmp_path, check=True)
    stated = yaml.safe_load((tmp_path / "bundle.dvc").read_text())["outs"][0]["md5"]
    assert stated == f"{folder_hash(folder)}.dir"


@settings(max_examples=50)
@given(st.dictionaries(NAMES, st.binary(max_size=20), max_size=4))
def test_the_hash_equals_that_of_dvc_for_any_files(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    folder = tmp_path_factory.mktemp("folder")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    import hashlib

    tree = Tree()
    for path in folder.iterdir():
        tree.add((path.name,), None, HashInfo("md5", hashlib.md5(path.read_bytes()).hexdigest()))
    tree.digest()
    assert tree.hash_info.value == f"{folder_hash(folder)}.dir"


def test_committed_files_name_the_same_champion() -> None:
    """champion.dvc, metrics/release.json and metrics/verdict.json name one bundle."""
    from slipway.artifacts import EMPTY, Release, Verdict

    stated = yaml.safe_load((ROOT / "champion.dvc").read_text())["outs"][0]["md5"].removesuffix(".dir")
    live = None if stated == EMPTY else stated  # before the first release
    assert Release.read(ROOT / "metrics/release.json").champion == live
    if live or (ROOT / "metrics/verdict.json").exists():
        assert Verdict.read(ROOT / "metrics/verdict.json").champion_bundle == live


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_contained_finds_the_ids_of_training_rows(ids: list[int], known: list[int]) -> None:
    found = contained(np.array(ids, dtype=np.uint64), np.sort(np.array(known, dtype=np.uint64)))
    assert found.tolist() == [each in known for each in ids]


@pytest.mark.parametrize("rows", [np.array([2, 1], np.uint64), np.array([1, 2]), np.array([[1]], np.uint64)])
def test_training_rows_that_are_not_sorted_ids_are_refused(rows: np.ndarray, tmp_path: Path) -> None:
    """Otherwise, a leak would not be found."""
    np.save(tmp_path / TRAINING_ROWS, rows)
    schema = Schema(kind="regression", key=(), target="y", classes=None, columns=())
    with pytest.raises(InputError, match=r"training_rows.npy is corrupt \(not a sorted array of ids\)"):
        Bundle(tmp_path, schema, None).was_trained_on(np.array([1], np.uint64))  # type: ignore[arg-type]


def test_onnx_runtime_writes_no_device_id(tmp_path: Path) -> None:
    """ONNX Runtime stores a device id for its telemetry, except in CI and with ORT_DISABLE_TELEMETRY."""
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    found = {}
    for name, code in (("alone", "import onnxruntime"), ("here", "import slipway.bundle")):
        home = tmp_path / name
        home.mkdir()
        environment = kept | {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        found[name] = list(home.rglob("deviceid"))
    assert found["here"] == []
    if sys.platform == "linux":
        assert found["alone"], "ONNX Runtime writes no device id any more, so slipway/__init__.py need not disable it"

"""The identity of a bundle is the hash that DVC computes for its directory."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from slipway.bundle import TRAINING_ROWS, Bundle, Column, Schema, contained, folder_hash, onnx_session
from slipway.errors import InputError
from slipway.pipeline.export import check_parity
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


def _lookup() -> bytes:
    """Return a graph that looks up the number of a row in a table with two rows."""
    nodes = [
        helper.make_node("Cast", ["numbers"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["prediction"]),
    ]
    inputs = [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 1])]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [helper.make_tensor("table", TensorProto.FLOAT, [2], [1, 2])]
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def test_an_error_of_onnxruntime_is_raised_but_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgument, match="4711"):
        onnx_session(_lookup()).run(None, {"numbers": np.array([[4711]], np.float32)})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("private", "quoted"), [("no", True), ("drop", False)])
def test_an_error_of_the_graph_quotes_only_public_values(private: Literal["no", "drop"], quoted: bool) -> None:
    column = Column(name="income", type="number", required=True, private=private)
    schema = Schema(kind="regression", key=("id",), target="price", classes=None, columns=(column,))
    frame = pd.DataFrame({"income": np.array([4711], np.float32)})
    fitted = SimpleNamespace(predict=lambda rows: np.zeros(len(rows)))
    with pytest.raises(InputError, match=r"onnxruntime cannot run the exported graph \(.*Gather node") as error:
        check_parity(fitted, onnx.load_model_from_string(_lookup()), [frame], schema, 1e-3)
    assert ("4711" in str(error.value)) is quoted

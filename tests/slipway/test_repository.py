"""No tracked file is large, names a path of a machine or a registry, or loads a pickle."""

import re
import subprocess

import pytest
import yaml

from tests.slipway.conftest import ROOT

TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
    "\0"
)[:-1]
TEXTS = [name for name in TRACKED if not name.startswith(("sample/", "requirements/"))]


def test_no_tracked_file_is_large() -> None:
    assert not [name for name in TRACKED if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_000_000]


@pytest.mark.parametrize("name", [name for name in TEXTS if (ROOT / name).is_file()])
def test_no_path_of_a_machine_and_no_registry_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"(^|[^\w.])/(root|home|Users)/", text)
    assert not re.search(r"(pypi|pythonhosted|npmjs)\.(org|com)", text)


def test_no_pickle_is_ever_loaded() -> None:
    for name in TRACKED:
        if name.startswith("src/"):
            text = (ROOT / name).read_text()
            assert not re.search(r"\b(pickle|cloudpickle|dill|skops)\b|allow_pickle=True|eval\(", text), name
            assert not re.search(r"\bjoblib\.(load|dump)\b|from joblib import .*\b(load|dump)\b", text), name


def test_the_source_of_the_sample_has_the_later_deliveries() -> None:
    assert {name for name in TRACKED if name.startswith("sample/source/")} == {
        f"sample/source/{name}.csv" for name in ("1997H2", "1998H1", "1998H2")
    }
    assert yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["nfiles"] >= 9  # and those that have shipped

"""tests/model accepts every model that keeps the contract, also without data, and names each violation."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.contract import Model, with_listed_categories
from tests.model.generate import generate_rows
from tests.slipway.conftest import Repository, Result
from tests.slipway.fork import unusual_model

UNUSUAL = Path(unusual_model.__file__)
LOADED: Any = SimpleNamespace(**vars(unusual_model) | {"SCHEMA": with_listed_categories(unusual_model.SCHEMA)})
"""The unusual model as `load_model` returns it."""


def conformance(repository: Repository, *options: str) -> Result:
    own = f"--basetemp={repository.path.parent}/pytest"  # otherwise it deletes the large folders of earlier runs
    return repository.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", own, "tests/model", *options)


def test_an_unusual_model_passes_without_data(origin: Repository, tmp_path: Path) -> None:
    fork = origin.clone(tmp_path / "fork")
    shutil.rmtree(fork.path / "src/model")
    (fork.path / "src/model").mkdir()
    shutil.copy(UNUSUAL, fork.path / "src/model/__init__.py")
    params = fork.path / "params.yaml"
    slices = re.search(r"^  slices: #.*?(?=^\n)", params.read_text(), re.MULTILINE | re.DOTALL)
    assert slices
    params.write_text(params.read_text().replace(slices[0], "  slices: {rooms: [2, 5], kind: values}\n"))
    done = conformance(fork)
    assert done.code == 0, done.out
    assert "passed" in done.out


@pytest.mark.parametrize(
    ("file", "old", "new", "broken"),
    [
        (
            "train.py",
            "fit(features, target)",
            "fit(features, target + __import__('os').getrandom(1)[0])",
            "test_a_second_fit_gives_the_same_bytes",
        ),
        (
            "train.py",
            "fit(features, target)",
            "fit(features, target + hash('depends on the process') % 1_000)",
            "test_another_process_gives_the_same_bytes",
        ),
        (
            "features.py",
            'handle_unknown="ignore"',
            'handle_unknown="error"',
            "test_the_bundle_predicts_the_same_as_the_fitted_model_for_unseen_categories",
        ),
    ],
)
def test_a_model_that_breaks_the_contract_fails(
    origin: Repository, tmp_path: Path, file: str, old: str, new: str, broken: str
) -> None:
    fork = origin.clone(tmp_path / "fork")
    fork.edit(f"src/model/{file}", old, new)
    done = conformance(fork, "-k", broken)
    assert done.code == 1, done.out
    # A fixture fits the model, so a fit that cannot be repeated is an error of the fixture.
    assert re.search(rf"^(FAILED|ERROR) tests/model/test_conformance\.py::{broken}", done.out, re.MULTILINE)


def test_the_error_explains_why_no_rows_can_be_generated() -> None:
    class Impossible:
        SCHEMA = LOADED.SCHEMA.update_column("rooms", checks=[])
        KEY, TARGET, FEATURES = unusual_model.KEY, unusual_model.TARGET, unusual_model.FEATURES

    Impossible.SCHEMA.checks = [type(Impossible.SCHEMA.checks[0])(lambda rows: rows["zone"] < 0, error="never")]
    impossible: Model = Impossible  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"Only 0 of 800 rows .* tests/model/examples.csv"):
        generate_rows(impossible, 20)


def test_generated_rows_are_equal_in_every_run() -> None:
    first, second = (generate_rows(LOADED, 60) for _ in range(2))
    assert first.equals(second)
    assert first["sold"].str.fullmatch(r"\d\d\.\d\d\.\d{4}").all()
    assert first["size"].isna().any()
    assert not first.duplicated(list(unusual_model.KEY)).any()

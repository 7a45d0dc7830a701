"""Fixtures with the model of src/model. The stages of the pipeline train it in a temporary folder."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from slipway import artifacts
from slipway.artifacts import Parity
from slipway.bundle import Bundle, load_bundle
from slipway.config import Params, load_params
from slipway.contract import Model, load_model
from slipway.pipeline import split, train, validate
from slipway.pipeline.delivery import find_deliveries, read_chunks
from slipway.pipeline.parquet import read_table
from tests.model.generate import EXAMPLES, generate_rows

ROOT = Path(__file__).parents[2]
ROWS = 1_500
FAR_FUTURE = date(2200, 1, 1)


@dataclass(frozen=True)
class Trained:
    """A folder in which `slipway train` has run, and its results."""

    path: Path
    params: Params
    model: Model
    bundle: Bundle
    parity: Parity
    training: pd.DataFrame
    holdout: pd.DataFrame


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model()


@pytest.fixture(scope="session")
def rows(model: Model) -> pd.DataFrame:
    """Rows as text from the newest delivery in data/. Without deliveries, rows of `EXAMPLES` or generated rows."""
    data = ROOT / artifacts.DATA
    deliveries = [*find_deliveries(data).deliveries.values()] if data.is_dir() else []
    files = [*deliveries[-1:], *([ROOT / EXAMPLES] if (ROOT / EXAMPLES).is_file() else [])]
    if not files:
        return generate_rows(model, ROWS)
    chunk = next(iter(read_chunks(files[0])))
    found = chunk.as_text(chunk.rows).to_pandas().set_axis(chunk.rows).fillna("")
    return found.sample(min(ROWS, len(found)), random_state=0).sort_index()


@pytest.fixture(scope="session")
def trained(model: Model, rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("trained")
    params = write_params(path / "params.yaml")
    (path / "data").mkdir()
    rows.to_csv(path / "data/delivery.csv", index=False)
    with contextlib.chdir(path):
        validate.run(params, model, FAR_FUTURE)
        split.run(params, model)
        parity = train.run(params, model)
        training, holdout = read_table(artifacts.TRAINING), read_table(artifacts.HOLDOUT)
    return Trained(path, params, model, load_bundle(path / artifacts.BUNDLE), parity, training, holdout)


@pytest.fixture
def workplace(trained: Trained, tmp_path: Path) -> Iterator[Path]:
    """The working directory: a copy of the folder in which the model was trained, with `src` for subprocesses."""
    shutil.copytree(trained.path, tmp_path, dirs_exist_ok=True)
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "metrics").mkdir()
    with contextlib.chdir(tmp_path):
        yield tmp_path


def write_params(path: Path) -> Params:
    """Write a copy of params.yaml with a split and a gate that suit few rows, and return its content."""
    yaml = YAML()
    tree = yaml.load((ROOT / artifacts.PARAMS).read_text(encoding="utf-8"))
    tree["split"] = {"by": "key", "share": 0.3}
    tree["validate"]["max_invalid_share"] = 0.5
    tree["gate"] |= {"minimum_rows": 30, "floors": {}}
    tree["train"]["minimum_value_rows"] = 1  # in a sample of the rows, more values are rare
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    return load_params(path)


def shuffled(values: "pd.Series[object]") -> "pd.Series[object]":
    """Return the values in a random but reproducible order."""
    order = np.random.default_rng(0).permutation(len(values))
    return pd.Series(values.to_numpy()[order], index=values.index, dtype=values.dtype)

"""The champion, the bundle of the module `odd`, and a server of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from slipway.scoring import score
from slipway.scoring.results import Summary
from tests.slipway.serving.conftest import odd_bundle, odd_server, serve, served, server

__all__ = ["odd_bundle", "odd_server", "serve", "served", "server"]
Score = Callable[..., Summary]


@pytest.fixture
def run(tmp_path: Path) -> Score:
    """Score `tmp_path/in` with a bundle, and write the results to `tmp_path/out`."""

    def score_input(bundle: Path, *keep: str, source: Any = None, output: Any = None) -> Summary:
        source, output = source or tmp_path / "in", output or tmp_path / "out"
        return score.run(bundle, str(source), str(output), keep, lambda *_: None)

    return score_input


def answers(output: Path, part: str) -> pd.DataFrame:
    return pq.read_table(output / f"answers/{part}.parquet").to_pandas()


def quarantined(output: Path, part: str) -> dict[int, str]:
    """Return the reason for each row in the quarantine of a part."""
    path = output / f"quarantine/{part}.csv"
    return pd.read_csv(path).set_index("row")["reason"].to_dict() if path.exists() else {}


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}

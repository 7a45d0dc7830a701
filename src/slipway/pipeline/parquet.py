"""The tables between the stages: Parquet files that appear whole."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slipway import atomic
from slipway.errors import InputError


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read what an earlier stage wrote. Raises InputError if it is missing or is something else."""
    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro`, which runs the stages before this one.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); run `dvc repro --force`.") from None


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write rows, whole or not at all. The same rows give the same bytes."""
    with atomic.replacing(path) as fresh:
        rows.to_parquet(fresh, index=False, compression="zstd")

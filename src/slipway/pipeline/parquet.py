"""Read and write the Parquet files that stages exchange."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slipway import atomic
from slipway.errors import InputError


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file that an earlier stage wrote. Raises InputError if the file is missing or invalid."""
    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro` to run the earlier stages.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); run `dvc repro --force`.") from None


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write rows atomically. Equal rows give equal bytes."""
    with atomic.replacing(path) as fresh:
        rows.to_parquet(fresh, index=False, compression="zstd")

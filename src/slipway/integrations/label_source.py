"""The source of labels that arrive late: CSV or Parquet files in any storage that fsspec supports."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pandas as pd
import pyarrow.parquet as pq

from slipway.errors import InputError
from slipway.integrations.storage import describe_error

CHUNK_ROWS = 500_000
ENDINGS = (".csv", ".parquet")


def read_labels(address: str, texts: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file, or of all files of a folder, in chunks. `texts` are columns to read as text.

    Raises InputError if the source cannot be read or has no file.
    """
    with _errors(address):
        files, root = fsspec.core.url_to_fs(address)
        paths = sorted(path for path in files.find(root) if path.endswith(ENDINGS))
    if not paths:
        raise InputError(f"The source of labels {address} has no .csv or .parquet file; correct it.")
    for path in paths:
        with _errors(address), files.open(path) as file:
            yield from _chunks(path, file, texts)


@contextmanager
def _errors(address: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise  # the code that reads the chunks has raised it
    except Exception as error:
        raise InputError(
            f"The source of labels {address} cannot be read ({describe_error(error)}); check it."
        ) from None


def _chunks(path: str, file: Any, texts: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    if path.endswith(".csv"):
        yield from pd.read_csv(file, dtype=dict.fromkeys(texts, "str"), chunksize=CHUNK_ROWS)
    else:
        for batch in pq.ParquetFile(file).iter_batches(CHUNK_ROWS):
            yield batch.to_pandas()

"""Read labels that arrive later than their requests: CSV or Parquet files in any storage that fsspec supports."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from slipway.delivery_names import delivery_name
from slipway.errors import InputError
from slipway.integrations.storage import describe_error, without_secrets


@contextmanager
def fetched_labels(address: str) -> Iterator[dict[str, Path]]:
    """Yield a map from the address of each label file to its local path. `address` is a file or a folder of files.

    Remote files are copied to a temporary folder until the `with` block ends. Local files are not copied. Raises
    InputError if the source cannot be read or has no file.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            files, root = fsspec.core.url_to_fs(address)
            names = sorted(name for name in files.find(root) if delivery_name(name.rpartition("/")[2]))
            if isinstance(files, LocalFileSystem):
                paths = {name: Path(name) for name in names}
            else:
                paths = {name: Path(folder) / f"{i:08}-{name.rpartition('/')[2]}" for i, name in enumerate(names)}
                for name, path in paths.items():
                    files.get_file(name, str(path))
        except Exception as error:
            raise InputError(
                f"The source of labels {without_secrets(address)} cannot be read ({describe_error(error)}); check it."
            ) from None
        if not paths:
            shown = without_secrets(address)
            raise InputError(f"The source of labels {shown} has no .csv or .parquet file; correct it.")
        yield paths

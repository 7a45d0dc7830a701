"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or a folder to; put it in place when the block succeeds.

    A block that fails, or a process that is killed in it, leaves whatever was at `path` as it was. A folder is replaced
    by two renames; a kill just between them leaves the old one beside its place, in a folder that ends in `.partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    fresh, replaced = workspace / path.name, workspace / "replaced"
    try:
        yield fresh
        if path.is_dir():
            # A folder cannot be renamed over a full one; the old one steps aside first.
            path.replace(replaced)
        fresh.replace(path)
    except BaseException:
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")

"""Write files and directories completely or not at all: write them next to their target, and then rename them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path. At the end of the `with` block, the file or directory at this path replaces `path`.

    If the block fails or the process is killed, `path` stays unchanged. Only the replacement of a directory has an
    exception, because it needs two renames. If the process is killed between the two renames, `path` is missing. The
    old directory is then in a directory next to `path` whose name ends in `.partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    fresh, replaced = workspace / path.name, workspace / "replaced"
    try:
        yield fresh
        if path.is_dir():
            # A directory cannot be renamed to the name of a directory with files, so the old directory is moved first.
            path.replace(replaced)
        fresh.replace(path)
    except BaseException:
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, completely or not at all."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")

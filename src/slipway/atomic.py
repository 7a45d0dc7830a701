"""Write files and directories whole or not at all: next to the target, then renamed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path next to `path`. The file or directory that the block writes there then replaces `path`.

    If the block fails or the process is killed, `path` stays unchanged. A directory is replaced by two renames. A kill
    between them leaves the old one next to `path`, in a directory whose name ends in `.partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    fresh, replaced = workspace / path.name, workspace / "replaced"
    try:
        yield fresh
        if path.is_dir():
            # A directory cannot be renamed over another one that has files, so the old one is moved first.
            path.replace(replaced)
        fresh.replace(path)
    except BaseException:
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")

"""Read the DVC configuration of this repository."""

from pathlib import Path

from slipway.integrations import process

CONFIG = Path(".dvc/config")


def is_in(remote: Path | None, path: str) -> bool:
    """Return whether a path is below `remote`, the embedded DVC remote. Return False if `remote` is None."""
    return remote in Path(path).parents


def embedded_remote() -> Path | None:
    """Return the directory of the default DVC remote if it is embedded in this repository, otherwise None."""
    url = process.run("dvc", "config", f"remote.{process.run('dvc', 'config', 'core.remote')}.url")
    top, folder = Path().resolve(), (CONFIG.parent / url).resolve()
    return folder.relative_to(top) if "://" not in url and folder.is_relative_to(top) else None

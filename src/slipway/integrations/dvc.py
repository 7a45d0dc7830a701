"""The configuration of DVC in this repository."""

from pathlib import Path

from slipway.integrations import process

CONFIG = Path(".dvc/config")


def embedded_remote() -> Path | None:
    """Return the directory of the default remote if it is in this repository, else None."""
    url = process.run("dvc", "config", f"remote.{process.run('dvc', 'config', 'core.remote')}.url")
    top, folder = Path().resolve(), (CONFIG.parent / url).resolve()
    return folder.relative_to(top) if "://" not in url and folder.is_relative_to(top) else None

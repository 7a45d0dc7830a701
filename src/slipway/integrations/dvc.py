"""Read the DVC configuration of this repository."""

from pathlib import Path

from slipway.errors import InputError

CONFIG = Path(".dvc/config")


def is_in(remote: Path | None, path: str) -> bool:
    """Return whether a path is below `remote`, the embedded DVC remote. Return False if `remote` is None."""
    return remote in Path(path).parents


def embedded_remote() -> Path | None:
    """Return the directory of the default DVC remote if it is embedded in this repository, otherwise None.

    Raises InputError if there is no default remote.
    """
    # Imported here, because jobs that do not use the remote lack this package.
    from dvc.config import Config, ConfigError

    try:
        settings = Config(str(CONFIG.parent.resolve()))
        url = settings["remote"][settings["core"]["remote"].lower()]["url"]
    except (ConfigError, KeyError):
        raise InputError(f"{CONFIG} names no default remote; name one with `dvc remote default NAME`.") from None
    top, folder = Path().resolve(), (CONFIG.parent / url).resolve()
    return folder.relative_to(top) if "://" not in url and folder.is_relative_to(top) else None

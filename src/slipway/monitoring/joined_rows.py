"""The joined rows of a log: copy them to a storage, from which a report replays them."""

from pathlib import Path

from slipway.errors import InputError
from slipway.integrations.log_store import DAY, LogStore


def publish(joined: Path, names: list[str], store: LogStore, log: LogStore) -> None:
    """Copy the joined files to `store`, and delete the days that the log no longer contains.

    So rows that were erased from the log, or that have expired, are removed here too. Raises InputError if both have
    the same address.
    """
    if store.address == log.address:
        raise InputError(
            f"{store.address} is the address of the log; name another one for the joined rows, so that the log stays."
        )
    days = {name.partition("/")[0] for name in names}
    for folder in store.folders():
        if folder.startswith(DAY) and folder not in days:
            store.delete_folder(folder)
    for name in names:
        store.write(name, (joined / name).read_bytes())

"""Deliveries that have arrived at the source and that data/ does not have yet."""

import filecmp
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway import artifacts, atomic, commands
from slipway.artifacts import DeliveryCounts
from slipway.bundle import folder_hash
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import BadInput, Refused, SlipwayError
from slipway.pipeline.validate import check_deliveries, check_share, count, write_quarantine


@dataclass(frozen=True)
class Arrival:
    """A delivery that was taken in, and what validation counted in it."""

    name: str
    counts: DeliveryCounts


def ingest(params: Params, model: Model, today: date, *, name: str | None = None) -> Arrival | None:
    """Take in one delivery: the oldest new one of the source, or the one named.

    The delivery is validated beside the ones that data/ has; it then appears in data/ whole, and `dvc add` records
    it. Returns None where the source has nothing new. Raises Refused or BadInput, with data/ as it was, where the
    delivery changed after it was taken in or is not fit to be used, or where data/ is not what data.dvc says.
    """
    source = Path(params.ingest.source)
    if not source.is_dir():
        raise BadInput(f"params.yaml: `ingest.source` is {source}, which is no folder; name the one with deliveries.")
    _check_data(source)
    waiting = sorted(source.glob("*.csv")) if name is None else [source / f"{name}.csv"]
    for file in waiting:
        taken = artifacts.DATA / file.name
        if not file.is_file():
            raise BadInput(f"{file} does not exist; name a delivery of {source}/.")
        if not taken.exists():
            return _take_in(file, params, model, today)
        if not filecmp.cmp(taken, file, shallow=False):
            raise Refused(f"{file} differs from {taken}, which was taken in earlier; deliver it under a new name.")
    _track()
    return None


def _check_data(source: Path) -> None:
    """Raise BadInput where data/ is not what data.dvc says: `dvc add` would forget what is missing.

    Deliveries of the source that were copied and not recorded, because a process was killed, may be there.
    """
    stated = artifacts.data_hash()
    if stated is None:
        return
    unrecorded: set[str] = set()
    arrived = (
        file.name for file in sorted(source.glob("*.csv"), reverse=True) if (artifacts.DATA / file.name).is_file()
    )
    while folder_hash(artifacts.DATA, without=unrecorded) != stated:
        newest = next(arrived, None)
        if newest is None:
            raise BadInput(
                f"{artifacts.DATA}/ is not what {artifacts.DATA_DVC} says; run `dvc pull {artifacts.DATA_DVC}`, "
                f"or record your own change with `dvc add {artifacts.DATA}`."
            )
        unrecorded.add(newest)


def _take_in(file: Path, params: Params, model: Model, today: date) -> Arrival:
    known = sorted(artifacts.DATA.glob("*.csv"))
    if known and known[-1].name > file.name:
        raise Refused(
            f"{file} sorts before {known[-1]}, which was taken in earlier; name deliveries so that the newest is last."
        )
    with tempfile.TemporaryDirectory() as folder:
        for earlier in known:
            (Path(folder) / earlier.name).symlink_to(earlier.resolve())
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        try:
            deliveries = list(check_deliveries(Path(folder), model, today))
            write_quarantine(deliveries)
            counts = count(deliveries[-1])
            check_share(file, counts, params.validate_.most_at_fault)
        except SlipwayError as error:
            words = str(error).replace(str(copy), str(file)).replace(folder, str(artifacts.DATA))
            raise type(error)(words) from None
        with atomic.replacing(artifacts.DATA / file.name) as fresh:
            shutil.copyfile(copy, fresh)
    _track()
    return Arrival(file.stem, counts)


def _track() -> None:
    """Have DVC record what data/ holds; where it does already, nothing changes."""
    commands.run("dvc", "add", "--quiet", str(artifacts.DATA))

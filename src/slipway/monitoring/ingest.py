"""Taking in deliveries that have arrived at the source and that data/ does not have yet."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts
from slipway.bundle import folder_hash
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError, SlipwayError
from slipway.integrations import process
from slipway.monitoring.source import Source
from slipway.pipeline.columns import ROW
from slipway.pipeline.deliveries import Delivery, read_delivery
from slipway.pipeline.seen_rows import SeenRows
from slipway.pipeline.validate import check_share, count, quarantined_rows

PART_BYTES = 32_000_000
"""How much of a delivery is held at once, as text."""


@dataclass(frozen=True)
class Arrival:
    """A delivery that was taken in, and what validation counted in it."""

    name: str
    counts: DeliveryCounts


@dataclass(frozen=True)
class Arrivals:
    """What was taken in, and why what else waits was not."""

    taken: tuple[Arrival, ...]
    refused: tuple[SlipwayError, ...]


def ingest(
    params: Params, model: Model, today: date, wanted: Collection[str] = (), known: Collection[str] = ()
) -> Arrivals:
    """Take in the oldest delivery of the source that is new and fit, or those that are `wanted`, by their names.

    Deliveries that are `known` are on their way elsewhere: they are taken in too, and the next one as well. Each is
    validated beside the ones that data/ has; it then appears in data/ whole, and `dvc add` records it. One that is not
    fit, or that changed after it was taken in, is left and told of. Raises InputError where the source cannot be read,
    or where data/ is not what data.dvc says.
    """
    artifacts.check_data_directory()
    source = Source(params.ingest.source)
    names = source.names()
    unrecorded = _unrecorded(names)
    for each in sorted(wanted):
        if f"{each}.csv" not in names:
            raise InputError(f"{source.where(f'{each}.csv')} does not exist; name a delivery of {source.address}/.")
    taken: list[Arrival] = []
    refused: list[SlipwayError] = []
    for name in names:
        stem = name.removesuffix(".csv")
        if wanted and stem not in wanted:
            continue
        try:
            arrival = _take_in_if_new(source, name, params, model, today)
        except SlipwayError as error:
            if name in unrecorded:
                raise  # DVC would record what the source does not have
            refused.append(error)
            continue
        taken += [arrival] if arrival else []
        if arrival and not wanted and stem not in known:
            break
    process.run("dvc", "add", str(artifacts.DATA))  # where DVC has it all, nothing changes
    return Arrivals(tuple(taken), tuple(refused))


def _unrecorded(names: list[str]) -> set[str]:
    """Deliveries of the source that were copied and not recorded, because a process was killed.

    Raises InputError where data/ is not, but for them, what data.dvc says: `dvc add` would forget what is missing.
    """
    stated = artifacts.data_hash()
    if stated is None:
        return set()
    unrecorded: set[str] = set()
    arrived = (name for name in reversed(names) if (artifacts.DATA / name).is_file())
    while folder_hash(artifacts.DATA, without=unrecorded) != stated:
        newest = next(arrived, None)
        if newest is None:
            raise InputError(
                f"{artifacts.DATA}/ is not what {artifacts.DATA_DVC} says; run `dvc pull {artifacts.DATA_DVC}`, "
                f"or record your own change with `dvc add {artifacts.DATA}`."
            )
        unrecorded.add(newest)
    return unrecorded


def _take_in_if_new(source: Source, name: str, params: Params, model: Model, today: date) -> Arrival | None:
    taken, where = artifacts.DATA / name, source.where(name)
    if taken.exists():
        if not source.has(name, taken):
            raise CheckFailed(f"{where} differs from {taken}, which was taken in earlier; deliver it under a new name.")
        return None
    newest = max((each.name for each in artifacts.DATA.glob("*.csv")), default="")
    if newest > name:
        raise CheckFailed(
            f"{where} sorts before {artifacts.DATA / newest}, which was taken in earlier; name deliveries so that the "
            "newest is last."
        )
    with source.fetched(name) as copy:
        counts = _check(copy, where, params, model, today)
        with atomic.replacing(taken) as fresh:
            shutil.copyfile(copy, fresh)
    return Arrival(name.removesuffix(".csv"), counts)


def _check(file: Path, where: str, params: Params, model: Model, today: date) -> DeliveryCounts:
    """Hold a file against the schema and against data/, part by part; its rows at fault go to the quarantine file."""
    earlier = SeenRows(model)
    for known in sorted(artifacts.DATA.glob("*.csv")):
        for part in _parts(known, str(known), model, today):
            earlier.check(part)
    counted: list[DeliveryCounts] = []
    with atomic.replacing(artifacts.QUARANTINE) as fresh:
        for part in _parts(file, where, model, today):
            checked = earlier.check(part)
            quarantined_rows(checked).to_csv(fresh, index=False, mode="a", header=not counted)
            counted.append(count(checked))
    counts = _sum(counted)
    check_share(Path(where), counts, params.validate_.max_invalid_share)
    return counts


def _parts(file: Path, where: str, model: Model, today: date) -> Iterator[Delivery]:
    """A delivery in parts that fit into memory, with rows numbered as in the whole. No value has a line break in it."""
    before = 0
    with file.open("rb") as lines, tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / file.name
        header = lines.readline()
        while block := lines.readlines(PART_BYTES) or ([] if before else [b""]):
            part.write_bytes(header + b"".join(block))
            try:
                delivery = read_delivery(part, model, today)
            except SlipwayError as error:
                raise type(error)(str(error).replace(str(part), where)) from None
            yield _shifted(delivery, before)
            before += len(block)


def _shifted(delivery: Delivery, rows: int) -> Delivery:
    """A part with its rows numbered as they are in the whole file, before which `rows` stand."""
    if not rows:
        return delivery
    raw, accepted = (table.set_axis(table.index + rows) for table in (delivery.raw, delivery.accepted))
    return replace(
        delivery, raw=raw, accepted=accepted, faults=delivery.faults.assign(**{ROW: delivery.faults[ROW] + rows})
    )


def _sum(counted: list[DeliveryCounts]) -> DeliveryCounts:
    reasons = pd.DataFrame([each.reasons for each in counted]).sum().astype(int).sort_index()
    return DeliveryCounts(
        rows=sum(each.rows for each in counted),
        accepted=sum(each.accepted for each in counted),
        quarantined=sum(each.quarantined for each in counted),
        reasons={str(reason): int(rows) for reason, rows in reasons.items()},
    )

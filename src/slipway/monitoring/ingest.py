"""Ingest deliveries: validate new deliveries of the source and copy them to data/."""

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts
from slipway.bundle import folder_hash
from slipway.config import SAMPLE_SOURCE, Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError, SlipwayError
from slipway.integrations import process
from slipway.integrations.delivery_source import DeliverySource
from slipway.pipeline.columns import ROW
from slipway.pipeline.deliveries import Delivery, read_delivery
from slipway.pipeline.seen_rows import SeenRows
from slipway.pipeline.validate import check_share, count, quarantined_rows

PART_BYTES = 32_000_000
"""Size of the parts in which a delivery is read. Only one part at a time is in memory."""


@dataclass(frozen=True)
class IngestedDelivery:
    """An ingested delivery, with the numbers of its accepted and quarantined rows."""

    name: str
    counts: DeliveryCounts


@dataclass(frozen=True)
class IngestResult:
    """The ingested deliveries, and an error for each skipped delivery."""

    ingested: tuple[IngestedDelivery, ...]
    skipped: tuple[SlipwayError, ...]


def reason_for_no_ingest(params: Params, environ: Mapping[str, str]) -> str | None:
    """Return the reason why there is nothing to ingest, or None.

    This is not an error, so that the workflows of a new repository succeed. The sample is never ingested on a schedule,
    because each copy of the template would get a pull request every hour. To ingest the sample, start the workflow by
    hand.
    """
    if not params.ingest.source:
        return "nothing to do: ingest.source in params.yaml is empty"
    if params.ingest.source == SAMPLE_SOURCE and environ.get("GITHUB_EVENT_NAME") == "schedule":
        return f"nothing to do: {SAMPLE_SOURCE} is the template's sample, which is not ingested on a schedule"
    return None


def ingest(
    params: Params, model: Model, today: date, wanted: Collection[str] = (), known: Collection[str] = ()
) -> IngestResult:
    """Ingest the oldest new delivery that is valid, or the `wanted` ones.

    Deliveries in `known` already have a pull request. They are ingested too, together with the oldest delivery that is
    not in `known`. Each delivery is validated together with those in data/, copied to data/ in one step, and recorded
    by `dvc add`. A delivery is skipped if it is invalid, or if it changed after it was ingested. Raises InputError if
    the source cannot be read, or if data/ differs from data.dvc.
    """
    artifacts.check_data_directory()
    source = DeliverySource(params.ingest.source)
    names = source.names()
    unrecorded = _unrecorded(names)
    for each in sorted(wanted):
        if f"{each}.csv" not in names:
            raise InputError(f"{source.where(f'{each}.csv')} does not exist; name a delivery of {source.address}/.")
    ingested: list[IngestedDelivery] = []
    skipped: list[SlipwayError] = []
    for name in names:
        stem = name.removesuffix(".csv")
        if wanted and stem not in wanted:
            continue
        try:
            delivery = _ingest_if_new(source, name, params, model, today)
        except SlipwayError as error:
            if name in unrecorded:
                raise  # otherwise DVC would record a file that differs from the source
            skipped.append(error)
            continue
        ingested += [delivery] if delivery else []
        if delivery and not wanted and stem not in known:
            break
    process.run("dvc", "add", str(artifacts.DATA))  # changes nothing without a new delivery
    return IngestResult(tuple(ingested), tuple(skipped))


def _unrecorded(names: list[str]) -> set[str]:
    """Return the files of data/ that an interrupted process copied but did not record.

    Raises InputError if data/ differs from data.dvc in any other way, because `dvc add` would remove missing files from
    data.dvc.
    """
    stated = artifacts.data_hash()
    if stated is None:
        return set()
    unrecorded: set[str] = set()
    copied = (name for name in reversed(names) if (artifacts.DATA / name).is_file())
    while folder_hash(artifacts.DATA, without=unrecorded) != stated:
        newest = next(copied, None)
        if newest is None:
            raise InputError(
                f"{artifacts.DATA}/ differs from {artifacts.DATA_DVC}; run `dvc pull {artifacts.DATA_DVC}`, "
                f"or record your own change with `dvc add {artifacts.DATA}`."
            )
        unrecorded.add(newest)
    return unrecorded


def _ingest_if_new(
    source: DeliverySource, name: str, params: Params, model: Model, today: date
) -> IngestedDelivery | None:
    ingested, where = artifacts.DATA / name, source.where(name)
    if ingested.exists():
        if not source.has(name, ingested):
            raise CheckFailed(
                f"{where} differs from {ingested}, which is already ingested; deliver it with a new name."
            )
        return None
    newest = max((each.name for each in artifacts.DATA.glob("*.csv")), default="")
    if newest > name:
        raise CheckFailed(
            f"{where} sorts before {artifacts.DATA / newest}, which was ingested before; choose names that sort the "
            "newest delivery last."
        )
    with source.fetched(name) as copy:
        counts = _check(copy, where, params, model, today)
        with atomic.replacing(ingested) as fresh:
            shutil.copyfile(copy, fresh)
    return IngestedDelivery(name.removesuffix(".csv"), counts)


def _check(file: Path, where: str, params: Params, model: Model, today: date) -> DeliveryCounts:
    """Validate a file together with the deliveries in data/, and write its rejected rows to the quarantine.

    All files are read in parts that fit into memory.
    """
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
    """Yield a delivery in parts that fit into memory. Row numbers are those of the whole file.

    Values must not contain line breaks.
    """
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
    """Return a part with the row numbers of the whole file. `rows` is the number of rows before the part."""
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

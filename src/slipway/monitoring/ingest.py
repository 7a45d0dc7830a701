"""Ingest deliveries: validate the new deliveries in the source, and copy them to data/."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts
from slipway.bundle import folder_hash
from slipway.config import SAMPLE_SOURCE, Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError, SlipwayError
from slipway.integrations import process
from slipway.monitoring.open_source import Source
from slipway.pipeline.delivery import find_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache
from slipway.pipeline.key_lists import read_with_key_lists
from slipway.pipeline.quarantine import Quarantine
from slipway.pipeline.seen_rows import SeenRows
from slipway.pipeline.validate import NONE, check_share, counted


@dataclass(frozen=True)
class IngestedDelivery:
    """An ingested delivery, with the numbers of its accepted and quarantined rows."""

    name: str
    counts: DeliveryCounts


@dataclass(frozen=True)
class IngestResult:
    """The ingested deliveries, the errors of skipped deliveries, and the reasons why other files are not deliveries."""

    ingested: tuple[IngestedDelivery, ...]
    skipped: tuple[SlipwayError, ...]
    not_taken: Mapping[str, str]
    recorded: tuple[str, ...]
    """Deliveries that were in data/ but not in data.dvc, and that were added to data.dvc."""


def reason_for_no_ingest(params: Params, environ: Mapping[str, str]) -> str | None:
    """Return the reason why there is nothing to ingest, or None.

    The reason is not an error, because the workflows of a new repository must succeed. The sample is never ingested on
    a schedule, because each copy of the template would then get a pull request every hour. To ingest the sample, start
    the workflow by hand.
    """
    if not params.ingest.source:
        return "nothing to do: ingest.source in params.yaml is empty"
    if params.ingest.source == SAMPLE_SOURCE and environ.get("GITHUB_EVENT_NAME") == "schedule":
        return f"nothing to do: {SAMPLE_SOURCE} is the template's sample, which is not ingested on a schedule"
    return None


def ingest(
    params: Params,
    model: Model,
    today: date,
    source: Source,
    wanted: Collection[str] = (),
    known: Collection[str] = (),
) -> IngestResult:
    """Ingest the oldest new delivery that is valid, or the deliveries in `wanted`.

    Deliveries in `known`, which already have a pull request, are ingested together with the oldest delivery that is not
    in `known`. Each delivery is validated together with the deliveries in data/, copied to data/ in one step, and
    recorded by `dvc add`. A delivery is skipped if it is invalid, if its file has to be renamed, or if it changed after
    it was ingested. Raises InputError if the source cannot be read, or if data/ differs from data.dvc.
    """
    artifacts.check_data_directory()
    listing = source.listing()
    unrecorded = _unrecorded(listing.deliveries.values())
    for each in sorted(wanted):
        if each not in listing.deliveries:
            raise InputError(f"{source.address} has no delivery {each}; name one that it has.")
    ingested: list[IngestedDelivery] = []
    skipped: list[SlipwayError] = []
    recorded: list[str] = []
    for name, file in listing.deliveries.items():
        if wanted and name not in wanted and file not in unrecorded:
            continue
        try:
            delivery = _ingest_if_new(source, name, file, params, model, today)
        except SlipwayError as error:
            if file in unrecorded:
                raise  # otherwise DVC would record a file that differs from the source
            skipped.append(error)
            continue
        ingested += [delivery] if delivery else []
        recorded += [name] if file in unrecorded else []
        if delivery and not wanted and name not in known:
            break
    skipped += () if wanted else listing.errors
    process.run("dvc", "add", str(artifacts.DATA))  # changes nothing without a new delivery
    return IngestResult(tuple(ingested), tuple(skipped), listing.not_taken, tuple(recorded))


def _unrecorded(files: Iterable[str]) -> set[str]:
    """Return the files and folders in data/ that are not in data.dvc.

    Files are missing from data.dvc if a process was killed, or if another branch was checked out. Raises InputError if
    data/ differs from data.dvc in any other way, because `dvc add` would remove missing files from data.dvc.
    """
    stated = artifacts.data_hash()
    if stated is None:
        return set()
    unrecorded: set[str] = set()
    copied = (file for file in reversed([*files]) if (artifacts.DATA / file).exists())
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
    source: Source, name: str, file: str, params: Params, model: Model, today: date
) -> IngestedDelivery | None:
    ingested, where = artifacts.DATA / file, source.where(file)
    if ingested.exists():
        if not source.has(file, ingested):
            raise CheckFailed(
                f"{where} differs from {ingested}, which is already ingested; deliver it with a new name."
            )
        return None
    earlier = find_deliveries(artifacts.DATA).deliveries
    if name in earlier:
        raise CheckFailed(
            f"{where} has the name of {earlier[name]}, which is already ingested; deliver it with a new name."
        )
    newest = max(earlier, default="")
    if newest > name and params.validate_.repeated_keys == "quarantine":
        raise CheckFailed(
            f"{where} sorts before {earlier[newest]}, which was ingested before; choose names that sort the newest "
            "delivery last (`ingest.prefix` for a query or a table), or set `validate.repeated_keys: replace` if it "
            "corrects earlier rows."
        )
    with source.fetched(file) as copy, atomic.replacing(ingested) as fresh:
        shutil.copytree(copy, fresh) if copy.is_dir() else shutil.copyfile(copy, fresh)
        counts = _check(name, fresh, where, params, model, today)
    return IngestedDelivery(name, counts)


def _check(name: str, copy: Path, where: str, params: Params, model: Model, today: date) -> DeliveryCounts:
    """Validate a delivery together with the deliveries in data/, and write its rejected rows to the quarantine.

    `copy` is the delivery's local file. `where` is the delivery's location, for messages. Each delivery is read in
    parts that fit into memory. Deliveries whose names sort after `name` are not read, because they do not affect the
    validation of `name`. `changed` stays None, because counting replaced rows with changed values requires all rows in
    memory.
    """
    earlier = {each: path for each, path in find_deliveries(artifacts.DATA).deliveries.items() if each < name}
    rules = params.validate_
    cache, seen = DeliveryCache(model, artifacts.CHECKED, rules), SeenRows(model, rules)
    for part in read_with_key_lists(earlier, model, rules, today, cache):
        seen.check(part)
    counts = NONE
    with Quarantine(model) as quarantine:
        for part in read_with_key_lists({name: copy}, model, rules, today, cache, where):
            checked = seen.check(part)
            quarantine.add(checked)
            counts = counted(counts, checked)
    check_share(where, counts, rules.max_invalid_share)
    return counts.model_copy(update={"changed": None})

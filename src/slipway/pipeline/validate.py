"""validate: data/ → build/validated.parquet, build/quarantine.csv, build/validation.json."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa

from slipway import artifacts
from slipway.artifacts import DeliveryCounts, Validation, listed
from slipway.config import Params, Validate
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.integrations.compute import LOCAL, Engine
from slipway.pipeline.columns import DELIVERY, REASON, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery
from slipway.pipeline.delivery import Found, find_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache
from slipway.pipeline.key_lists import lists_keys, read_with_key_lists
from slipway.pipeline.parallel_checks import check_in_parallel
from slipway.pipeline.quarantine import Quarantine
from slipway.pipeline.row_versions import Versions
from slipway.pipeline.seen_rows import SeenRows
from slipway.pipeline.sorted_rows import SortedRows, named_rows

NONE = DeliveryCounts(rows=0, accepted=0, quarantined=0, reasons={})


def run(params: Params, model: Model, today: date, engine: Engine = LOCAL) -> Validation:
    """Validate every delivery in data/, ordered by name. The processes or workers of `engine` check the rows.

    Raises InputError if a file is unusable. Writes the quarantine file, then raises CheckFailed if more than
    `validate.max_invalid_share` of the rows of a delivery are invalid.
    """
    found = find(artifacts.DATA, model)
    rules = params.validate_
    cache = DeliveryCache(model, artifacts.CHECKED, rules)
    if engine != LOCAL:
        rows_only = {name: path for name, path in found.deliveries.items() if not lists_keys(name, rules)}
        check_in_parallel(rows_only, rules, today, cache, artifacts.CHECKED, engine)
    counts: dict[str, DeliveryCounts] = {}
    with _scratch() as scratch:
        rows = SortedRows(model, Path(scratch))
        with Quarantine(model) as quarantine:
            for part in _check(found.deliveries, model, rules, today, cache):
                quarantine.add(part)
                counts[part.name] = counted(counts.get(part.name, NONE), part)
                rows.add(part)
        cache.prune()
        for name, each in counts.items():
            check_share(str(found.deliveries[name]), each, rules.max_invalid_share)
        accepted, changed = rows.write(artifacts.VALIDATED)
    for name, number in changed.items():
        counts[name] = counts[name].model_copy(update={"changed": number})
    validation = Validation(
        rows=sum(each.rows for each in counts.values() if not each.lists_keys),
        accepted=accepted,
        quarantined=sum(each.quarantined for each in counts.values()),
        deliveries=counts,
        not_taken=dict(found.not_taken),
    )
    validation.write(artifacts.VALIDATION)
    return validation


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    folder = artifacts.VALIDATED.parent
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{artifacts.VALIDATED.name}.", suffix=".partial", dir=folder)


def check_deliveries(
    folder: Path, model: Model, rules: Validate, today: date, checked: Path | None = None
) -> Iterator[Delivery]:
    """Yield the deliveries in parts, ordered by name.

    Check each row against the schema and against all earlier deliveries. `checked` is the folder in which checked
    deliveries are cached.
    """
    return _check(find(folder, model).deliveries, model, rules, today, DeliveryCache(model, checked, rules))


def accepted_rows(parts: Sequence[Delivery]) -> pd.DataFrame:
    """Return the accepted rows of all parts, each with the name of its delivery.

    If several rows have the same key, only the row from the newest delivery is returned. Rows that a list of keys
    deletes are not returned.
    """
    versions, number = Versions(), 0
    for part in parts:
        versions.add(part.deleted if part.is_key_list else part.replaced, number)
        number += 0 if part.is_key_list else len(part.table)
    rows = pa.concat_tables([named_rows(part) for part in parts if not part.is_key_list]).to_pandas()
    is_newest, _ = versions.newest().find(rows[ROW_ID].to_numpy(), 0)
    return rows if is_newest.all() else rows[is_newest].reset_index(drop=True)


def find(folder: Path, model: Model) -> Found:
    """Return the deliveries in a folder. Raises InputError if the folder contains no delivery."""
    reserved = {ROW_ID, DELIVERY, ROW, REASON} & set(model.SCHEMA.columns)
    if reserved:
        raise InputError(f"src/model/schema.py: {', '.join(reserved)} is a name that Slipway uses; rename the column.")
    found = find_deliveries(folder)
    if not found.deliveries:
        others = "".join(f", and {path} is not taken, because {reason}" for path, reason in found.not_taken.items())
        raise InputError(f"{folder}/ has no delivery{others}; run `dvc pull`, or add a CSV or Parquet file.")
    return found


def _check(
    paths: Mapping[str, Path], model: Model, rules: Validate, today: date, cache: DeliveryCache
) -> Iterator[Delivery]:
    if all(lists_keys(name, rules) for name in paths):
        folder = next(iter(paths.values())).parent
        raise InputError(
            f"{folder}/ has only lists of keys ({listed(list(paths))}), and no delivery with rows; run `dvc pull`, or "
            "add the deliveries from which the lists delete rows."
        )
    seen = SeenRows(model, rules)
    for part in read_with_key_lists(paths, model, rules, today, cache):
        yield seen.check(part)


def counted(before: DeliveryCounts, part: Delivery) -> DeliveryCounts:
    """Add the counts of a part to the counts of the parts before it: accepted rows, quarantined rows and reasons."""
    quarantined = len({*part.faults[ROW].tolist()}) if len(part.faults) else 0
    reasons = Counter(before.reasons) + Counter(part.faults[REASON].tolist() if quarantined else ())
    return DeliveryCounts(
        rows=before.rows + len(part.table) + quarantined,
        accepted=before.accepted + len(part.table),
        quarantined=before.quarantined + quarantined,
        reasons={str(reason): rows for reason, rows in sorted(reasons.items())},
        lists_keys=part.is_key_list,
        deleted=before.deleted + len(part.deleted),
        unmatched=before.unmatched + part.unmatched,
        replaced=before.replaced + len(part.replaced),
        unknown_columns=tuple(dict.fromkeys([*before.unknown_columns, *part.columns.unknown])),
        missing_columns=tuple(dict.fromkeys([*before.missing_columns, *part.columns.missing])),
    )


FIXES = {
    " is missing": (
        "correct or remove the delivery, or declare the column with `nullable=True` if its values may be missing"
    ),
    " is not a number": "write numbers like 1234.5, without a decimal comma, separators of thousands or a unit",
}
"""What to do about most invalid rows, by the end of their reason."""


def check_share(where: str, counts: DeliveryCounts, most: float) -> None:
    """Raise CheckFailed if the share of invalid rows in a delivery is larger than `most`."""
    if counts.quarantined > most * counts.rows:
        reason, rows = max(counts.reasons.items(), key=lambda item: item[1])
        fix = next((fix for end, fix in FIXES.items() if reason.endswith(end)), "correct or remove the delivery")
        raise CheckFailed(
            f"{where}: {counts.quarantined} of {counts.rows} rows are invalid, more than "
            f"validate.max_invalid_share ({most:.0%}) allows, most often because {reason} ({rows} rows); "
            f"{fix} ({artifacts.QUARANTINE} has the rows)."
        )

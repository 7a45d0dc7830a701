"""validate: data/ → build/validated.parquet, build/quarantine.csv, build/validation.json."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pandera.dtypes import is_bool, is_datetime, is_float, is_int

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts, Validation
from slipway.config import Params, Validate
from slipway.contract import Model, unpublished_of
from slipway.errors import CheckFailed, InputError
from slipway.integrations.compute import LOCAL, Engine
from slipway.pipeline.columns import DELIVERY, REASON, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery, read_deliveries
from slipway.pipeline.delivery import Found, find_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache
from slipway.pipeline.parallel_checks import check_in_parallel
from slipway.pipeline.seen_rows import SeenRows
from slipway.pipeline.sorted_rows import SortedRows, named_rows
from slipway.pipeline.typed_rows import BOOLEANS, NUMBER, reasons_by_row

NONE = DeliveryCounts(rows=0, accepted=0, quarantined=0, reasons={})


def run(params: Params, model: Model, today: date, engine: Engine = LOCAL) -> Validation:
    """Validate every delivery in data/, oldest first. The processes or workers of `engine` check the rows.

    Raises InputError if a file is unusable. Writes the quarantine file, then raises CheckFailed if more than
    `validate.max_invalid_share` of the rows of a delivery are invalid.
    """
    found = find(artifacts.DATA, model)
    rules = params.validate_
    cache = DeliveryCache(model, artifacts.CHECKED, rules)
    if engine != LOCAL:
        check_in_parallel(found.deliveries, rules, today, cache, artifacts.CHECKED, engine)
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
        rows=sum(each.rows for each in counts.values()),
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
    """Yield the deliveries by name, in parts. Check each against the schema and against all earlier deliveries.

    `checked` is the folder with deliveries that were checked before.
    """
    return _check(find(folder, model).deliveries, model, rules, today, DeliveryCache(model, checked, rules))


def accepted_rows(parts: Sequence[Delivery]) -> pd.DataFrame:
    """Return the accepted rows of all parts, with the name of the delivery of each.

    Of rows with the same key, the one of the newest delivery is returned. The others were replaced.
    """
    rows = pa.concat_tables([named_rows(part) for part in parts]).to_pandas()
    replaced = rows[ROW_ID].duplicated(keep="last")
    return rows[~replaced].reset_index(drop=True) if replaced.any() else rows


def find(folder: Path, model: Model) -> Found:
    """Return the deliveries of a folder. Raises InputError if the folder has no delivery."""
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
    seen = SeenRows(model, rules)
    for part in read_deliveries(paths, model, rules, today, cache):
        yield seen.check(part)


class Quarantine:
    """The file build/quarantine.csv, which gets all invalid rows. It is replaced when the block ends."""

    def __init__(self, model: Model) -> None:
        self._replacing = atomic.replacing(artifacts.QUARANTINE)
        self._model = model
        self._columns = [DELIVERY, ROW, REASON, *model.SCHEMA.columns]
        self._parts: list[pa.Table] = []

    def __enter__(self) -> Self:
        self._file = self._replacing.__enter__()
        return self

    def add(self, part: Delivery) -> None:
        """Add the invalid rows of a part."""
        if len(part.faults):
            self._parts.append(quarantined_rows(part))

    def __exit__(self, *raised: Any) -> None:
        if raised[0] is None:
            rows = pd.DataFrame(columns=self._columns)
            if self._parts:
                rows = without_unpublished(
                    pa.concat_tables(self._parts, promote_options="default").to_pandas(), self._model
                )
            rows.to_csv(self._file, index=False)
        self._replacing.__exit__(*raised)


def quarantined_rows(part: Delivery) -> pa.Table:
    """Return the invalid rows as they were delivered, with the name of the delivery, the row number and the reasons."""
    reasons = reasons_by_row(part.faults)
    invalid = part.raw.as_text(np.array([*reasons], dtype=np.int64))
    added = {
        DELIVERY: [part.name] * len(reasons),
        ROW: [*reasons],
        REASON: ["; ".join(each) for each in reasons.values()],
    }
    return pa.table({**added, **dict(zip(invalid.column_names, invalid.columns, strict=True))})


def without_unpublished(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Replace texts by their lengths if some columns are not published. The quarantine is recorded in MLflow.

    A row may have its values in the wrong columns, so only numbers, dates and listed values are shown.
    """
    if not unpublished_of(model):
        return rows
    shown = {
        name: rows[name].where(_is_shown(rows[name], model), rows[name].map(_as_length, na_action="ignore"))
        for name in rows.columns
        if name not in (DELIVERY, ROW, REASON)
    }
    return rows.assign(**shown)


def _is_shown(values: "pd.Series[str]", model: Model) -> "pd.Series[bool]":
    column = model.SCHEMA.columns.get(str(values.name))
    if column is None:  # the model does not read it
        return pd.Series(False, index=values.index)
    if is_float(column.dtype) or is_int(column.dtype):
        return values.str.fullmatch(NUMBER, na=False)
    if is_bool(column.dtype):
        return values.str.lower().isin(BOOLEANS)
    if is_datetime(column.dtype):
        return values.str.fullmatch(r"[0-9./: TZ+-]{1,35}", na=False)
    listed = [value for check in column.checks for value in (check.statistics or {}).get("allowed_values", ())]
    return values.isin(listed)


def _as_length(text: str) -> str:
    return f"({len(text):,} characters)"


def counted(before: DeliveryCounts, part: Delivery) -> DeliveryCounts:
    """Add the accepted rows, the quarantined rows and the reasons of a part to the counts of the parts before it."""
    quarantined = len({*part.faults[ROW].tolist()}) if len(part.faults) else 0
    reasons = Counter(before.reasons) + Counter(part.faults[REASON].tolist() if quarantined else ())
    return DeliveryCounts(
        rows=before.rows + len(part.table) + quarantined,
        accepted=before.accepted + len(part.table),
        quarantined=before.quarantined + quarantined,
        reasons={str(reason): rows for reason, rows in sorted(reasons.items())},
        replaced=before.replaced + part.replaced,
        unknown_columns=tuple(dict.fromkeys([*before.unknown_columns, *part.columns.unknown])),
        missing_columns=tuple(dict.fromkeys([*before.missing_columns, *part.columns.missing])),
    )


def check_share(where: str, counts: DeliveryCounts, most: float) -> None:
    """Raise CheckFailed if the share of invalid rows in a delivery is larger than `most`."""
    if counts.quarantined > most * counts.rows:
        reason, rows = max(counts.reasons.items(), key=lambda item: item[1])
        raise CheckFailed(
            f"{where}: {counts.quarantined} of {counts.rows} rows are invalid, more than "
            f"validate.max_invalid_share ({most:.0%}) allows, most often because {reason} ({rows} rows); "
            f"correct or remove the delivery ({artifacts.QUARANTINE} has the rows)."
        )

"""validate: data/ → build/validated.parquet, build/quarantine.csv, build/validation.json."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts, Validation
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.columns import DELIVERY, REASON, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery, fault_table, read_delivery
from slipway.pipeline.parquet import write_table
from slipway.pipeline.row_ids import Ids, row_ids


def run(params: Params, model: Model, today: date) -> Validation:
    """Validate every delivery in data/, oldest first.

    Raises InputError for a file that cannot be used, and CheckFailed if more than `validate.max_invalid_share` of
    a delivery's rows are at fault; the quarantine file is written in any case.
    """
    deliveries = list(check_deliveries(artifacts.DATA, model, today))
    write_quarantine(deliveries)
    counts = {delivery.name: count(delivery) for delivery in deliveries}
    for name, counted in counts.items():
        check_share(artifacts.DATA / f"{name}.csv", counted, params.validate_.max_invalid_share)
    validated = pd.concat([delivery.accepted for delivery in deliveries], ignore_index=True)
    validated = validated.sort_values([*([model.TIME] if model.TIME else []), ROW_ID], ignore_index=True)
    write_table(artifacts.VALIDATED, validated)
    validation = Validation(
        rows=sum(each.rows for each in counts.values()),
        accepted=len(validated),
        quarantined=sum(each.quarantined for each in counts.values()),
        deliveries=counts,
    )
    validation.write(artifacts.VALIDATION)
    return validation


def check_deliveries(folder: Path, model: Model, today: date) -> Iterator[Delivery]:
    """Read the deliveries in the order of their names, each held against those before it, as `SeenRows` does."""
    reserved = {ROW_ID, DELIVERY, ROW, REASON} & set(model.SCHEMA.columns)
    if reserved:
        raise InputError(f"src/model/schema.py: {', '.join(reserved)} is a name that Slipway uses; rename the column.")
    paths = sorted(path for path in folder.glob("*.csv") if path.is_file())
    if not paths:
        raise InputError(f"{folder}/ has no delivery (*.csv); run `dvc pull`.")
    earlier = SeenRows(model)
    for path in paths:
        yield earlier.check(read_delivery(path, model, today))


class SeenRows:
    """What is known of the rows before: the id of each by its delivery, and how far each delivery reaches in time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ids: dict[str, Ids] = {}
        self._ends: dict[str, pd.Timestamp] = {}

    def check(self, delivery: Delivery) -> Delivery:
        """Hold a delivery, or the next part of one, against what came before, and remember what is accepted.

        The accepted rows have the delivery's name and their ids beside the columns of the schema.
        """
        name, accepted, time = delivery.name, delivery.accepted, self._model.TIME
        ids = row_ids(accepted, self._model)
        faults = [delivery.faults, *self._repeated(name, accepted, ids)]
        before = {other: end for other, end in self._ends.items() if other != name}
        if time and before:
            faults.append(_too_early(accepted[time], *max(before.items(), key=lambda item: item[1])))
        all_faults = pd.concat(faults, ignore_index=True)
        fresh = ~accepted.index.isin(all_faults[ROW])
        accepted, ids = accepted[fresh].assign(**{DELIVERY: name, ROW_ID: ids[fresh]}), ids[fresh]
        self._ids[name] = np.concatenate([self._ids.get(name, ids[:0]), ids])
        if time and not accepted.empty:
            self._ends[name] = max(accepted[time].max(), self._ends.get(name, pd.Timestamp.min))
        return Delivery(name, delivery.raw, accepted, all_faults)

    def _repeated(self, name: str, accepted: pd.DataFrame, ids: Ids) -> Iterator[pd.DataFrame]:
        known = np.isin(ids, self._ids.get(name, ids[:0])) | pd.Index(ids).duplicated()
        yield fault_table(accepted.index[known], "the same key as an earlier row of the delivery")
        for other, there in self._ids.items():
            if other != name:
                yield fault_table(accepted.index[np.isin(ids, there)], f"already delivered in {other}")


def write_quarantine(deliveries: Sequence[Delivery]) -> None:
    """Write every row at fault to build/quarantine.csv."""
    quarantine = pd.concat([quarantined_rows(delivery) for delivery in deliveries], ignore_index=True)
    with atomic.replacing(artifacts.QUARANTINE) as fresh:
        quarantine.to_csv(fresh, index=False)


def quarantined_rows(delivery: Delivery) -> pd.DataFrame:
    """The rows at fault as they were delivered, with the delivery, the row's number and its reasons."""
    reasons = delivery.faults.groupby(ROW)[REASON].agg("; ".join)
    at_fault = delivery.raw.reindex(reasons.index)
    return at_fault.reset_index().assign(**{DELIVERY: delivery.name, REASON: reasons.to_numpy()})[
        [DELIVERY, ROW, REASON, *delivery.raw.columns]
    ]


def count(delivery: Delivery) -> DeliveryCounts:
    """How many of a delivery's rows were accepted and quarantined, and why."""
    quarantined = delivery.faults[ROW].nunique()
    return DeliveryCounts(
        rows=len(delivery.accepted) + quarantined,
        accepted=len(delivery.accepted),
        quarantined=quarantined,
        reasons=delivery.faults[REASON].value_counts().sort_index().to_dict(),
    )


def check_share(path: Path, counts: DeliveryCounts, most: float) -> None:
    """Raise CheckFailed if more than the share `most` of a delivery's rows are at fault."""
    if counts.quarantined > most * counts.rows:
        reason, rows = max(counts.reasons.items(), key=lambda item: item[1])
        raise CheckFailed(
            f"{path}: {counts.quarantined} of {counts.rows} rows are at fault, more than "
            f"validate.max_invalid_share ({most:.0%}) allows, most often because {reason} ({rows} rows); "
            f"correct or remove the delivery ({artifacts.QUARANTINE} has the rows)."
        )


def _too_early(times: "pd.Series[pd.Timestamp]", earlier: str, end: pd.Timestamp) -> pd.DataFrame:
    early = times.index[times < end]
    return fault_table(early, f"dated before the end of the earlier delivery {earlier} ({end:%Y-%m-%d})")

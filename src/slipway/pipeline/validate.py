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
from slipway.errors import BadInput, Refused
from slipway.pipeline.columns import DELIVERY, REASON, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery, fault_table, read_delivery
from slipway.pipeline.tables import write_table


def run(params: Params, model: Model, today: date) -> Validation:
    """Validate every delivery in data/, oldest first.

    Raises BadInput for a file that cannot be used, and Refused if more than `validate.most_at_fault` of
    a delivery's rows are at fault; the quarantine file is written in any case.
    """
    deliveries = list(check_deliveries(artifacts.DATA, model, today))
    write_quarantine(deliveries)
    counts = {delivery.name: count(delivery) for delivery in deliveries}
    for name, counted in counts.items():
        check_share(artifacts.DATA / f"{name}.csv", counted, params.validate_.most_at_fault)
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
    """Read the deliveries in the order of their names, each held against those before it.

    The accepted rows have the delivery's name and their ids beside the columns of the schema.
    """
    reserved = {ROW_ID, DELIVERY, ROW, REASON} & set(model.SCHEMA.columns)
    if reserved:
        raise BadInput(f"src/model/schema.py: {', '.join(reserved)} is a name that Slipway uses; rename the column.")
    paths = sorted(path for path in folder.glob("*.csv") if path.is_file())
    if not paths:
        raise BadInput(f"{folder}/ has no delivery (*.csv); run `dvc pull`.")
    seen: dict[int, str] = {}
    end: tuple[str, pd.Timestamp] | None = None
    for path in paths:
        delivery = read_delivery(path, model, today)
        ids = row_ids(delivery.accepted, model)
        faults = [delivery.faults, *_repeated(delivery.accepted, ids, seen)]
        if model.TIME and end is not None:
            faults.append(_too_early(delivery.accepted[model.TIME], *end))
        all_faults = pd.concat(faults, ignore_index=True)
        fresh = ~delivery.accepted.index.isin(all_faults[ROW])
        accepted = delivery.accepted[fresh].assign(**{DELIVERY: delivery.name, ROW_ID: ids[fresh]})
        seen |= dict.fromkeys(ids[fresh].tolist(), delivery.name)
        if model.TIME and not accepted.empty:
            end = (delivery.name, accepted[model.TIME].max())
        yield Delivery(delivery.name, delivery.raw, accepted, all_faults)


def row_ids(frame: pd.DataFrame, model: Model) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """A 64-bit hash of each row's key, the same on every machine and for every column type of the same values."""
    canonical = {}
    for name in model.KEY:
        values = frame[name]
        if values.dtype.kind == "M":
            canonical[name] = values.astype("datetime64[s]").astype("int64")
        elif values.dtype.kind in "biuf":
            canonical[name] = values.astype("float64")
        else:
            canonical[name] = values.astype(object)
    hashes: np.ndarray[tuple[int], np.dtype[np.uint64]] = pd.util.hash_pandas_object(
        pd.DataFrame(canonical, index=frame.index), index=False
    ).to_numpy()
    return hashes


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
    """Raise Refused if more than the share `most` of a delivery's rows are at fault."""
    if counts.quarantined > most * counts.rows:
        reason, rows = max(counts.reasons.items(), key=lambda item: item[1])
        raise Refused(
            f"{path}: {counts.quarantined} of {counts.rows} rows are at fault, more than "
            f"validate.most_at_fault ({most:.0%}) allows, most often because {reason} ({rows} rows); "
            f"correct or remove the delivery ({artifacts.QUARANTINE} has the rows)."
        )


def _repeated(
    accepted: pd.DataFrame, ids: "np.ndarray[tuple[int], np.dtype[np.uint64]]", seen: dict[int, str]
) -> Iterator[pd.DataFrame]:
    yield fault_table(accepted.index[pd.Index(ids).duplicated()], "the same key as an earlier row of the delivery")
    origin = pd.Series([seen.get(each) for each in ids.tolist()], index=accepted.index, dtype="object").dropna()
    for name, rows in origin.groupby(origin).groups.items():
        yield fault_table(pd.Index(rows), f"already delivered in {name}")


def _too_early(times: "pd.Series[pd.Timestamp]", earlier: str, end: pd.Timestamp) -> pd.DataFrame:
    early = times.index[times < end]
    return fault_table(early, f"dated before the end of the earlier delivery {earlier} ({end:%Y-%m-%d})")

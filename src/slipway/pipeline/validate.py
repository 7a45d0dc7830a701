"""validate: data/ → build/validated.parquet, build/quarantine.csv, build/validation.json."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from slipway import artifacts, atomic
from slipway.artifacts import DeliveryCounts, Validation
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.pipeline.columns import DELIVERY, REASON, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery, read_delivery
from slipway.pipeline.parquet import write_table
from slipway.pipeline.seen_rows import SeenRows


def run(params: Params, model: Model, today: date) -> Validation:
    """Validate every delivery in data/, oldest first.

    Raises InputError if a file is unusable. Writes the quarantine file, then raises CheckFailed if more than
    `validate.max_invalid_share` of the rows of a delivery are invalid.
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
    """Yield the deliveries by name. Check each against the schema and against all earlier deliveries."""
    reserved = {ROW_ID, DELIVERY, ROW, REASON} & set(model.SCHEMA.columns)
    if reserved:
        raise InputError(f"src/model/schema.py: {', '.join(reserved)} is a name that Slipway uses; rename the column.")
    paths = sorted(path for path in folder.glob("*.csv") if path.is_file())
    if not paths:
        raise InputError(f"{folder}/ has no delivery (*.csv); run `dvc pull`.")
    seen = SeenRows(model)
    for path in paths:
        yield seen.check(read_delivery(path, model, today))


def write_quarantine(deliveries: Sequence[Delivery]) -> None:
    """Write all invalid rows to build/quarantine.csv."""
    quarantine = pd.concat([quarantined_rows(delivery) for delivery in deliveries], ignore_index=True)
    with atomic.replacing(artifacts.QUARANTINE) as fresh:
        quarantine.to_csv(fresh, index=False)


def quarantined_rows(delivery: Delivery) -> pd.DataFrame:
    """Return the invalid rows as they were delivered, with the name of the delivery, the row number and the reasons."""
    reasons = delivery.faults.groupby(ROW)[REASON].agg("; ".join)
    invalid = delivery.raw.reindex(reasons.index)
    return invalid.reset_index().assign(**{DELIVERY: delivery.name, REASON: reasons.to_numpy()})[
        [DELIVERY, ROW, REASON, *delivery.raw.columns]
    ]


def count(delivery: Delivery) -> DeliveryCounts:
    """Count the accepted rows, the quarantined rows and the reasons of a delivery."""
    quarantined = delivery.faults[ROW].nunique()
    return DeliveryCounts(
        rows=len(delivery.accepted) + quarantined,
        accepted=len(delivery.accepted),
        quarantined=quarantined,
        reasons=delivery.faults[REASON].value_counts().sort_index().to_dict(),
    )


def check_share(path: Path, counts: DeliveryCounts, most: float) -> None:
    """Raise CheckFailed if the share of invalid rows in a delivery is larger than `most`."""
    if counts.quarantined > most * counts.rows:
        reason, rows = max(counts.reasons.items(), key=lambda item: item[1])
        raise CheckFailed(
            f"{path}: {counts.quarantined} of {counts.rows} rows are invalid, more than "
            f"validate.max_invalid_share ({most:.0%}) allows, most often because {reason} ({rows} rows); "
            f"correct or remove the delivery ({artifacts.QUARANTINE} has the rows)."
        )

"""Compute the mean loss of each released model on each delivery."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway import artifacts
from slipway.bundle import load_bundle
from slipway.config import load_params
from slipway.contract import load_model


@dataclass(frozen=True)
class Errors:
    """The mean loss of each bundle on each delivery, over the rows that the bundle was not trained on.

    If a bundle was trained on all rows of a delivery, its loss on this delivery is None.
    """

    loss: str
    unit: str
    deliveries: tuple[str, ...]
    models: dict[str, tuple[float | None, ...]]


def errors(bundles: Sequence[Path], data: Path, today: date) -> Errors:
    """Evaluate bundles on the deliveries in the folder `data`.

    A delivery is left out if every bundle was trained on all rows of the delivery.
    """
    # Imported here, because these imports take seconds.
    from slipway.pipeline.columns import DELIVERY, ROW_ID
    from slipway.pipeline.decay import LOSS, answer_for
    from slipway.pipeline.validate import accepted_rows, check_deliveries

    params, model = load_params(artifacts.PARAMS), load_model()
    rows = accepted_rows(list(check_deliveries(data, model, params.validate_, today)))
    losses = {}
    for folder in bundles:
        bundle = load_bundle(folder)
        unseen = rows[~bundle.was_trained_on(rows[ROW_ID].to_numpy())]
        losses[bundle.hash] = answer_for(unseen, bundle, params, model)[LOSS].groupby(unseen[DELIVERY]).mean()
    deliveries = sorted({name for each in losses.values() for name in each.index})
    return Errors(
        params.task.loss.replace("_", " "),
        params.task.unit_of_loss,
        tuple(deliveries),
        {bundle: tuple(_known(each.get(name)) for name in deliveries) for bundle, each in losses.items()},
    )


def _known(value: float | None) -> float | None:
    return None if value is None else float(value)

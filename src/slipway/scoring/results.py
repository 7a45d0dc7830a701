"""The results of batch scoring: what was scored of each part, and the summary of all parts."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from slipway.bundle import Reference
from slipway.statistics.bins import category_rows
from slipway.statistics.psi import population_stability

Bins = dict[str, list[int]]
"""The number of rows in each bin of the training data, by feature or output. The last bin has missing values."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartResult(_Plain):
    """The manifest of a part, which is written after its other files. It exists only if they are complete.

    `source` changes when the part changes. `files` has the size of each file in bytes. `fault` is the reason why no row
    of the part could be scored.
    """

    bundle: str
    part: str
    source: str
    keep: tuple[str, ...]
    files: dict[str, int]
    rows: int
    answered: int
    quarantined: int
    fault: str | None = None
    features: Bins
    predictions: Bins


class Drifted(_Plain):
    """The population stability index of a feature or prediction, between the training rows and the scored rows."""

    name: str
    kind: Literal["feature", "date", "prediction"]
    psi: float
    rows: int
    missing: int


class Summary(_Plain):
    """The summary of a run. `drift` starts with the largest PSI, and ends with dates, which are always new."""

    bundle: str
    parts: int
    rows: int
    answered: int
    quarantined: int
    faults: dict[str, str]
    """The reason for each part that could not be scored."""
    drift: tuple[Drifted, ...]


def summarize(bundle: str, results: list[PartResult], reference: Reference, dates: frozenset[str]) -> Summary:
    """Add up the results of all parts, and compare the scored rows with the training rows."""
    drift = [
        *(_drifted(name, "date" if name in dates else "feature", results, reference) for name in reference.features),
        *(_drifted(name, "prediction", results, reference) for name in reference.prediction),
    ]
    return Summary(
        bundle=bundle,
        parts=len(results),
        rows=sum(each.rows for each in results),
        answered=sum(each.answered for each in results),
        quarantined=sum(each.quarantined for each in results),
        faults={each.part: each.fault for each in results if each.fault},
        drift=tuple(sorted(drift, key=lambda each: (each.kind == "date", -each.psi))),
    )


def _drifted(
    name: str, kind: Literal["feature", "date", "prediction"], results: list[PartResult], reference: Reference
) -> Drifted:
    before = (reference.prediction if kind == "prediction" else reference.features)[name]
    training = before.counts if before.values is None else category_rows(before).values()
    old = np.array([*training, before.missing])
    counts = [each.predictions if kind == "prediction" else each.features for each in results]
    new = sum((np.array(each[name]) for each in counts if each), np.zeros_like(old))
    rows = int(new.sum())
    psi = population_stability(old, new) if rows else 0.0
    return Drifted(name=name, kind=kind, psi=round(psi, 6), rows=rows, missing=int(new[-1]))

"""The results of batch scoring: the manifest of each part, and the summary of all parts."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from slipway.bundle import Reference
from slipway.statistics.bins import category_rows
from slipway.statistics.psi import population_stability

Bins = dict[str, list[int]]
"""Maps a feature or output to the number of scored rows in each bin. The bins come from the training data. The last
number is the number of missing values.
"""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartResult(_Plain):
    """The manifest of a part. The manifest is written last. If it exists, all other files of the part are complete.

    `source` identifies the content of the input file, so it changes when that file changes. `files` maps each written
    file to its size in bytes. `fault` is the reason why no row of the part could be scored, or None.
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
    """The drift of a feature or prediction: the population stability index (PSI) between training and scored rows."""

    name: str
    kind: Literal["feature", "date", "prediction"]
    psi: float
    rows: int
    missing: int


class Summary(_Plain):
    """The summary of a run over all parts.

    `drift` is sorted by PSI, with the largest first. Date features are at the end, because new rows always have new
    dates.
    """

    bundle: str
    parts: int
    rows: int
    answered: int
    quarantined: int
    faults: dict[str, str]
    """Maps each part that could not be scored to the reason."""
    drift: tuple[Drifted, ...]


def summarize(bundle: str, results: list[PartResult], reference: Reference, dates: frozenset[str]) -> Summary:
    """Add up the results of all parts, and compute the drift from the training rows to the scored rows."""
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

"""Measure the performance of served models on requests whose truth is known, and the share of known truths by age.

Rows are added in chunks. Only the loss, the day, the delay and the slices of each row are kept.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.artifacts import Artifact
from slipway.statistics.blocks import mean_of

DELAYS = (0, 1, 2, 3, 7, 14, 30, 60, 90, 180, 365)
"""Days after the request for which the share of known truths is computed."""
MATURE = 0.9
"""A day is mature once this share of its final truths is expected to be known. A day that is not mature is young."""
MAX_SLICES = 50
"""Maximum number of slices of a column.

Only the largest slices are kept, because clients can send any number of values.
"""
UNKNOWN = -1
"""Value for the delay of a row whose truth is not known."""


class LivePart(Artifact):
    """The loss on all rows, on one day, or on one slice. Only rows whose truth is known are included.

    `interval` is None if the rows come from too few days.
    """

    column: str | None
    """The column that defines the slice, "day" for a day, or None for all rows."""
    value: str
    rows: int
    known: int
    """The number of rows whose truth is known."""
    loss: float | None
    interval: tuple[float, float] | None
    standard_error: float | None = None
    """The standard error of a day's loss, or None if the day has a single known truth."""
    young: bool = False
    """True if too few truths are known yet, so that the loss can still change."""


class Maturity(Artifact):
    """The share of rows whose truth is known `days` days after the request.

    Rows that are not `days` days old yet are left out.
    """

    days: int
    rows: int
    share: float


class LivePerformance(Artifact):
    bundle: str
    whole: LivePart
    days: tuple[LivePart, ...]
    slices: tuple[LivePart, ...]


@dataclass
class Collected:
    """The logged rows of one bundle, in chunks."""

    losses: list[NDArray[np.float64]] = field(default_factory=list)
    days: list[NDArray[np.int32]] = field(default_factory=list)
    delays: list[NDArray[np.int32]] = field(default_factory=list)
    slices: dict[str, list["pd.Series[Any]"]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self, losses: NDArray[np.float64], days: NDArray[np.int32], delays: NDArray[np.int32], slices: pd.DataFrame
    ) -> None:
        """Add rows. The loss is NaN and the delay is `UNKNOWN` if the truth is not known. Slices are categories."""
        self.losses.append(losses)
        self.days.append(days)
        self.delays.append(delays)
        for name in slices.columns:
            self.slices[name].append(slices[name])


def maturity(days: NDArray[np.int32], delays: NDArray[np.int32], as_of: int) -> tuple[Maturity, ...]:
    """Return the share of known truths after each delay in `DELAYS`. `as_of` is the day of the newest label."""
    age = as_of - days
    curve = []
    for delay in DELAYS:
        old = age >= delay
        rows = int(old.sum())
        if rows:
            known = int((old & (delays != UNKNOWN) & (delays <= delay)).sum())
            curve.append(Maturity(days=delay, rows=rows, share=known / rows))
    return tuple(curve)


def performance(
    bundle: str, collected: Collected, curve: tuple[Maturity, ...], as_of: int, confidence: float
) -> LivePerformance:
    """Return the performance of one bundle: on all rows, by day and by slice."""
    losses, days = np.concatenate(collected.losses), np.concatenate(collected.days)
    known = ~np.isnan(losses)
    by_day = []
    for day in np.unique(days):
        here = days == day
        part = _part("day", str(as_date(int(day))), losses[here], known[here], None, confidence)
        by_day.append(part.model_copy(update={"young": is_young(as_of - int(day), curve)}))
    slices = []
    for column, chunks in collected.slices.items():
        values = pd.api.types.union_categoricals(chunks, sort_categories=True)
        sizes = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
        for code in np.sort(np.argsort(-sizes, kind="stable")[:MAX_SLICES]):
            here, name = values.codes == code, str(values.categories[code])
            slices.append(_part(column, name, losses[here], known[here], days[here], confidence))
    return LivePerformance(
        bundle=bundle,
        whole=_part(None, "all rows", losses, known, days, confidence),
        days=tuple(by_day),
        slices=tuple(slices),
    )


def _part(
    column: str | None,
    value: str,
    losses: NDArray[np.float64],
    known: NDArray[np.bool_],
    days: NDArray[np.int32] | None,
    confidence: float,
) -> LivePart:
    judged = losses[known]
    if not len(judged):
        return LivePart(column=column, value=value, rows=len(losses), known=0, loss=None, interval=None)
    mean = mean_of(judged, None if days is None else days[known].astype("datetime64[D]"))
    interval = mean.interval(confidence)
    finite = interval if interval and all(map(math.isfinite, interval)) else None
    return LivePart(
        column=column,
        value=value,
        rows=len(losses),
        known=len(judged),
        loss=mean.value,
        interval=finite,
        standard_error=mean.standard_error if days is None and len(judged) > 1 else None,
    )


def is_young(age: int, curve: tuple[Maturity, ...]) -> bool:
    """Return whether a day is young: after `age` days, too few of its final truths are expected to be known."""
    if not curve or not curve[-1].share:
        return True
    expected = max((each.share for each in curve if each.days <= age), default=0.0)
    return expected < MATURE * curve[-1].share


def as_date(day: int) -> date:
    """Convert a number of days since 1970 to a date."""
    return date(1970, 1, 1) + timedelta(days=day)

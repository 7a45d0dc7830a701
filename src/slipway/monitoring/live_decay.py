"""Detect decay on requests whose truth is known. A period of the prediction log is checked like a delivery.

A period has `live.days` days (params.yaml), and periods do not overlap. Each period in which all days are mature is
checked, the oldest first. Every check of a period uses the same rows. Repeated checks therefore do not raise the
probability of a false alarm. `slipway monitor` records which periods it has reported. Later, it checks only the newest
reported period again, so that an alarm stays until the next period is mature.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from slipway import artifacts
from slipway.artifacts import Artifact, Release
from slipway.bundle import Bundle
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.decay import DeliveredRows
from slipway.monitoring.live_performance import MATURE, Collected, Maturity, as_date, is_young
from slipway.pipeline.columns import GROUP, SLICE, TIME
from slipway.pipeline.decay import FOUND, AtRelease, DeliveryDecay, at_release, judge, scores, smallest_found
from slipway.pipeline.evaluate import check_champion
from slipway.pipeline.number_text import number

REPORTED = "_reported.json"
"""Name of the file with the reported periods, in the storage of the joined rows or of the log. Readers of
Parquet folders ignore it, because its name starts with an underscore.
"""


class LiveDecay(Artifact):
    """The champion's decay on the requests of one period. `found` is None if no period can be checked."""

    alarm: bool
    reason: str
    """A sentence that names the bundle and the days. If there is an alarm, the sentence also names the worst slice."""
    smallest: float | None = None
    """The relative rise of the loss since release that would have raised an alarm with the probability `FOUND`."""
    found: DeliveryDecay | None = None
    last: date | None = None
    """The last day of the period that `found` is about."""


class Reported(Artifact):
    """The last day of the newest period that was reported, for each bundle."""

    through: dict[str, date] = Field(default_factory=dict)


@dataclass(frozen=True)
class ChampionAnswers:
    """The champion's predictions for one log file. The arrays have an entry for each row."""

    truths: NDArray[np.float64]
    answers: NDArray[np.float32]
    unseen: NDArray[np.bool_]
    """Mask of the rows with a known truth that the champion was not trained on, nor evaluated on at its release."""
    groups: NDArray[Any] | None
    """The values of `split.column`, or None if this setting is not set or the log lacks the column."""
    seen: int
    """The number of rows left out because the champion was trained on them, or evaluated on them at its release."""


@dataclass
class ChampionRows(Collected):
    """The logged rows that the champion scored, with its predictions and the true values."""

    truths: list[NDArray[np.float64]] = field(default_factory=list)
    answers: list[NDArray[np.float32]] = field(default_factory=list)
    unseen: list[NDArray[np.bool_]] = field(default_factory=list)
    groups: list[NDArray[Any]] = field(default_factory=list)
    seen: int = 0
    lack_groups: bool = False

    def add_answers(self, found: ChampionAnswers, group: str | None) -> None:
        """Add the predictions for the rows of one log file. Call `add` with the same rows first."""
        self.seen += found.seen
        self.unseen.append(found.unseen)
        self.truths.append(found.truths)
        self.answers.append(found.answers)
        self.lack_groups |= group is not None and found.groups is None
        if found.groups is not None:
            self.groups.append(found.groups)

    def forget_answers(self) -> None:
        """Free the memory of the data that only the method `period` uses."""
        for each in (self.truths, self.answers, self.unseen, self.groups):
            each.clear()

    def period(self, first: int, last: int, at: AtRelease) -> pd.DataFrame | None:
        """Return the rows from the day `first` to the day `last`, with the columns for the decay check.

        Return None if these days have no rows.
        """
        here = [mask & (first <= days) & (days <= last) for mask, days in zip(self.unseen, self.days, strict=True)]
        if not any(mask.any() for mask in here):
            return None

        def of_period(chunks: list[Any]) -> NDArray[Any]:
            return np.concatenate([chunk[mask] for chunk, mask in zip(chunks, here, strict=True)])

        answers = of_period(self.answers).astype(np.float64)
        rows = pd.DataFrame(scores(of_period(self.losses), of_period(self.truths), answers, at.bundle.schema))
        rows[TIME] = of_period(self.days).astype("datetime64[D]").astype("datetime64[s]")
        if self.groups:
            rows[GROUP] = of_period(self.groups)
        for name, values in self.slices.items():
            chunks = [chunk[mask] for chunk, mask in zip(values, here, strict=True)]
            rows[f"{SLICE}{name}"] = pd.api.types.union_categoricals(chunks, sort_categories=True)
        return rows


def champion_at_release(params: Params, model: Model, read: Callable[[], DeliveredRows], bundle: Bundle) -> AtRelease:
    """Return the champion at its release, as the reference for decay. Without rows in data/, slices are not checked.

    The function `read` returns the deliveries. Raises InputError if later losses cannot be compared with the release.
    """
    release = Release.read(artifacts.RELEASE)
    rows = None
    try:
        check_champion(bundle, release.champion)
        if artifacts.DATA.is_dir() and any(artifacts.DATA.iterdir()):
            rows = read().rows
        return at_release(rows, bundle, release, params, model)
    except CheckFailed as error:  # exit code 1 is reserved for an alarm
        raise InputError(str(error)) from None


def newest_period(days: int, as_of: int, curve: tuple[Maturity, ...]) -> tuple[int, int] | None:
    """Return the first and the last day of the newest period whose `days` days are all mature, or None."""
    lasts = range((as_of + 1) // days * days - 1, 0, -days)
    return next(((last - days + 1, last) for last in lasts if not is_young(as_of - last, curve)), None)


def earlier_periods(newest: tuple[int, int], since: int, reported: date | None) -> list[tuple[int, int]]:
    """Return the periods before the newest one that were not reported, the oldest first.

    Periods that end before the day `since` are left out. `reported` is the last day of the newest reported period.
    """
    if reported is not None:
        since = max(since, (reported - date(1970, 1, 1)).days + 1)
    days = newest[1] - newest[0] + 1
    lasts = range(newest[0] - 1, since - 1, -days)
    return [(last - days + 1, last) for last in reversed(lasts)]


def read_reported(store: LogStore) -> Reported:
    """Return the periods that were reported before. Raises InputError if their file is damaged."""
    if store.size(REPORTED) is None:
        return Reported()
    try:
        return Reported.model_validate_json(store.read(REPORTED))
    except ValidationError:
        raise InputError(f"{store.address}/{REPORTED} is damaged; delete it.") from None


def record_reported(store: LogStore, bundle: str, last: date) -> None:
    """Record the last day of a bundle's newest reported period."""
    through = read_reported(store).through | {bundle: last}
    store.write(REPORTED, Reported(through=through).model_dump_json().encode())


def live_decay(rows: ChampionRows, at: AtRelease, period: tuple[int, int] | None, params: Params) -> LiveDecay:
    """Check the champion for decay in a period (first and last day). `period` is None if no period is mature."""
    if rows.lack_groups:
        return _unjudged(f"split.column is {params.split.column}, which the log does not contain")
    if period is None:
        return _unjudged(f"no period has {MATURE:.0%} of its truths yet")
    first, last = map(as_date, period)
    now = rows.period(*period, at)
    if now is None:
        return _unjudged(f"the champion has no request with a known truth from {first} to {last}")
    found = judge(f"requests of {first} to {last}", now, at.scored, at.release, params, trained_on=rows.seen)
    smallest = smallest_found(now, at.scored, at.release, params)
    reason = reason_with_worst(found, found.delivery)
    if smallest is not None:
        reason += f"; a rise of {smallest:.1%} would have been found with a probability of {FOUND:.0%}"
    return LiveDecay(alarm=found.alarm, reason=reason, smallest=smallest, found=found, last=last)


def _unjudged(reason: str) -> LiveDecay:
    return LiveDecay(alarm=False, reason=reason)


def reason_with_worst(found: DeliveryDecay, rows: str = "") -> str:
    """Explain the result of a decay check in words. For an alarm, name the worst slice and the worst days.

    `rows` is the text that names the checked rows.
    """
    words = "".join(_worst(found)) if found.alarm else ""
    return f"bundle {found.champion[:12]}{rows and f', {rows}'}: {found.reason}{words}"


def _worst(found: DeliveryDecay) -> list[str]:
    """Describe the slice whose loss has risen most, and the days with the largest loss."""
    words = []
    compared = [part for part in found.slices if part.loss.at_most is not None and part.loss.at_release]
    if compared:
        worst = max(compared, key=lambda part: part.loss.value / (part.loss.at_release or 1))
        rise = worst.loss.value / (worst.loss.at_release or 1) - 1
        words.append(f"; the worst slice is {worst.column} {worst.value} ({rise:+.1%})")
    if len(found.periods) > 1:
        days = max(found.periods, key=lambda part: part.loss.value)
        words.append(f"; the worst days are those from {days.value} ({number(days.loss.value)})")
    return words

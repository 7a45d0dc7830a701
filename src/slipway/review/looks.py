"""Count the models that were judged on a holdout before, for the interval of the gate.

Each posted report adds a commit to the branch `reports`, whose message names the model and the holdout. Only the
workflow Comment can write to this branch. So a pull request cannot reset the count by a force push or by a new pull
request, and pull requests do not conflict.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from slipway.artifacts import Holdout, Verdict

BUNDLE = re.compile(r"[0-9a-f]{32}")
LOOK = re.compile(rf"^Judged: ({BUNDLE.pattern})(?: from (\d{{4}}-\d\d-\d\d) to (\d{{4}}-\d\d-\d\d))?$", re.MULTILINE)


@dataclass(frozen=True)
class Look:
    """A model that was judged, and the days of its holdout. They are None if rows have no time."""

    bundle: str
    first: date | None
    last: date | None

    def sees(self, holdout: Holdout) -> bool:
        """Return True if its holdout may share rows with `holdout`: they have a common day, or one has no days."""
        if self.first is None or self.last is None or holdout.first is None or holdout.last is None:
            return True
        return self.first <= holdout.last and holdout.first <= self.last


def line_about(verdict: Verdict) -> str:
    """Return the line of a commit message that records the look at the holdout, or "" if there is nothing to record.

    The verdict is not trusted. A model that is equal to the champion does not count, because it cannot ship.
    """
    if verdict.verdict == "unchanged" or not BUNDLE.fullmatch(verdict.challenger_bundle):
        return ""
    days = verdict.holdout
    return f"Judged: {verdict.challenger_bundle}" + (f" from {days.first} to {days.last}" if days.first else "")


def looks_in(log: Iterable[str]) -> list[Look]:
    """Return the looks that commit messages record, in their order."""
    found = [each for message in log for each in LOOK.findall(message)]
    return [Look(bundle, *(date.fromisoformat(day) if day else None for day in days)) for bundle, *days in found]


def number_of(looks: Iterable[Look], bundle: str, holdout: Holdout) -> int:
    """Return 1 for the first model that is judged on a holdout, 2 for the second, and so on.

    A model that is judged again keeps its number, also on `main` after other models were judged.
    """
    earlier: set[str] = set()
    for look in looks:
        if look.bundle == bundle:
            break
        if look.sees(holdout):
            earlier.add(look.bundle)
    return len(earlier) + 1

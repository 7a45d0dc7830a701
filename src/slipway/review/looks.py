"""Count the models that the gate has evaluated on a holdout.

With `gate.count_looks`, the gate's interval becomes wider with each evaluated model.

Each posted report adds a commit to the branch `reports`. The commit message names the model and the days of the
holdout. Only the workflow `Comment` can write to this branch. Neither a force push nor a new pull request can therefore
reset the count. The count is on a separate branch, so pull requests do not conflict.
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
    """A model that the gate has evaluated, and the days of its holdout. The days are None if rows have no time."""

    bundle: str
    first: date | None
    last: date | None

    def sees(self, holdout: Holdout) -> bool:
        """Return whether two holdouts can have common rows: they share a day, or one has no days."""
        if self.first is None or self.last is None or holdout.first is None or holdout.last is None:
            return True
        return self.first <= holdout.last and holdout.first <= self.last


def line_about(verdict: Verdict) -> str:
    """Return the commit message line that records the evaluation of a model, or "" if there is nothing to record.

    The verdict is not trusted. A model with the champion's predictions is not recorded, because it is not chosen by its
    loss on the holdout.
    """
    if verdict.verdict == "unchanged" or verdict.same_predictions or not BUNDLE.fullmatch(verdict.challenger_bundle):
        return ""
    days = verdict.holdout
    return f"Judged: {verdict.challenger_bundle}" + (f" from {days.first} to {days.last}" if days.first else "")


def looks_in(log: Iterable[str]) -> list[Look]:
    """Return the evaluated models that are recorded in commit messages, in the order of the messages."""
    found = [each for message in log for each in LOOK.findall(message)]
    return [Look(bundle, *(date.fromisoformat(day) if day else None for day in days)) for bundle, *days in found]


def number_of(looks: Iterable[Look], bundle: str, holdout: Holdout) -> int:
    """Return 1 for the first model that the gate evaluates on a holdout, 2 for the second, and so on.

    A model that is evaluated again, such as on `main`, keeps its number even if other models were evaluated in between.
    """
    earlier: set[str] = set()
    for look in looks:
        if look.bundle == bundle:
            break
        if look.sees(holdout):
            earlier.add(look.bundle)
    return len(earlier) + 1

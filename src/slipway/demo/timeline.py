"""What happened, when, and which model answered: plain facts, for the terminal and the page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slipway.demo.load import Outcome


@dataclass(frozen=True)
class Event:
    """`at` and `took` in seconds from the first request. `live` is the bundle that `main` says from here on, if new."""

    at: float
    took: float
    title: str
    words: str
    live: str | None = None
    page: str | None = None
    """Where more of it can be read."""


@dataclass(frozen=True)
class Judged:
    """A pull request and what it showed."""

    number: int
    title: str
    verdict: str
    reason: str
    merged: bool
    page: str


@dataclass(frozen=True)
class Reign:
    """A model that was live from `since` on: when it answered first and last, and how often. Times in seconds."""

    bundle: str
    since: float
    first: float
    last: float
    answers: int


def reigns(events: Sequence[Event], outcomes: Sequence[Outcome]) -> Iterator[Reign]:
    """The models by the order in which `main` named them; answers belong to the last naming of their bundle."""
    named = [(event.at, event.live) for event in events if event.live]
    for place, (since, bundle) in enumerate(named):
        again = [at for at, other in named[place + 1 :] if other == bundle]
        until = again[0] if again else float("inf")
        times = [each.at for each in outcomes if each.bundle == bundle and since <= each.at + each.took < until]
        if bundle and times:
            yield Reign(bundle, since, min(times), max(times), len(times))


def by_second(outcomes: Sequence[Outcome]) -> dict[str, Counter[int]]:
    """Answers in each second, by bundle; those that failed under the empty name."""
    counted: dict[str, Counter[int]] = {}
    for each in outcomes:
        counted.setdefault("" if each.failure else each.bundle or "", Counter())[int(each.at)] += 1
    return counted

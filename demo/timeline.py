"""What happened, when, and which model answered: plain facts, for the terminal and the page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demo.load import Outcome
from demo.models import Errors


@dataclass(frozen=True)
class Event:
    """What had happened by `at`, having taken `took`; in seconds, of which the first is that of the set stage."""

    at: float
    took: float
    title: str
    words: str
    page: str | None = None
    """Where more of it can be read."""


@dataclass(frozen=True)
class Played:
    """All that can be told at the end."""

    events: tuple[Event, ...]
    named: tuple[tuple[float, str], ...]
    """When `main` named which bundle as live in production."""
    outcomes: tuple[Outcome, ...]
    errors: Errors
    diff: str
    """What the commit of a release changed in the overlay."""
    history: str
    """What `slipway releases` says."""
    cluster: str | None = None
    """The context in which models ran, if in any."""

    @property
    def failures(self) -> Counter[str]:
        return Counter(each.failure for each in self.outcomes if each.failure)


@dataclass(frozen=True)
class LivePeriod:
    """A model that was live from `since` on: when it answered first and last, and how often. Times in seconds."""

    bundle: str
    since: float
    first: float
    last: float
    answers: int


def live_periods(named: Sequence[tuple[float, str]], outcomes: Sequence[Outcome]) -> Iterator[LivePeriod]:
    """The models in the order in which `main` named them; an answer belongs to the last naming of its bundle."""
    for place, (since, bundle) in enumerate(named):
        until = next((at for at, other in named[place + 1 :] if other == bundle), float("inf"))
        times = [each.at for each in outcomes if each.bundle == bundle and since <= each.at + each.took < until]
        if times:
            yield LivePeriod(bundle, since, min(times), max(times), len(times))


def by_second(outcomes: Sequence[Outcome]) -> dict[str, Counter[int]]:
    """Answers in each second, by bundle; those that failed under the empty name."""
    counted: dict[str, Counter[int]] = {}
    for each in outcomes:
        counted.setdefault("" if each.failure else each.bundle or "", Counter())[int(each.at)] += 1
    return counted

"""Collect the events, rollouts and answers of the demo, for the terminal and the page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demo.models import Errors
from slipway.release.load_client import Outcome


@dataclass(frozen=True)
class Event:
    """An event of the demo that ended at `at` and took `took` seconds. `page` is a file with details."""

    at: float
    took: float
    title: str
    words: str
    page: str | None = None


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demo shows at its end. All times are seconds since the environment was ready."""

    events: tuple[Event, ...]
    rollouts: tuple[tuple[float, str], ...]
    """Pairs of time and bundle: from this time on, `main` named this bundle for production."""
    outcomes: tuple[Outcome, ...]
    errors: Errors
    diff: str
    """The changes that a release commit makes to the overlay, as a diff."""
    history: str
    """The output of `slipway releases`."""
    cluster: str | None = None
    """The kubectl context in which models ran, if any."""

    @property
    def failures(self) -> Counter[str]:
        """The number of failed requests by reason."""
        return Counter(each.failure for each in self.outcomes if each.failure)


@dataclass(frozen=True)
class LivePeriod:
    """A model that was live from `since` on, with the times of its first and last answer and the number of answers."""

    bundle: str
    since: float
    first: float
    last: float
    answers: int


def live_periods(rollouts: Sequence[tuple[float, str]], outcomes: Sequence[Outcome]) -> Iterator[LivePeriod]:
    """Yield the periods in which models were live, in the order of their rollouts.

    If a bundle was rolled out several times, an answer belongs to the newest rollout at the time of the answer.
    """
    for place, (since, bundle) in enumerate(rollouts):
        until = next((at for at, other in rollouts[place + 1 :] if other == bundle), float("inf"))
        times = [each.at for each in outcomes if each.bundle == bundle and since <= each.at + each.took < until]
        if times:
            yield LivePeriod(bundle, since, min(times), max(times), len(times))


def by_second(outcomes: Sequence[Outcome]) -> dict[str, Counter[int]]:
    """Count the answers in each second, by bundle. Failed requests are counted under the empty text."""
    counted: dict[str, Counter[int]] = {}
    for each in outcomes:
        counted.setdefault("" if each.failure else each.bundle or "", Counter())[int(each.at)] += 1
    return counted

"""Read from Prometheus how many rows all replicas of a bundle counted in a time window.

docs/decisions/monitoring.md explains the method.
"""

from collections import defaultdict
from collections.abc import Iterable

from slipway.config import duration
from slipway.errors import InputError
from slipway.integrations.prometheus import Prometheus, Range
from slipway.monitoring.metric_counts import INFO, LABELS, Counts, Malformed, add, increase

STEPS = 12
"""Number of points in the window at which counts are read.

If a replica restarts in place, the rows that it counted between the last of these points and the restart are lost.
"""
MIN_LOOKBACK_SECONDS = 300
"""Maximum age in seconds of a scraped value, or the length of a step if longer.

The default of Prometheus is also 300 seconds. Targets must be scraped more than once in this time.
"""
BINS = sorted({label for labels in LABELS.values() for label in labels})


def read_counts(prometheus: Prometheus, label_matchers: str, bundle: str, window: str) -> Counts:
    """Return the counts of all replicas of a bundle in the window that ends now.

    `label_matchers` select the targets in Prometheus. Raises InputError if Prometheus has no counts of this bundle.
    """
    step = round(duration(window) / STEPS, 3)
    end = prometheus.now()
    back = f"[{max(MIN_LOOKBACK_SECONDS, round(step))}s]"
    matchers = f",{label_matchers}" if label_matchers else ""
    last = f'last_over_time({{__name__=~"{"|".join(LABELS)}"{matchers}}}{back})'
    # A target can change its bundle. Moments at which a target has two bundles are skipped.
    same = f"ignoring (name, bundle, {', '.join(BINS)})"
    this, others = (f'last_over_time({INFO}{{bundle{sign}"{bundle}"}}{back})' for sign in ("=", "!="))
    found = prometheus.ranges(f"{last} and {same} {this} unless {same} {others}", end - STEPS * step, end, step)
    if not found:
        raise InputError(
            f"{prometheus.url} has no counts of the champion {bundle} in the last {window}{_others(prometheus, end)}."
        )
    try:
        return _sum(found, end - STEPS * step + step / 2)
    except Malformed as error:
        raise InputError(f"{prometheus.url} {error}; let it scrape servers of one release of Slipway.") from None


def _others(prometheus: Prometheus, end: float) -> str:
    found = prometheus.ranges(f"group by (bundle) ({INFO})", end, end, 1)
    names = sorted(each.metric.get("bundle", "?")[:40] for each in found)
    return f"; its targets serve {', '.join(names)}" if names else "; it scrapes no server of Slipway"


def _sum(found: Iterable[Range], first: float) -> Counts:
    """Add up the rows that all replicas counted in the window. Counts from before the time `first` are subtracted."""
    replicas: defaultdict[frozenset[tuple[str, str]], defaultdict[float, Counts]]
    replicas = defaultdict(lambda: defaultdict(Counts))
    for each in found:
        metric = each.metric.get("__name__", "")
        if metric not in LABELS:
            raise Malformed(f"answers with {metric or 'a series without a name'}, which was not requested")
        target = frozenset((name, value) for name, value in each.metric.items() if name not in ("__name__", *BINS))
        for moment, value in each.values:
            add(replicas[target][moment], metric, each.metric, _number(value))
    total = Counts()
    for moments in replicas.values():
        earlier = next((moments[moment] for moment in moments if moment < first), Counts())
        total.update(increase(earlier, (moments[moment] for moment in sorted(moments) if moment >= first)))
    return total


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Malformed(f"answers with the value {value[:40]!r}, which is not a number") from None

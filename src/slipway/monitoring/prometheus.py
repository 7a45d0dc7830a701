"""Read from Prometheus what the replicas of a bundle counted within a window (docs/decisions/monitoring.md)."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Generic, Literal, TypeVar

import requests
from pydantic import BaseModel, Field, ValidationError
from urllib3.exceptions import HTTPError

from slipway.config import ADDRESS, WINDOW
from slipway.errors import InputError
from slipway.monitoring.metric_counts import INFO, LABELS, Counts, Malformed, add, increase

STEPS = 12
"""Looks into the window; what a replica counts between a look and being restarted in place is lost."""
SHORTEST_LOOK = 300
"""Seconds that a look goes back at least, as Prometheus itself does: scrapes are no farther apart."""
QUERY_TIMEOUT_SECONDS = 120
MAX_BYTES = 256 * 2**20
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
BINS = sorted({label for labels in LABELS.values() for label in labels})


class _Range(BaseModel):
    """One series over time."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Ranges(BaseModel):
    resultType: Literal["matrix"]  # noqa: N815
    result: list[_Range]


class _Scalar(BaseModel):
    resultType: Literal["scalar"]  # noqa: N815
    result: tuple[Annotated[float, Field(gt=0, lt=1e11)], str]


Data = TypeVar("Data", _Ranges, _Scalar)


class _Answer(BaseModel, Generic[Data]):
    data: Data


class Prometheus:
    """The HTTP API of a server. `label_matchers` are label matchers that say which of its targets count, or nothing."""

    def __init__(self, url: str, label_matchers: str, token: str | None) -> None:
        if not re.search(ADDRESS, url):
            raise InputError(f"{url!r} is no address of a Prometheus; give it as http://prometheus.example.com:9090.")
        self._url = url.rstrip("/")
        self._label_matchers = f",{label_matchers}" if label_matchers else ""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def counts(self, bundle: str, window: str) -> Counts:
        """What the replicas of a bundle counted within the window that ends now.

        Raises InputError where Prometheus does not answer, answers with something else, or knows no such replica.
        """
        if not re.search(WINDOW, window):
            raise InputError(f"{window!r} is no window; give it as 90m, 12h or 7d.")
        end = self._get("query", _Answer[_Scalar], query="time()").result[0]
        step = round(int(window[:-1]) * UNIT_SECONDS[window[-1]] / STEPS, 3)
        look = f"[{max(SHORTEST_LOOK, round(step))}s]"
        last = f'last_over_time({{__name__=~"{"|".join(LABELS)}"{self._label_matchers}}}{look})'
        # One address may answer with one bundle after the other; a look that sees both is at neither.
        same = f"ignoring (name, bundle, {', '.join(BINS)})"
        this, others = (f'last_over_time({INFO}{{bundle{sign}"{bundle}"}}{look})' for sign in ("=", "!="))
        found = self._ranges(f"{last} and {same} {this} unless {same} {others}", end - STEPS * step, end, step)
        if not found:
            raise InputError(
                f"{self._url} has no counts of the champion, {bundle}, of the last {window}{self._known(end)}."
            )
        try:
            return _sum(found, end - STEPS * step + step / 2)
        except Malformed as error:
            raise InputError(f"{self._url} {error}; let it scrape servers of one release of Slipway.") from None

    def _known(self, end: float) -> str:
        found = self._ranges(f"group by (bundle) ({INFO})", end, end, 1)
        names = sorted(each.metric.get("bundle", "?")[:40] for each in found)
        return f", and answers now with {', '.join(names)}" if names else "; it scrapes no server of Slipway"

    def _ranges(self, query: str, start: float, end: float, step: float) -> list[_Range]:
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._get("query_range", _Answer[_Ranges], query=query, **times).result

    def _get(self, path: str, expected: type[_Answer[Data]], **parameters: str) -> Data:
        content, deadline = bytearray(), time.monotonic() + QUERY_TIMEOUT_SECONDS
        address = f"{self._url}/api/v1/{path}"
        try:
            with requests.get(
                address, parameters, timeout=QUERY_TIMEOUT_SECONDS, headers=self._headers, stream=True
            ) as answer:
                while more := answer.raw.read1(2**16, decode_content=True):
                    content += more
                    if len(content) > MAX_BYTES or time.monotonic() > deadline:
                        raise InputError(f"{self._url} answers with too much, or too slowly; shorten drift.window.")
        except (requests.RequestException, HTTPError, OSError) as error:
            raise InputError(f"{self._url} does not answer ({type(error).__name__}); correct the address.") from None
        if answer.status_code != requests.codes.ok:
            words = " ".join(content[:300].decode(errors="replace").split())
            raise InputError(f"{self._url} answers with status {answer.status_code}: {words}")
        try:
            return expected.model_validate_json(content).data
        except ValidationError as error:
            words = error.errors()[0]["msg"]
            raise InputError(
                f"{self._url} answers, and not as Prometheus does ({words}); correct the address."
            ) from None


def _sum(found: Iterable[_Range], first: float) -> Counts:
    """Over replicas, what each counted; a look before the time `first` is at what it had counted earlier."""
    replicas: defaultdict[frozenset[tuple[str, str]], defaultdict[float, Counts]]
    replicas = defaultdict(lambda: defaultdict(Counts))
    for each in found:
        metric = each.metric.get("__name__", "")
        if metric not in LABELS:
            raise Malformed(f"answers with {metric or 'a series without a name'}, which was not asked for")
        looks = replicas[
            frozenset((name, value) for name, value in each.metric.items() if name not in ("__name__", *BINS))
        ]
        for moment, value in each.values:
            add(looks[moment], metric, each.metric, _number(value))
    total = Counts()
    for looks in replicas.values():
        earlier = next((looks[moment] for moment in looks if moment < first), Counts())
        total.update(increase(earlier, (looks[moment] for moment in sorted(looks) if moment >= first)))
    return total


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Malformed(f"answers with the value {value[:40]!r}, which is no number") from None

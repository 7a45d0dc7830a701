"""Generate open-loop load: requests are sent at their due time, even if earlier requests are still unanswered.

A large number of independent clients behaves in this way. Arrivals are a Poisson process. A request uses a free
keep-alive connection, or opens a new connection if fewer than `most` connections are open. Otherwise it waits, and the
wait is part of its latency. A request is never sent twice. Requests that were not sent or not answered are counted by
reason.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

BURST = 32  # arrivals sent at once before answers are read
clock = time.perf_counter


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of an HTTP request."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


@dataclass
class Outcome:
    """The results of one load. The lists have one entry for each answer. Times are in seconds of `clock`."""

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    arrivals: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by reason."""
    started: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(self.status).items()))

    def milliseconds(self, percentile: float, statuses: Iterable[int], *, since_due: bool = False) -> float:
        """Return a percentile of the latency, for the answers with these statuses, or NaN if there are no such answers.

        The latency starts when the request is sent, or with `since_due` at the time when it was due.
        """
        chosen = np.isin(self.status, list(statuses))
        if not chosen.any():
            return float("nan")
        since = np.array(self.due if since_due else self.sent)
        return float(np.percentile((np.array(self.answered) - since)[chosen], percentile) * 1e3)


@dataclass
class _Request:
    outcome: Outcome
    wire: bytes
    due: float
    sent: float = 0.0


class _Connection(asyncio.Protocol):
    """A keep-alive connection with at most one unanswered request."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients
        self._transport: asyncio.Transport
        self._request: _Request | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    @property
    def busy(self) -> bool:
        return self._request is not None

    @property
    def closing(self) -> bool:
        """True if the connection is closed or closing."""
        return self._transport.is_closing()

    def send(self, request: _Request) -> None:
        self._request = request
        request.sent = clock()
        self._transport.write(request.wire)

    def give_up(self, why: str) -> None:
        """Close the connection. If a request is unanswered, it counts as a failure with the reason `why`."""
        if self._request is not None:
            self._fail(why)
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._received = data
            return
        head = data[:end].lower()
        length = _content_length(head)
        if len(data) < end + 4 + length:
            self._received = data
            return
        self._received = b""
        request, self._request = self._request, None
        if request is None:
            self._clients.unexpected += 1
            return
        outcome = request.outcome
        outcome.due.append(request.due)
        outcome.sent.append(request.sent)
        outcome.answered.append(clock())
        outcome.status.append(int(data[9:12]))
        if b"\r\nconnection: close" in head:
            self._transport.close()
        else:
            self._clients.free(self)
        self._clients.settled()

    def connection_lost(self, error: Exception | None) -> None:
        if self._request is not None:
            how = "reset" if error else "closed"
            when = "in the middle of the answer" if self._received else "before an answer"
            self._fail(f"{how} {when}")
        self._clients.lost(self)

    def _fail(self, why: str) -> None:
        assert self._request is not None
        self._request.outcome.failures[why] += 1
        self._request = None
        self._clients.settled()


def _content_length(head: bytes) -> int:
    start = head.index(b"\r\ncontent-length:") + 17
    end = head.find(b"\r\n", start)
    return int(head[start : end if end >= 0 else None])


class Clients:
    """The connections to one port, and the requests that wait for a connection.

    A free connection is chosen at random.
    """

    def __init__(self, port: int, wires: Sequence[bytes], most: int, seed: int = 0) -> None:
        self.unexpected = 0
        """Number of answers that belong to no request."""
        self._port = port
        self._wires = wires
        self._most = most
        self._random = random.Random(seed)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting = 0
        self._waiting: deque[_Request] = deque()
        self._under_way = 0
        self._all_settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def offer(self, rate: float, until: Callable[[float], bool]) -> Outcome:
        """Send `rate` requests per second until `until` returns True for the elapsed seconds.

        Does not wait for the last answers. `settle` waits for them and adds them to the outcome. Requests that still
        wait for a connection at the end are dropped and counted as failures.
        """
        outcome = Outcome(started=clock())
        due = outcome.started
        while not until(clock() - outcome.started):
            burst = 0
            while due <= clock() and burst < BURST:
                self._arrive(outcome, due)
                due += self._random.expovariate(rate)
                burst += 1
            await asyncio.sleep(max(0.0, min(due - clock(), 0.1)))
        outcome.ended = clock()
        self._under_way -= len(self._waiting)
        for request in self._waiting:
            request.outcome.failures["not sent, as no connection was free"] += 1
        self._waiting.clear()
        late = int((outcome.ended - due) * rate)
        if late > 0:
            outcome.arrivals += late
            outcome.failures["not sent, as the generator was too slow"] += late
        return outcome

    async def settle(self, seconds: float) -> None:
        """Wait for all answers, at most for `seconds`. Then count requests that are still unanswered as failures."""
        self._all_settled.clear()
        if self._under_way:
            try:
                await asyncio.wait_for(self._all_settled.wait(), seconds)
            except TimeoutError:
                for connection in [*self._open]:
                    if connection.busy:
                        connection.give_up(f"no answer within {seconds:g} s")

    async def close(self) -> None:
        """Close all connections."""
        for connection in [*self._open]:
            connection.give_up("closed by the client")
        await asyncio.sleep(0.05)

    def free(self, connection: _Connection) -> None:
        """Send the next waiting request on this connection, or keep the connection for later."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def settled(self) -> None:
        """Record that one request is finished."""
        self._under_way -= 1
        if not self._under_way:
            self._all_settled.set()

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect()

    def _arrive(self, outcome: Outcome, due: float) -> None:
        request = _Request(outcome, self._wires[outcome.arrivals % len(self._wires)], due)
        outcome.arrivals += 1
        self._under_way += 1
        while self._idle:
            chosen = self._random.randrange(len(self._idle))
            self._idle[chosen], self._idle[-1] = self._idle[-1], self._idle[chosen]
            connection = self._idle.pop()
            if not connection.closing:
                connection.send(request)
                return
        self._waiting.append(request)
        self._connect()

    def _connect(self) -> None:
        if len(self._open) + self._connecting < self._most:
            self._connecting += 1
            task = asyncio.get_running_loop().create_task(self._connected())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), "127.0.0.1", self._port
            )
        except OSError as error:
            self._connecting -= 1
            if self._waiting:
                self._waiting.popleft().outcome.failures[f"no connection ({type(error).__name__})"] += 1
                self.settled()
            return
        self._connecting -= 1
        self._open.add(connection)
        self.free(connection)

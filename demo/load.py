"""Requests all the time, each counted: when it was sent, how long it took, and which model answered."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CLIENTS = 4
PAUSE = 0.1
"""Seconds between an answer and the next request of a client."""
REQUESTS_A_CONNECTION = 40
"""Then a client opens a new one, as browsers and services come and go."""


@dataclass(frozen=True)
class Outcome:
    """`at` and `took` in seconds; `bundle` answered, or `failure` says why nothing good came."""

    at: float
    took: float
    bundle: str | None
    failure: str | None


class Load:
    """What clients of the address `port` saw; times are those of `clock`."""

    def __init__(self, port: int, rows: Sequence[dict[str, Any]], clock: float) -> None:
        self.port, self.clock = port, clock
        self._bodies = itertools.cycle([json.dumps(row).encode() for row in rows])
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._over = threading.Event()

    @contextmanager
    def sending(self) -> Generator["Load", None, None]:
        """Send until the block ends; a request that is under way then is waited for."""
        clients = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield self
        finally:
            self._over.set()
            for client in clients:
                client.join()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(self._outcomes)

    def answering(self) -> str | None:
        """The bundle of the last answer."""
        return next((each.bundle for each in reversed(self.outcomes) if each.bundle), None)

    def _client(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            for _ in range(REQUESTS_A_CONNECTION):
                outcome = self._ask(connection)
                self._outcomes.append(outcome)
                if self._over.wait(PAUSE) or outcome.failure:
                    break
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> Outcome:
        """One request; none is sent a second time."""
        with self._lock:
            body = next(self._bodies)
        began = time.monotonic()
        bundle = failure = None
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            bundle = answer.headers["slipway-bundle"]
            if answer.status != 200 or "prediction" not in json.loads(content):
                bundle, failure = None, f"status {answer.status}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = type(error).__name__
        now = time.monotonic()
        return Outcome(began - self.clock, now - began, bundle, failure)

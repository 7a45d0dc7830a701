"""Send requests to a local server with several clients, and record the outcome of each request."""

import itertools
import json
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from slipway.errors import CheckFailed

CLIENTS = 4
PAUSE_AFTER_FAILURE = 0.01
"""Seconds to wait after a failed request."""
PREDICTIONS = {"/predict": "prediction", "/invocations": "predictions"}
"""The JSON key of the predictions in an answer, by the path of the request. Other paths belong to the Open
Inference Protocol, which uses `outputs`.
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request: the time when it was sent and its duration, in seconds.

    `bundle` is the hash of the model that answered. If the request failed, `bundle` is None, and `failure` is the
    reason.
    """

    at: float
    took: float
    bundle: str | None
    failure: str | None


class LoadClient:
    """Clients that send prediction requests to a local port and record the outcomes.

    Each client sends `bodies` one after the other, with a pause of `pause` seconds after each request. A client opens a
    new connection after `requests_per_connection` requests, and after a failure. Times are in seconds
    since `clock`, measured with time.monotonic().
    """

    def __init__(
        self,
        port: int,
        bodies: Sequence[bytes],
        pause: float = 0.0,
        requests_per_connection: int | None = None,
        clock: float = 0.0,
        path: str = "/predict",
    ) -> None:
        self.port, self.pause, self.requests_per_connection, self.clock = port, pause, requests_per_connection, clock
        self.path = path
        self._bodies = itertools.cycle(bodies)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._outcomes: list[Outcome] = []

    @contextmanager
    def sending(self) -> Generator["LoadClient", None, None]:
        """Send requests until the `with` block ends, and wait for the last answers."""
        threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of all requests so far, in the order of the answers."""
        return tuple(self._outcomes)

    @property
    def failures(self) -> list[str]:
        """The reasons of the failed requests."""
        return [each.failure for each in self.outcomes if each.failure]

    @property
    def last_bundle(self) -> str | None:
        """The bundle that answered the newest request."""
        return next((each.bundle for each in reversed(self.outcomes) if each.bundle), None)

    def _send(self) -> None:
        while not self._stopped.is_set():
            connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
            for _ in itertools.islice(itertools.count(), self.requests_per_connection):
                outcome = self._predict(connection)
                self._outcomes.append(outcome)
                pause = max(self.pause, PAUSE_AFTER_FAILURE) if outcome.failure else self.pause
                if self._stopped.wait(pause) or outcome.failure:
                    break
            connection.close()

    def _predict(self, connection: HTTPConnection) -> Outcome:
        """Send one prediction request, without retries."""
        with self._lock:
            body = next(self._bodies)
        began = time.monotonic()
        bundle = failure = None
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            bundle = answer.headers["slipway-bundle"]
            if answer.status != 200 or PREDICTIONS.get(self.path, "outputs") not in json.loads(content):
                bundle, failure = None, f"status {answer.status}"
        except (OSError, HTTPException, ValueError) as error:
            bundle, failure = None, type(error).__name__
        return Outcome(began - self.clock, time.monotonic() - began, bundle, failure)


def is_ready(port: int) -> bool:
    """Return True if the server on a local port passes its readiness probe."""
    try:
        return _exchange(HTTPConnection("127.0.0.1", port, timeout=2), "GET", "/readyz")[0] == 200
    except (OSError, HTTPException):
        return False


def ask(port: int, method: str, path: str, content: Any = None, *, seconds: float = 10) -> Any:
    """Send one request, and return the JSON of the answer. Raise CheckFailed if the status is not 200."""
    body = None if content is None else json.dumps(content).encode()
    try:
        return json.loads(_answer(port, method, path, body, seconds))
    except ValueError as error:
        raise CheckFailed(f"{path} does not answer: {error}.") from None


def ask_text(port: int, path: str) -> str:
    """Send one GET request and return the text of the answer. Raise CheckFailed if the status is not 200."""
    return _answer(port, "GET", path, None, 10).decode()


def _answer(port: int, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
    try:
        status, answer = _exchange(HTTPConnection("127.0.0.1", port, timeout=seconds), method, path, body)
    except (OSError, HTTPException) as error:
        raise CheckFailed(f"{path} does not answer: {error}.") from None
    if status != 200:
        raise CheckFailed(f"{path} answers with status {status}: {answer.decode(errors='replace')[:200]}")
    return answer


def _exchange(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()

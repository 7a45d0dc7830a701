"""Clients that send requests to a local server and count the failures."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any

from slipway.errors import CheckFailed

CLIENTS = 4


def is_ready(port: int) -> bool:
    """Return whether the cluster would send requests to the server."""
    try:
        return _exchange(HTTPConnection("127.0.0.1", port, timeout=2), "GET", "/readyz")[0] == 200
    except (OSError, HTTPException):
        return False


def ask(port: int, method: str, path: str, content: Any = None) -> Any:
    """Send a request, and return the JSON of the answer. Raise CheckFailed unless its status is 200."""
    try:
        body = None if content is None else json.dumps(content).encode()
        status, answer = _exchange(HTTPConnection("127.0.0.1", port, timeout=10), method, path, body)
        if status == 200:
            return json.loads(answer)
    except (OSError, HTTPException, ValueError) as error:
        raise CheckFailed(f"{path} does not answer: {error}.") from None
    raise CheckFailed(f"{path} answers with status {status}: {answer.decode(errors='replace')[:200]}")


class Seen:
    """The outcomes of the requests that clients have sent."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._outcomes: list[str | None] = []

    @property
    def sent(self) -> int:
        return len(self._outcomes)

    @property
    def failures(self) -> list[str]:
        """The reason of each failure."""
        return [outcome for outcome in self._outcomes if outcome]

    def send(self, port: int, body: bytes) -> None:
        """Send requests on one connection. Open a new one when the server closes it."""
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        while not self.over.is_set():
            try:
                status, _ = _exchange(connection, "POST", "/predict", body)
                self._outcomes.append(None if status == 200 else f"status {status}")
            except (OSError, HTTPException) as error:
                self._outcomes.append(type(error).__name__)
                connection.close()
                time.sleep(0.01)
        connection.close()


@contextmanager
def load(port: int, body: bytes) -> Iterator[Seen]:
    """Run clients that request predictions until the block ends."""
    seen = Seen()
    clients = [threading.Thread(target=seen.send, args=(port, body), daemon=True) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        seen.over.set()
        for client in clients:
            client.join()


def _exchange(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()

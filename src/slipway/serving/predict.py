"""The hot routes: from a whole request for predictions to its whole answer, without a framework and without waiting.

A framework's way from request to function costs more than the model does. `connections` asks here for requests that
arrive in one piece, which nearly all do; `application` for the others.
"""

import asyncio
import logging
import os
import re
import time
import traceback
from collections.abc import Callable
from itertools import count

import msgspec
from msgspec import Struct

from slipway.serving.problems import MEDIA_TYPE, Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.served_model import LiveModel
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

Headers = list[tuple[bytes, bytes]]
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # https://www.w3.org/TR/trace-context/
JSON = b"application/json"
RETRY = ("retry-after", "1")
CLOSE = ("connection", "close")
LATE = Problem(503, "The server has more requests than it can answer in time; try again.", headers=[RETRY])


class Answer(Struct, frozen=True):
    status: int
    head: bytes
    """The lines of its headers as they are sent, but for `Connection: close`."""
    body: bytes
    close: bool = False

    @property
    def headers(self) -> Headers:
        """All of them, in pairs."""
        pairs = [tuple(line.split(b": ", 1)) for line in self.head.splitlines()]
        return [*pairs, (b"connection", b"close")] if self.close else pairs  # type: ignore[list-item, return-value]


class Route(Struct, frozen=True):
    path: str
    name: str
    """For telemetry."""
    predict: Callable[[bytes], bytes]


class LoadShedder:
    """What the event loop does about the requests that it finds waiting, until it looks for others.

    In processor time, not by the clock: when the machine gives the core to somebody else for a while, those that waited
    have not become more.
    """

    def __init__(self, most_seconds: float) -> None:
        self._most = most_seconds
        self._began: float | None = None
        self._began_by_clock = 0.0
        self._is_long = False

    def is_long(self) -> bool:
        """Whether more than enough was worked in this turn. The first to ask begins it."""
        if self._began is None:
            self._began, self._began_by_clock = time.thread_time(), time.monotonic()
            asyncio.get_running_loop().call_soon(self._end)
        # No more was worked than has passed; and to ask for the time that passed is no call to the kernel.
        elif not self._is_long and time.monotonic() - self._began_by_clock > self._most:
            self._is_long = time.thread_time() - self._began > self._most
        return self._is_long

    def _end(self) -> None:
        self._began, self._is_long = None, False


class Hot:
    """Answers requests for predictions. `draining` is the server's to set."""

    def __init__(self, model: LiveModel, settings: Settings) -> None:
        self.draining = False
        self.telemetry = model.telemetry
        self._settings = settings
        infer = Infer(model)
        path = f"/v2/models/{model.name}"
        routes = [
            Route("/predict", "/predict", Predict(model)),
            Route("/invocations", "/invocations", Invocations(model)),
            Route(f"{path}/infer", "/v2/infer", infer),
            Route(f"{path}/versions/{model.hash}/infer", "/v2/infer", infer),
        ]
        self.routes = {route.path: route for route in routes}
        self.urls = {route.path.encode(): route for route in routes}
        self._head = b"x-request-id: %%b\r\nslipway-bundle: %b\r\n" % model.hash.encode()
        prefix = os.urandom(8).hex().encode()
        self._ids = map((prefix + b"-%x").__mod__, count())
        self.load_shedder = LoadShedder(settings.max_wait)
        """What comes after so much work that its turn is long is refused, with `LATE` and at the least cost."""

    def answer(self, route: Route, method: str, sent: dict[bytes, bytes], body: bytes) -> Answer:
        """The answer to a request that has arrived whole."""
        try:
            self.check(method, sent)
            self.check_size(len(body))
            return self.made(sent, 200, JSON, route.predict(body))
        except Problem as problem:
            return self.refusal(sent, problem)
        except Exception as error:
            return self.mistake(sent, error)

    def check(self, method: str, sent: dict[bytes, bytes]) -> None:
        """Raise Problem for a request that needs no reading to be refused."""
        if method != "POST":
            raise Problem(405, "Send the records with POST.", headers=[("allow", "POST")])
        media = sent.get(b"content-type", JSON)
        if media != JSON and media.partition(b";")[0].strip().lower() != JSON:
            raise Problem(415, "Send JSON, with `Content-Type: application/json`.")
        if b"content-encoding" in sent or b"inference-header-content-length" in sent:
            raise Problem(415, "Send plain JSON, neither compressed nor with binary tensors.")

    def check_size(self, size: int) -> None:
        if size > self._settings.max_body:
            raise Problem(413, f"The body is larger than {self._settings.max_body} bytes; split it.", headers=[CLOSE])

    def made(self, sent: dict[bytes, bytes], status: int, media: bytes, body: bytes) -> Answer:
        """An answer with the headers that every answer has."""
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n" % (self.head(sent), media, len(body))
        return Answer(status, head, body, self.draining)

    def head(self, sent: dict[bytes, bytes]) -> bytes:
        """The lines of the headers that have to do with the request and the model."""
        given = sent.get(b"x-request-id")
        known = given if given is not None and REQUEST_ID.fullmatch(given) else next(self._ids)
        head = self._head % known
        trace = sent.get(b"traceparent")
        if trace is not None and TRACEPARENT.fullmatch(trace):
            head += b"traceparent: %b\r\n" % trace
        return head

    def refusal(self, sent: dict[bytes, bytes], problem: Problem) -> Answer:
        answer = self.made(sent, problem.status, MEDIA_TYPE, problem.body())
        more = [f"{name}: {value}\r\n".encode() for name, value in problem.headers if (name, value) != CLOSE]
        close = answer.close or CLOSE in problem.headers
        return msgspec.structs.replace(answer, head=answer.head + b"".join(more), close=close)

    def mistake(self, sent: dict[bytes, bytes], error: Exception) -> Answer:
        """A mistake of ours. Its message may hold what the client sent, which is never logged; where it arose is."""
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("unexpected error", extra={"error": type(error).__name__, "traceback": where})
        return self.refusal(sent, Problem(500, "The server made a mistake; its log says where."))

    def note(self, route: str, path: str, method: str, answer: Answer, seconds: float) -> None:
        """Count an answer, and log it if the settings say so."""
        self.telemetry.answered(route, answer.status, seconds)
        if self._settings.log_requests:
            fields = {"method": method, "path": path, "status": answer.status, "seconds": round(seconds, 6)}
            for name, value in answer.headers:
                if name in (b"x-request-id", b"traceparent"):
                    fields[name.decode()] = value.decode()
            logger.info("request", extra=fields)

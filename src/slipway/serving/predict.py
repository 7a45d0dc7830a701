"""Answer prediction requests without a web framework, because a framework would take more time than the model.

`http_protocol` calls this module for requests that arrive in one piece, which are nearly all requests. `asgi` calls it
for requests that arrive in several pieces.
"""

import asyncio
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from slipway.serving.binary_tensors import HEADER, as_json
from slipway.serving.problems import MEDIA_TYPE, Problem
from slipway.serving.protocols import Infer, Invocations, Predict, PredictionProtocol
from slipway.serving.runs import ONE_RUN_EACH, Job, Plan, Predictions, Runs
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # https://www.w3.org/TR/trace-context/
JSON = b"application/json"
RETRY = ("retry-after", "1")
CLOSE = ("connection", "close")
MIN_VALUE_BYTES = 2
"""Minimum number of bytes of a value in a request body: a digit and a comma."""
OVERLOADED = Problem(503, "The server has more requests than it can answer in time; try again.", headers=[RETRY])


class Predicted(Struct, frozen=True, gc=False):
    """The rows of an answered request, for the prediction log."""

    values: Sequence[Any]
    """The values of the row, or of each column if the request has several rows, as the client sent them."""
    is_single: bool
    size: int
    """Size of the request body in bytes."""
    predictions: Predictions


class Answer(Struct, frozen=True):
    """An HTTP response. `head` contains all header lines except `Connection: close`, which `close` adds."""

    status: int
    head: bytes
    body: bytes
    close: bool = False
    predicted: Predicted | None = None
    """The rows to log, or None if there is no log or no prediction."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers, as pairs of name and value."""
        pairs = [tuple(line.split(b": ", 1)) for line in self.head.splitlines()]
        return [*pairs, (b"connection", b"close")] if self.close else pairs  # type: ignore[list-item, return-value]


class Route(Struct, frozen=True):
    """A path, its name in the metrics, and its protocol."""

    path: str
    name: str
    protocol: PredictionProtocol


class LoadShedder:
    """Detects overload: the work in one iteration of the event loop plus the queued work exceeds a limit.

    One iteration reads all requests that have arrived, and answers most of them at once. Work is measured as CPU time,
    because elapsed time includes the time in which other processes use the core. Reading the CPU time is a system call,
    and most iterations have only one request. The measurement therefore starts at the second request of an iteration.
    """

    def __init__(self, max_seconds: float, runs: Runs) -> None:
        self.is_busy = False
        """True if several requests have arrived in this iteration, or arrived in the previous one that had requests."""
        self._runs = runs
        self._max = max_seconds
        self._requests = 0
        self._began = self._began_by_clock = 0.0
        self._is_overloaded = False

    def is_overloaded(self) -> bool:
        """Return whether the work exceeds the limit. Call this method once for each request."""
        self._requests += 1
        waiting = self._runs.waiting_seconds
        if self._requests == 1:
            self._began_by_clock = time.monotonic()
            asyncio.get_running_loop().call_soon(self._end)
            self._is_overloaded = waiting > self._max
        elif self._requests == 2:
            self._began, self.is_busy = time.thread_time(), True
        # CPU time cannot exceed elapsed time. Elapsed time is checked first, because reading it needs no system call.
        elif not self._is_overloaded and time.monotonic() - self._began_by_clock + waiting > self._max:
            self._is_overloaded = time.thread_time() - self._began + waiting > self._max
        return self._is_overloaded

    def _end(self) -> None:
        self.is_busy, self._requests, self._is_overloaded = self._requests > 1, 0, False


class Log(Protocol):
    """The prediction log (`prediction_log.PredictionLog`)."""

    def add(self, answer: Answer, predicted: Predicted, seconds: float) -> None:
        """Add the rows of a request that was answered within a number of seconds."""


class PredictionHandler:
    """Answers prediction requests, and passes them to the log if there is one. The server sets `draining`."""

    def __init__(
        self, model: ServedModel, settings: Settings, plan: Plan = ONE_RUN_EACH, log: Log | None = None
    ) -> None:
        self.draining = False
        self._model = model
        self._log = log
        model.records.keeps_values = log is not None
        self.metrics = model.metrics
        self.runs = Runs(model, plan, settings.max_records)
        required = sum(column.required for column in model.schema.columns)
        self.max_direct_body = max(1, required) * MIN_VALUE_BYTES * plan.max_rows if self.runs.cuts else sys.maxsize
        """Body size in bytes up to which all rows certainly fit into one run of the model graph."""
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
        self.load_shedder = LoadShedder(settings.max_wait, self.runs)

    def answer(self, route: Route, method: str, headers: dict[bytes, bytes], body: bytes) -> Answer:
        """Answer a complete request."""
        try:
            self.check(method, headers)
            self.check_size(len(body))
            if HEADER in headers:
                body = as_json(body, headers[HEADER], route.protocol)
            text = route.protocol(body)
            if self._log is None:
                return self.respond(headers, 200, JSON, text)
            predicted = Predicted(*self._model.records.take_values(), len(body), self._model.predictions)
            return self.respond(headers, 200, JSON, text, predicted)
        except Exception as error:
            return self.explain(headers, error)

    @property
    def queues(self) -> bool:
        """Return whether a new request must wait in a queue, to share a model run or to take turns with others."""
        return (self.load_shedder.is_busy or self.runs.is_contended) and (self.runs.plan.is_shared or self.runs.cuts)

    def submit(
        self,
        route: Route,
        method: str,
        headers: dict[bytes, bytes],
        body: bytes,
        since: float,
        send: Callable[[Answer], None],
    ) -> Job | None:
        """Read a complete request, and queue its rows. `send` receives the response after the model run.

        If the model is slow, and not all queued requests fit into one run, those with the lowest `since` are run first.

        Returns the queued job. If the request is refused, `send` receives the response at once, and None is returned.
        """
        try:
            self.check(method, headers)
            self.check_size(len(body))
            if HEADER in headers:
                body = as_json(body, headers[HEADER], route.protocol)
            tensors, form = route.protocol.read(body)
        except Exception as error:
            send(self.explain(headers, error))
            return None
        rows = len(next(iter(tensors.values())))
        if rows > self.runs.plan.max_rows and self.runs.seconds_ahead(rows) > self._settings.max_wait:
            send(self.refuse(headers, OVERLOADED))
            return None
        if rows == 1:  # the next request with a single record overwrites these tensors
            tensors = {name: each.copy() for name, each in tensors.items()}
        values = None if self._log is None else (*self._model.records.take_values(), len(body))
        return self.runs.add(tensors, rows, since, partial(self._finish, route, headers, form, values, send))

    def _finish(
        self,
        route: Route,
        headers: dict[bytes, bytes],
        form: Any,
        values: tuple[Sequence[Any], bool, int] | None,
        send: Callable[[Answer], None],
        result: Predictions | Exception,
    ) -> None:
        if isinstance(result, Exception):
            send(self.explain(headers, result))
            return
        try:
            predicted = None if values is None else Predicted(*values, result)
            answer = self.respond(headers, 200, JSON, route.protocol.write(result, form), predicted)
        except Exception as error:
            answer = self.explain(headers, error)
        send(answer)

    def check(self, method: str, headers: dict[bytes, bytes]) -> None:
        """Raise Problem for a method or headers that are not supported."""
        if method != "POST":
            raise Problem(405, "Send the records with POST.", headers=[("allow", "POST")])
        media = headers.get(b"content-type", JSON)
        if media != JSON and media.partition(b";")[0].strip().lower() != JSON and HEADER not in headers:
            raise Problem(415, "Send JSON, with `Content-Type: application/json`.")
        if b"content-encoding" in headers:
            raise Problem(415, "Send the body without compression.")

    def check_size(self, size: int) -> None:
        """Raise Problem for a body that is too large."""
        if size > self._settings.max_body:
            raise Problem(413, f"The body is larger than {self._settings.max_body} bytes; split it.", headers=[CLOSE])

    def respond(
        self,
        headers: dict[bytes, bytes],
        status: int,
        media: bytes,
        body: bytes,
        predicted: Predicted | None = None,
    ) -> Answer:
        """Return a response with the given status and body, and with the headers that every response has."""
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n" % (self.head(headers), media, len(body))
        return Answer(status, head, body, self.draining, predicted)

    def head(self, headers: dict[bytes, bytes]) -> bytes:
        """Return the header lines that identify the request (its id and trace) and the served model."""
        given = headers.get(b"x-request-id")
        request_id = given if given is not None and REQUEST_ID.fullmatch(given) else next(self._ids)
        head = self._head % request_id
        trace = headers.get(b"traceparent")
        if trace is not None and TRACEPARENT.fullmatch(trace):
            head += b"traceparent: %b\r\n" % trace
        return head

    def refuse(self, headers: dict[bytes, bytes], problem: Problem) -> Answer:
        """Return the response that rejects a request."""
        answer = self.respond(headers, problem.status, MEDIA_TYPE, problem.body())
        more = [f"{name}: {value}\r\n".encode() for name, value in problem.headers if (name, value) != CLOSE]
        close = answer.close or CLOSE in problem.headers
        return msgspec.structs.replace(answer, head=answer.head + b"".join(more), close=close)

    def explain(self, headers: dict[bytes, bytes], error: Exception) -> Answer:
        """Return the response to a request that raised an exception."""
        return self.refuse(headers, error) if isinstance(error, Problem) else self.fail(headers, error)

    def fail(self, headers: dict[bytes, bytes], error: Exception) -> Answer:
        """Return a response with status 500, and log the traceback without the message, which can quote the request."""
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("unexpected error", extra={"error": type(error).__name__, "traceback": where})
        return self.refuse(headers, Problem(500, "The server has a bug; its log has the traceback. Report it."))

    def record(self, route: str, path: str, method: str, answer: Answer, seconds: float) -> None:
        """Count a response, pass its rows to the prediction log, and log it if `log_requests` is set."""
        self.metrics.answered(route, answer.status, seconds)
        if answer.predicted is not None and self._log is not None:
            self._log.add(answer, answer.predicted, seconds)
        if self._settings.log_requests:
            fields = {"method": method, "path": path, "status": answer.status, "seconds": round(seconds, 6)}
            for name, value in answer.headers:
                if name in (b"x-request-id", b"traceparent"):
                    fields[name.decode()] = value.decode()
            logger.info("request", extra=fields)

"""Extend uvicorn's HTTP/1.1 protocol with limits, and answer prediction requests that arrive in one piece.

This module overrides internals of uvicorn and httptools, so pyproject.toml limits the versions of both packages.
tests/slipway/serving/test_internals.py lists the overridden internals.
"""

import asyncio
import time
from asyncio.events import TimerHandle
from collections.abc import Sized
from functools import partial
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from slipway.serving.asgi import Application
from slipway.serving.binary_tensors import HEADER
from slipway.serving.predict import OVERLOADED, Answer, PredictionHandler, Route
from slipway.serving.problems import MEDIA_TYPE
from slipway.serving.runs import Job
from slipway.serving.settings import Settings

MAX_HEADER_BYTES = 65_536
MAX_HEADERS = 1_000
MAX_PIPELINED = 3_000
"""Maximum number of requests that wait on one connection until earlier requests are answered.

One read from the socket normally returns fewer requests.
"""


class OneReadAhead(FlowControl):
    """Flow control that resumes reading only if no request is waiting. uvicorn's own class resumes in any case."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class RequestParser(httptools.HttpRequestParser):
    """Parser that ignores the header `Upgrade`, as RFC 9110 (7.8) allows.

    Clients that prefer HTTP/2 send `Upgrade: h2c` with their first request, even if the request has a body. httptools
    would treat the body as data of another protocol. This parser therefore removes the header and parses the request
    again, with the same strict rules.
    """

    def __init__(self, protocol: "Protocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # uvicorn also sets this option

    def feed_data(self, data: Any) -> None:
        while True:
            try:
                PARSE(self, data)
            except httptools.HttpParserUpgrade as upgrade:  # raised after the headers, with the position of their end
                if self._protocol.transport.is_closing():
                    return
                PARSE(self, self._protocol.head_without_upgrade())
                data = memoryview(data)[int(upgrade.args[0]) :]
            else:
                return


PARSE = httptools.HttpRequestParser.feed_data
"""The method that `RequestParser` overrides, stored here because a call through `super()` is slower."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with two additions.

    First, this class limits the number of connections, the size of headers, and the time for a request to arrive.
    Second, it answers a prediction request as soon as the request is complete. Creating uvicorn's task, event and scope
    for a request would take about as long as the prediction. A request that arrives in several pieces is still passed
    to uvicorn.
    """

    handler: PredictionHandler
    max_connections: int
    deadline: float
    _in_headers = False
    _headers_continue = False
    _header_bytes = 0
    _timer: TimerHandle | None = None
    _is_quiet = False
    """True if no data has arrived since the last response that this class wrote itself."""
    _served_at = 0.0
    """The time of the last response that this class wrote itself, or of the connection's start.

    The event loop does not read requests in the order of their arrival. The client that was served least recently has
    probably waited longest.
    """
    _idle_timer: TimerHandle | None = None
    _ignored = False
    """True if the current message has the header `Upgrade`, so that it is parsed again without the header."""
    _route: Route | None = None
    _refused = False
    _default_headers: list[tuple[bytes, bytes]] | None = None
    _default_head = b""
    _body: list[bytes]
    _job: Job | None = None
    """The job of the request that waits for a run of the model graph."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser = RequestParser(self)

    @classmethod
    def of(cls, application: Application, settings: Settings) -> type["Protocol"]:
        """Return a protocol class for one application. uvicorn requires a class, not an instance."""
        limits = {"max_connections": settings.max_connections, "deadline": settings.deadline}
        return type("ProtocolOfApplication", (cls,), {"handler": application.handler, **limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._served_at = self.loop.time()
        self.flow = OneReadAhead(transport, self.pipeline)
        if len(self.connections) > self.max_connections:
            self._break_off(b"503 Service Unavailable\r\nretry-after: 1")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._job is not None:
            self.handler.runs.cancel(self._job)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self._finish_job()
        super().eof_received()

    def shutdown(self) -> None:
        self._finish_job()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        self._is_quiet = False
        super().data_received(data)
        if self._route is not None and not self._refused:
            self._route = None
            self._make_scope()
            super().on_headers_complete()
            parts, self._body = self._body, []
            for part in parts:
                super().on_body(part)
        elif self._in_headers or self._route is not None:
            # httptools limits neither the size of headers nor the time in which they arrive, so both are limited here.
            # The size excludes the piece of data in which a message begins, because this piece may contain other
            # messages.
            self._header_bytes = self._header_bytes + len(data) if self._headers_continue else 0
            self._headers_continue = self._in_headers
            if self._header_bytes > MAX_HEADER_BYTES:
                self._break_off(b"431 Request Header Fields Too Large")
            elif self._timer is None:
                self._start_timer()
        elif self.headers and len(self.headers) > MAX_HEADERS:
            self.transport.abort()  # too many trailers, which are headers after the body
        elif (
            not self._is_quiet
            and self._job is None
            and (self.cycle is None or self.cycle.response_complete)
            and self.timeout_keep_alive_task is None
            and self._timer is None
        ):
            self._start_timer()  # limits the time for the rest of a request that was answered before it was complete

    def on_message_begin(self) -> None:
        self._finish_job()  # responses must be sent in the order of the requests
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_headers, self._headers_continue = True, False
        self._is_quiet = False

    def _make_scope(self) -> None:
        """Create uvicorn's scope for the current request. Requests that this class answers do not need a scope."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._timer is not None:
            self._stop_timer()
        self._ignored = self.parser.should_upgrade()
        if self._ignored:
            if self.parser.get_method() == b"CONNECT":  # the parser treats CONNECT as an upgrade
                self._break_off(b"501 Not Implemented")
            return
        # If the client is slow to read responses, uvicorn handles the request, because uvicorn waits for slow clients.
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and not self.flow.write_paused and not self.expect_100_continue:
            self._route = self.handler.urls.get(self.url)
        if self._route is None:
            self._make_scope()
            super().on_headers_complete()
            if len(self.pipeline) > MAX_PIPELINED:
                self.transport.abort()
        else:
            self._body, self._refused = [], self.handler.load_shedder.is_overloaded()

    def head_without_upgrade(self) -> bytes:
        """Return the request line and the headers of the current message, without the header `Upgrade`."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"".join([*lines, b"\r\n"])

    def on_body(self, body: bytes) -> None:
        if self._route is None:
            super().on_body(body)
        elif not self._refused:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._ignored:
            return
        if self._route is None:
            super().on_message_complete()
            return
        route, self._route = self._route, None
        if self.transport.is_closing():
            return
        method, headers = self.parser.get_method().decode("ascii"), dict(self.headers)
        if self._refused:
            self._stop_timer()
            self.handler.metrics.answered(route.name, OVERLOADED.status, 0.0)
            answer = msgspec.structs.replace(OVERLOADED_ANSWER, close=self.handler.draining)
            self._write(answer, b"", method, self._is_last(headers))
        else:
            started = time.monotonic()
            body, self._body = b"".join(self._body), []  # frees the memory, because the connection may become idle
            # `max_direct_body` is for values in JSON. Values in binary tensors can be smaller, so treat every binary
            # request as long.
            is_long = len(body) > self.handler.max_direct_body or (self.handler.runs.cuts and HEADER in headers)
            if is_long and not route.protocol.has_one_row(body):
                self._pass_on(body)
                return
            is_last = self._is_last(headers)
            if self.handler.queues:
                send = partial(self._send, route, method, started, is_last)
                self._job = self.handler.submit(route, method, headers, body, self._served_at, send)
            else:
                self._send(route, method, started, is_last, self.handler.answer(route, method, headers, body))

    def _pass_on(self, body: bytes) -> None:
        """Pass a complete request to uvicorn, because its rows possibly need several runs of the model graph."""
        self._make_scope()
        super().on_headers_complete()
        super().on_body(body)
        super().on_message_complete()

    def _finish_job(self) -> None:
        if self._job is not None:
            self.handler.runs.finish(self._job)

    def _send(self, route: Route, method: str, started: float, is_last: bool, answer: Answer) -> None:
        self._job = None
        if self.server_state.default_headers is not self._default_headers:  # the header `date` changes each second
            self._default_headers = self.server_state.default_headers
            self._default_head = b"".join([b"%b: %b\r\n" % each for each in self._default_headers])
        if not self.transport.is_closing():
            self._write(answer, self._default_head, method, is_last)
        self.handler.record(route.name, route.path, method, answer, time.monotonic() - started)

    def _is_last(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether the client has requested that the connection is closed after the current response."""
        if not self.parser.should_keep_alive():
            return True
        given = b"connection" in headers or b"proxy-connection" in headers  # otherwise, HTTP/1.0 closes the connection
        return given and bool(self.parser.get_http_version() == "1.0")

    def _write(self, answer: Answer, default_head: bytes, method: str, is_last: bool) -> None:
        close = answer.close or is_last
        last = b"connection: close\r\n\r\n" if close else b"\r\n"
        body = b"" if method == "HEAD" else answer.body
        self.transport.write(b"".join([STATUS_LINE[answer.status], default_head, answer.head, last, body]))
        self.server_state.total_requests += 1
        self._served_at, self._is_quiet = self.loop.time(), True
        if close:
            self.transport.close()
        elif self._idle_timer is None:  # one timer for many requests, because starting a timer is slow
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_quiet)

    def _end_quiet(self) -> None:
        self._idle_timer = None
        if not self._is_quiet:
            return  # a request is in progress, and has its own timers
        left = self._served_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._end_quiet)
        else:
            self.timeout_keep_alive_handler()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.deadline, self._break_off, b"408 Request Timeout")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _break_off(self, status: bytes) -> None:
        self._in_headers = False
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()


OVERLOADED_BODY = OVERLOADED.body()
OVERLOADED_HEAD = [
    ("content-type", MEDIA_TYPE.decode()),
    ("content-length", len(OVERLOADED_BODY)),
    *OVERLOADED.headers,
]
OVERLOADED_ANSWER = Answer(
    OVERLOADED.status, "".join(f"{name}: {value}\r\n" for name, value in OVERLOADED_HEAD).encode(), OVERLOADED_BODY
)
"""The response to each request that is refused because of overload, prepared once and without a request id."""

"""Connections: uvicorn's HTTP/1.1, bounded; requests for predictions that arrive in one piece are answered here."""

import asyncio
import time
from asyncio.events import TimerHandle
from collections.abc import Sized

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from slipway.serving.asgi import Application
from slipway.serving.predict import LATE, Answer, Hot, Route
from slipway.serving.problems import MEDIA_TYPE
from slipway.serving.settings import Settings

MOST_HEADER_BYTES = 65_536
MOST_HEADERS = 1_000
ANNOUNCE_A_BODY = {b"content-length", b"transfer-encoding"}
MOST_PIPELINED = 3_000
"""Requests of a connection that wait for the answers before them; one read holds no more unless they are made to."""


class OneReadAhead(FlowControl):
    """Reads on only when no request waits for its turn; uvicorn's would read, and hold, any number of them."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, in front of which stand two things.

    Connections that send no request are bounded: how many, how long, how large their headers. And requests for
    predictions are answered as soon as they are whole. uvicorn would make a task, an event and a scope for each, which
    together cost as much as the prediction; a request that arrives in pieces still goes that way.
    """

    hot: Hot
    most: int
    deadline: float
    _in_headers = False
    _continues = False
    _held = 0
    _timer: TimerHandle | None = None
    _quiet_since: float | None = None
    """When a request was answered here after which nothing has arrived."""
    _idle_timer: TimerHandle | None = None
    _route: Route | None = None
    _refused = False
    _default_headers: list[tuple[bytes, bytes]] | None = None
    _default_head = b""
    _body: list[bytes]

    @classmethod
    def of(cls, application: Application, settings: Settings) -> type["Protocol"]:
        """Return the protocol for an application as a class, which uvicorn requires."""
        bounds = {"most": settings.max_connections, "deadline": settings.deadline}
        return type("ProtocolOfApplication", (cls,), {"hot": application.hot, **bounds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = OneReadAhead(transport, self.pipeline)
        if len(self.connections) > self.most:
            self._break_off(b"503 Service Unavailable\r\nretry-after: 1")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._quiet_since = None
        super().data_received(data)
        if self._route is not None and not self._refused:
            self._route = None
            self._make_scope()
            super().on_headers_complete()
            parts, self._body = self._body, []
            for part in parts:
                super().on_body(part)
        elif self._in_headers or self._route is not None:
            # The parser itself would hold headers of any length for any time. The piece in which a message began may
            # hold others before it, and does not count.
            self._held = self._held + len(data) if self._continues else 0
            self._continues = self._in_headers
            if self._held > MOST_HEADER_BYTES:
                self._break_off(b"431 Request Header Fields Too Large")
            elif self._timer is None:
                self._start_timer()
        elif self.headers and len(self.headers) > MOST_HEADERS:
            self.transport.abort()  # they come as trailers
        elif (
            self._quiet_since is None
            and (self.cycle is None or self.cycle.response_complete)
            and self.timeout_keep_alive_task is None
            and self._timer is None
        ):
            self._start_timer()  # for the rest of a request that was answered before it was whole

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_headers, self._continues = True, False
        self._quiet_since = None

    def _make_scope(self) -> None:
        """What uvicorn does when a message begins, and requests that are answered here do not need."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._timer is not None:
            self._stop_timer()
        if self.parser.should_upgrade() and {name for name, _ in self.headers} & ANNOUNCE_A_BODY:
            # The parser takes what follows for another protocol, and a body would be read as the next request.
            self._break_off(b"400 Bad Request")
        # A client that does not read its answers goes the long way, which waits for it.
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and not self.flow.write_paused and not self.expect_100_continue:
            self._route = self.hot.urls.get(self.url)
        if self._route is None:
            self._make_scope()
            super().on_headers_complete()
            if len(self.pipeline) > MOST_PIPELINED:
                self.transport.abort()
        else:
            self._body, self._refused = [], self.hot.load_shedder.is_long()

    def on_body(self, body: bytes) -> None:
        if self._route is None:
            super().on_body(body)
        elif not self._refused:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._route is None:
            super().on_message_complete()
            return
        route, self._route = self._route, None
        if self.transport.is_closing():
            return
        method, sent = self.parser.get_method().decode("ascii"), dict(self.headers)
        if self._refused:
            self._stop_timer()
            self.hot.telemetry.answered(route.name, LATE.status, 0.0)
            self._write(msgspec.structs.replace(LATE_ANSWER, close=self.hot.draining), b"", method, sent)
        else:
            started = time.monotonic()
            body, self._body = b"".join(self._body), []  # a connection that is quiet holds none
            answer = self.hot.answer(route, method, sent, body)
            if self.server_state.default_headers is not self._default_headers:  # their date changes each second
                self._default_headers = self.server_state.default_headers
                self._default_head = b"".join([b"%b: %b\r\n" % each for each in self._default_headers])
            self._write(answer, self._default_head, method, sent)
            self.hot.note(route.name, route.path, method, answer, time.monotonic() - started)

    def _write(self, answer: Answer, default_head: bytes, method: str, sent: dict[bytes, bytes]) -> None:
        close = answer.close or not self.parser.should_keep_alive()
        if b"connection" in sent or b"proxy-connection" in sent:  # without them, HTTP/1.0 keeps nothing alive
            close = close or self.parser.get_http_version() == "1.0"
        last = b"connection: close\r\n\r\n" if close else b"\r\n"
        body = b"" if method == "HEAD" else answer.body
        self.transport.write(b"".join([STATUS_LINE[answer.status], default_head, answer.head, last, body]))
        self.server_state.total_requests += 1
        self._quiet_since = self.loop.time()
        if close:
            self.transport.close()
        elif self._idle_timer is None:  # one for many requests, as a timer costs more than its reading
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_quiet)

    def _end_quiet(self) -> None:
        self._idle_timer = None
        if self._quiet_since is None:
            return  # a request is under way, which has timers of its own
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
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


LATE_BODY = LATE.body()
LATE_HEAD = [
    ("content-type", MEDIA_TYPE.decode()),
    ("content-length", len(LATE_BODY)),
    *LATE.headers,
]
LATE_ANSWER = Answer(LATE.status, "".join(f"{name}: {value}\r\n" for name, value in LATE_HEAD).encode(), LATE_BODY)
"""Made once, so that it has no request id."""

"""Connections: uvicorn's HTTP/1.1, bounded; requests for predictions that arrive in one piece are answered here."""

import asyncio
import time
from asyncio.events import TimerHandle
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from slipway.serving.application import Application
from slipway.serving.hot import LATE
from slipway.serving.problems import MEDIA_TYPE
from slipway.serving.settings import Settings

MOST_HEADER_BYTES = 65_536
MOST_HEADERS = 1_000
ANNOUNCE_A_BODY = {b"content-length", b"transfer-encoding"}
MOST_PIPELINED = 3_000
"""Requests of a connection that wait for the answers before them; one read holds no more unless they are made to."""
CLOSING = (b"connection", b"close")


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

    application: Application
    most: int
    deadline: float
    _in_headers = False
    _continues = False
    _held = 0
    _timer: TimerHandle | None = None
    _path: str | None = None
    _refused = False
    _body: list[bytes]

    @classmethod
    def of(cls, application: Application, settings: Settings) -> type["Protocol"]:
        """This protocol for an application; uvicorn takes a class."""
        bounds = {"most": settings.max_connections, "deadline": settings.deadline}
        return type("ProtocolOfApplication", (cls,), {"application": application, **bounds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = OneReadAhead(transport, self.pipeline)
        if len(self.connections) > self.most:
            self._break_off(b"503 Service Unavailable\r\nretry-after: 1")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._path is not None and not self._refused:
            self._path = None
            super().on_headers_complete()
            for part in self._body:
                super().on_body(part)
        elif self._in_headers or self._path is not None:
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
        elif self._is_idle() and self.timeout_keep_alive_task is None and self._timer is None:
            self._start_timer()  # for the rest of a request that was answered before it was whole

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._continues = True, False

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        if self.parser.should_upgrade() and {name for name, _ in self.headers} & ANNOUNCE_A_BODY:
            # The parser takes what follows for another protocol, and a body would be read as the next request.
            self._break_off(b"400 Bad Request")
        # A client that does not read its answers goes the long way, which waits for it.
        if self._is_idle() and not self.flow.write_paused and not self.expect_100_continue:
            self._path = self.application.hot.urls.get(self.url)
        if self._path is None:
            super().on_headers_complete()
            if len(self.pipeline) > MOST_PIPELINED:
                self.transport.abort()
        else:
            self._body, self._refused = [], self.application.hot.refuses(self._path)

    def on_body(self, body: bytes) -> None:
        if self._path is None:
            super().on_body(body)
        elif not self._refused:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._path is None:
            super().on_message_complete()
            return
        path, self._path = self._path, None
        if self.transport.is_closing():
            return
        if self._refused:
            self._stop_timer()
            body = b"" if self.parser.get_method() == b"HEAD" else LATE_BODY
            self._write(LATE_HEAD, body, close=self.application.draining)
        else:
            self._answer(path, self.parser.get_method().decode("ascii"), b"".join(self._body))

    def _answer(self, path: str, method: str, body: bytes) -> None:
        started = time.monotonic()
        hot = self.application.hot
        answer = hot.answer(path, method, dict(self.headers), body)
        head = _head(answer.status, [*self.server_state.default_headers, *answer.headers])
        self._write(head, b"" if method == "HEAD" else answer.body, close=CLOSING in answer.headers)
        hot.note(path, method, answer, time.monotonic() - started)

    def _write(self, head: bytes, body: bytes, *, close: bool) -> None:
        close = close or not self.parser.should_keep_alive() or self.parser.get_http_version() == "1.0"
        self.transport.write(b"%b%b\r\n%b" % (head, b"connection: close\r\n" if close else b"", body))
        if close:
            self.transport.close()
        self.on_response_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

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


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([STATUS_LINE[status], *(b"%b: %b\r\n" % each for each in headers if each != CLOSING)])


LATE_BODY = LATE.body()
LATE_HEAD = _head(
    LATE.status,
    [
        (b"content-type", MEDIA_TYPE),
        (b"content-length", b"%d" % len(LATE_BODY)),
        *((name.encode(), value.encode()) for name, value in LATE.headers),
    ],
)
"""Made once, so that it has no request id."""

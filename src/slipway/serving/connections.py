"""Connections: uvicorn's HTTP/1.1, bounded, and with one system call for an answer."""

import asyncio
from asyncio.events import TimerHandle
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slipway.serving.application import CLOSE, REFUSAL, Application
from slipway.serving.problems import MEDIA_TYPE, Problem
from slipway.serving.settings import Settings

MOST_HEADER_BYTES = 65_536


class JoinedWrites:
    """A transport that writes head and body of an answer, which uvicorn hands over apart, together.

    What is written waits for more until the next turn of the event loop. A system call is a fifth of a request's cost.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            head, self._head = self._head, None
            self._transport.write(head + data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which refuses early.

    Connections that send no request are bounded: how many, how long, how large their headers. Requests for predictions
    that would wait too long are refused here, at a fraction of what a task and an ASGI scope for them would cost.
    """

    application: Application
    most: int
    deadline: float
    _in_headers = False
    _held = 0
    _timer: TimerHandle | None = None
    _refusing = False

    @classmethod
    def of(cls, application: Application, settings: Settings) -> type["Protocol"]:
        """This protocol for an application; uvicorn takes a class."""
        bounds = {"most": settings.max_connections, "deadline": settings.deadline}
        return type("ProtocolOfApplication", (cls,), {"application": application, **bounds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.most:
            self._break_off(b"503 Service Unavailable\r\nretry-after: 1")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:
            # The parser itself would hold headers of any length for any time.
            self._held += len(data)
            if self._held > MOST_HEADER_BYTES:
                self._break_off(b"431 Request Header Fields Too Large")
            elif self._timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._held = True, 0

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        path = self.url.partition(b"?")[0]
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.application.refuses(path, len(self.tasks)):
            self._refusing = True
            if self.expect_100_continue:  # whoever asks first need not send the body
                self._answer_refusal(close=True)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refusing:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._refusing = False
            self._answer_refusal(close=self.application.draining or not self.parser.should_keep_alive())

    def _answer_refusal(self, *, close: bool) -> None:
        self.transport.write(REFUSAL_AND_CLOSE if close else REFUSAL_BYTES)
        if close:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

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


def _message(refusal: Problem, *headers: tuple[str, str]) -> bytes:
    """The whole answer. It is made once, so that it has no request id."""
    body = refusal.body()
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        *(f"{name}: {value}" for name, value in (*refusal.headers, *headers)),
        f"content-type: {MEDIA_TYPE.decode()}",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


REFUSAL_BYTES = _message(REFUSAL)
REFUSAL_AND_CLOSE = _message(REFUSAL, CLOSE)

"""The process: one bundle, one event loop, on uvicorn; and how it stops without dropping a request."""

import asyncio
import logging
import logging.config
import os
import signal
from asyncio.events import TimerHandle
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slipway.serving.application import Application
from slipway.serving.lineage import read_lineage
from slipway.serving.live import LiveModel
from slipway.serving.pages import make_pages
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

MOST_HEADER_BYTES = 65_536
LAST_ANSWERS = 10
"""Seconds, after the grace period, for what is still in flight."""
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        }
    },
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"handlers": ["out"], "level": "INFO"},
    "loggers": {"uvicorn": {"level": "ERROR"}},
}


class Server(uvicorn.Server):
    """uvicorn's server, which first drains.

    On SIGTERM it is no longer ready, goes on answering for `grace` seconds, and closes each connection with the answer
    that it gives (`Connection: close`), so that clients and proxies move to another replica between two requests and
    never in the middle of one.
    """

    def __init__(self, config: uvicorn.Config, application: Application, grace: float) -> None:
        super().__init__(config)
        self._application = application
        self._grace = grace

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._application.ready = True
        port = self.servers[0].sockets[0].getsockname()[1]
        logger.info("ready", extra={"port": port})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """SIGTERM drains; a second one, or SIGINT, stops at once. Both end with exit code 0."""
        if sig == signal.SIGTERM and not self._application.draining:
            self._application.draining = True
            logger.info("draining", extra={"seconds": self._grace})
            asyncio.get_running_loop().call_later(self._grace, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        logger.info("stopping")
        self.should_exit = True


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds on connections that have not sent a request: how many, how long, how large."""

    most = Settings().max_connections
    deadline = Settings().deadline
    _in_headers = False
    _held = 0
    _timer: TimerHandle | None = None

    @classmethod
    def bounded(cls, settings: Settings) -> type["Protocol"]:
        """This protocol with the bounds of the settings; uvicorn takes a class."""
        return type("Bounded", (cls,), {"most": settings.max_connections, "deadline": settings.deadline})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(b"503 Service Unavailable\r\nretry-after: 1")
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
                self._refuse(b"431 Request Header Fields Too Large")
            elif self._timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._held = True, 0

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.deadline, self._refuse, b"408 Request Timeout")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        self._in_headers = False
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()


def serve(bundle: Path, settings: Settings, lineage: Path | None = None) -> None:
    """Answer for the bundle until SIGTERM; raises BadInput where it cannot be served."""
    logging.config.dictConfig(LOGGING)
    model = LiveModel(bundle, settings.model_name, settings.max_records)
    application = Application(model, settings, make_pages(model, read_lineage(lineage, model.hash)))
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Protocol.bounded(settings),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
    logger.info("starting", extra={"bundle": model.hash, "model": model.name, "pid": os.getpid()})
    Server(config, application, settings.grace).run()

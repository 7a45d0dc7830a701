"""The server process: one bundle and one event loop on uvicorn. The server stops without dropping a request."""

import asyncio
import gc
import logging
import logging.config
import os
import signal
import socket
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from slipway.errors import InputError
from slipway.provenance import read_provenance
from slipway.serving.asgi import Application
from slipway.serving.http_protocol import Protocol
from slipway.serving.predict import PredictionHandler
from slipway.serving.prediction_log import PredictionLog
from slipway.serving.routes import make_app
from slipway.serving.runs import measure
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

BACKLOG = 2048
ACCEPTS = 32
"""Number of connections to accept in one iteration of the event loop.

The socket is duplicated this many times, because libuv accepts one connection per listening socket in each iteration.
With a single socket, new connections would wait for many iterations under load.
"""
LAST_ANSWERS = 10
"""Time in seconds for requests in progress to finish after the grace period."""
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
    """A uvicorn server that drains before it stops.

    After SIGTERM, the readiness probe fails, but the server still answers requests for `grace` seconds. Each response
    closes its connection (`Connection: close`), so that clients and proxies move to another replica between two
    requests.
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
        """Drain on SIGTERM. Stop at once on a second SIGTERM or on SIGINT. The exit code is 0."""
        if sig == signal.SIGTERM and not self._application.draining:
            self._application.draining = True
            logger.info("draining", extra={"seconds": self._grace})
            asyncio.get_running_loop().call_later(self._grace, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        logger.info("stopping")
        self.should_exit = True


def serve(bundle: Path, settings: Settings, provenance: Path | None = None) -> None:
    """Serve a bundle until SIGTERM. Raises InputError if the bundle cannot be served."""
    logging.config.dictConfig(LOGGING)
    # Pillow warns about damaged metadata. Clients could fill the log and the memory with such images.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    application, model, log = _application(bundle, settings, provenance)
    plan = application.handler.runs.plan
    logger.info(
        "starting",
        extra={
            "bundle": model.hash,
            "model": model.name,
            "pid": os.getpid(),
            "rows_per_run": plan.max_rows,
            "shared_runs": plan.is_shared,
        },
    )
    # The garbage collector skips the objects loaded so far, because they are never freed. The thresholds are raised,
    # because with the defaults the collector would run for every batch of records.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    with _listen(settings) as listener, log if log is not None else nullcontext():
        Server(make_config(application, settings), application, settings.grace).run(
            [listener.dup() for _ in range(ACCEPTS)]
        )


def _application(
    bundle: Path, settings: Settings, provenance: Path | None
) -> tuple[Application, ServedModel, PredictionLog | None]:
    """Load the model and create the application. Add a prediction log if the settings name a folder for it."""
    model = ServedModel(bundle, settings.model_name, settings.max_records, settings.providers)
    log = None if settings.prediction_log is None else PredictionLog(settings.prediction_log, model, settings)
    handler = PredictionHandler(model, settings, measure(model, settings.max_run, settings.share_runs), log)
    rest = make_app(model, read_provenance(provenance, model.hash), [] if log is None else [log])
    return Application(model, settings, rest, handler), model, log


def make_config(application: Application, settings: Settings) -> uvicorn.Config:
    """Return the uvicorn configuration, with this package's HTTP protocol and without an access log."""
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=Protocol.of(application, settings),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # the event loop accepts fractions too
        timeout_graceful_shutdown=LAST_ANSWERS,
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        reason = str(error.strerror).partition(" (while ")[0]  # Python appends the address to the reason
        raise InputError(
            f"The server cannot listen on {address} ({reason}); set SLIPWAY_HOST and SLIPWAY_PORT."
        ) from None

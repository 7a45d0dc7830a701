"""Serve an ASGI application from a thread of this process."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn


def listen() -> socket.socket:
    """Open a listening socket on a free port of 127.0.0.1."""
    return socket.create_server(("127.0.0.1", 0))


@contextmanager
def served(application: Any, listener: socket.socket, **tls: str) -> Generator[None, None, None]:
    """Serve `application` on `listener` until the block ends.

    `tls` can contain uvicorn's `ssl_certfile` and `ssl_keyfile`. Requests that are unanswered at the end are cut off.
    """
    config = uvicorn.Config(
        application,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        timeout_keep_alive=600,  # no client of the demo keeps a connection for longer
        timeout_graceful_shutdown=1,
        **tls,  # type: ignore[arg-type]
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()

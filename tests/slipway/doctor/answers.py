"""A server that answers every request alike."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo.fakes.http_server import listen, served


@dataclass
class Answer:
    """An answer, and the seconds that it takes."""

    status: int = 200
    document: Any = None
    seconds: float = 0.0


@contextmanager
def answering(answer: Answer) -> Generator[str, None, None]:
    """Serve an answer until the block ends; yields the address. The answer may be changed meanwhile."""

    async def reply(_: Request) -> JSONResponse:
        await asyncio.sleep(answer.seconds)
        return JSONResponse(answer.document, answer.status)

    listener = listen()
    with served(Starlette(routes=[Route("/{path:path}", reply, methods=["GET", "POST"])]), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

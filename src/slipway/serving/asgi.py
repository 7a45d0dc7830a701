"""The ASGI application. It answers probes. It also answers prediction requests whose body arrives in several parts.

FastAPI (`routes`) answers all other requests. Specification of ASGI:
https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from slipway.serving.predict import CLOSE, JSON, OVERLOADED, RETRY, Answer, PredictionHandler, Route
from slipway.serving.problems import Problem
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Probed = tuple[bool, dict[str, bool | str]]
"""A flag that is True if the probe succeeds, and the JSON document of the response."""


class Disconnected(Exception):
    """The client closed the connection before its request was complete."""


class Application:
    """The ASGI application of one served model. The server sets `ready` and `draining`."""

    def __init__(
        self, model: ServedModel, settings: Settings, rest: Callable[..., Any], handler: PredictionHandler | None = None
    ) -> None:
        self.ready = False
        self.handler = handler or PredictionHandler(model, settings)
        self._settings = settings
        self._rest = rest
        self._uploads = 0
        path = f"/v2/models/{model.name}"
        self._model_name = model.name
        self._probes: dict[str, Callable[[], Probed]] = {
            "/healthz": self._live,
            "/v2/health/live": self._live,
            "/readyz": self._ready,
            "/v2/health/ready": self._ready,
            f"{path}/ready": self._model_ready,
            f"{path}/versions/{model.hash}/ready": self._model_ready,
        }

    @property
    def draining(self) -> bool:
        """Return whether the server is draining.

        A draining server is not ready, and closes each connection after the response.
        """
        return self.handler.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.handler.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers, path = dict(scope["headers"]), scope["path"]
        route = self.handler.routes.get(path)
        self.handler.metrics.in_flight += 1
        try:
            if route is not None:
                answer = await self._predict(route, scope["method"], headers, receive)
                await _send(answer, send)
            elif path in self._probes:
                answer = self._probe(scope["method"], headers, *self._probes[path]())
                await _send(answer, send)
            else:
                answer = await self._pass_on(scope, receive, send, headers)
        except Disconnected:
            answer = Answer(499, b"", b"")
        except Exception as error:
            answer = self.handler.fail(headers, error)
            await _send(answer, send)
        finally:
            self.handler.metrics.in_flight -= 1
        name = route.name if route else path if path in self._probes else "other"
        self.handler.record(name, path, scope["method"], answer, time.monotonic() - started)

    async def _predict(self, route: Route, method: str, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        try:
            self.handler.check(method, headers)
            self.handler.check_size(int(headers.get(b"content-length", 0)))
            body = await self._body(receive)
            if self.handler.load_shedder.is_overloaded():
                return self.handler.refuse(headers, OVERLOADED)
        except Problem as problem:
            return self.handler.refuse(headers, problem)
        if self.handler.runs.cuts or self.handler.queues:
            return await self._answer_later(route, method, headers, body, receive)
        return self.handler.answer(route, method, headers, body)

    async def _answer_later(
        self, route: Route, method: str, headers: dict[bytes, bytes], body: bytes, receive: Receive
    ) -> Answer:
        """Wait until a request is answered, or until its client closes the connection."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        job = self.handler.submit(route, method, headers, body, loop.time(), answer.set_result)
        if job is not None:
            closed = asyncio.ensure_future(receive())
            await asyncio.wait((answer, closed), return_when=asyncio.FIRST_COMPLETED)
            closed.cancel()
            if not answer.done():
                self.handler.runs.cancel(job)
                raise Disconnected
        return answer.result()

    async def _body(self, receive: Receive) -> bytes:
        if self._uploads >= self._settings.max_uploads:
            raise Problem(503, "The server is receiving too many bodies at once; try again.", headers=[RETRY, CLOSE])
        self._uploads += 1
        try:
            async with asyncio.timeout(self._settings.deadline):
                return await self._whole_body(receive)
        except TimeoutError:
            seconds = self._settings.deadline
            raise Problem(408, f"The request took longer than {seconds:g} s.", headers=[CLOSE]) from None
        finally:
            self._uploads -= 1

    async def _whole_body(self, receive: Receive) -> bytes:
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            self.handler.check_size(len(body))
            if not message["more_body"]:
                return bytes(body)
        raise Disconnected

    def _live(self) -> Probed:
        return True, {"live": True}

    def _ready(self) -> Probed:
        ready = self.ready and not self.draining
        return ready, {"ready": ready}

    def _model_ready(self) -> Probed:
        ready, document = self._ready()
        return ready, {"name": self._model_name, **document}

    def _probe(self, method: str, headers: dict[bytes, bytes], ok: bool, document: dict[str, bool | str]) -> Answer:
        if method not in ("GET", "HEAD"):
            return self.handler.refuse(headers, Problem(405, "Send GET.", headers=[("allow", "GET, HEAD")]))
        return self.handler.respond(headers, 200 if ok else 503, JSON, msgspec.json.encode(document))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> Answer:
        answer = Answer(499, self.handler.head(headers), b"", self.handler.draining)

        async def with_headers(message: dict[str, Any]) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                answer = msgspec.structs.replace(answer, status=message["status"])
                message = {**message, "headers": [*message["headers"], *answer.headers]}
            await send(message)

        # FastAPI has no routes for HEAD. uvicorn sends only the headers of the response to HEAD.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._rest({**scope, "method": method}, receive, with_headers)
        return answer


async def _send(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})

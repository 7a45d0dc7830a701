"""The ASGI application: requests for predictions that arrive in pieces, probes, and FastAPI (`pages`) for all else.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from slipway.serving.predict import CLOSE, JSON, LATE, RETRY, Answer, Hot, Route
from slipway.serving.problems import Problem
from slipway.serving.served_model import LiveModel
from slipway.serving.settings import Settings

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


class Disconnected(Exception):
    """The client left before its request was whole."""


class Application:
    """Answers for one live model. `ready` and `draining` are the server's to set."""

    def __init__(self, model: LiveModel, settings: Settings, rest: Callable[..., Any]) -> None:
        self.ready = False
        self.hot = Hot(model, settings)
        self._settings = settings
        self._rest = rest
        self._uploads = 0
        path = f"/v2/models/{model.name}"
        alive, ready = self._alive, self._readiness
        self._probes = {
            "/healthz": alive,
            "/v2/health/live": alive,
            "/readyz": ready,
            "/v2/health/ready": ready,
            f"{path}/ready": ready,
            f"{path}/versions/{model.hash}/ready": ready,
        }

    @property
    def draining(self) -> bool:
        """Whether every answer closes its connection, and readiness is off."""
        return self.hot.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.hot.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        sent, path = dict(scope["headers"]), scope["path"]
        route = self.hot.routes.get(path)
        self.hot.telemetry.in_flight += 1
        try:
            if route is not None:
                answer = await self._predict(route, scope["method"], sent, receive)
                await _send(answer, send)
            elif path in self._probes:
                answer = self._probes[path](scope["method"], sent)
                await _send(answer, send)
            else:
                answer = await self._pass_on(scope, receive, send, sent)
        except Disconnected:
            answer = Answer(499, b"", b"")
        except Exception as error:
            answer = self.hot.mistake(sent, error)
            await _send(answer, send)
        finally:
            self.hot.telemetry.in_flight -= 1
        name = route.name if route else path if path in self._probes else "other"
        self.hot.note(name, path, scope["method"], answer, time.monotonic() - started)

    async def _predict(self, route: Route, method: str, sent: dict[bytes, bytes], receive: Receive) -> Answer:
        try:
            self.hot.check(method, sent)
            self.hot.check_size(int(sent.get(b"content-length", 0)))
            body = await self._body(receive)
            if self.hot.load_shedder.is_long():
                return self.hot.refusal(sent, LATE)
        except Problem as problem:
            return self.hot.refusal(sent, problem)
        return self.hot.answer(route, method, sent, body)

    async def _body(self, receive: Receive) -> bytes:
        if self._uploads >= self._settings.max_uploads:
            raise Problem(503, "The server is receiving as much as it can hold; try again.", headers=[RETRY, CLOSE])
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
            self.hot.check_size(len(body))
            if not message["more_body"]:
                return bytes(body)
        raise Disconnected

    def _alive(self, method: str, sent: dict[bytes, bytes]) -> Answer:
        return self._yes_or_no(method, sent, b"live", yes=True)

    def _readiness(self, method: str, sent: dict[bytes, bytes]) -> Answer:
        return self._yes_or_no(method, sent, b"ready", yes=self.ready and not self.draining)

    def _yes_or_no(self, method: str, sent: dict[bytes, bytes], question: bytes, *, yes: bool) -> Answer:
        if method not in ("GET", "HEAD"):
            return self.hot.refusal(sent, Problem(405, "Ask with GET.", headers=[("allow", "GET, HEAD")]))
        return self.hot.made(sent, 200 if yes else 503, JSON, b'{"%s":%s}' % (question, b"true" if yes else b"false"))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, sent: dict[bytes, bytes]) -> Answer:
        answer = Answer(499, self.hot.head(sent), b"", self.hot.draining)

        async def with_headers(message: dict[str, Any]) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                answer = msgspec.structs.replace(answer, status=message["status"])
                message = {**message, "headers": [*message["headers"], *answer.headers]}
            await send(message)

        await self._rest(scope, receive, with_headers)
        return answer


async def _send(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})

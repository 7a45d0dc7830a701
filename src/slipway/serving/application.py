"""The ASGI application: the routes that carry load are answered here, all others by FastAPI (`pages`).

A framework's way from request to function costs more than the model does, so the hot routes go without one.
ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

import asyncio
import logging
import os
import re
import time
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any

from slipway.serving.backlog import Backlog
from slipway.serving.live import LiveModel
from slipway.serving.problems import MEDIA_TYPE, Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, bytes, bytes]
"""Status, media type, body."""

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # https://www.w3.org/TR/trace-context/
JSON = b"application/json"
RETRY = ("retry-after", "1")
CLOSE = ("connection", "close")
REFUSAL = Problem(503, "The server has more requests than it can answer in time; try again.", headers=[RETRY])


class Disconnected(Exception):
    """The client left before its request was whole."""


class Application:
    """Answers for one live model. `ready` and `draining` are the server's to set."""

    def __init__(self, model: LiveModel, settings: Settings, rest: Callable[..., Any]) -> None:
        self.ready = False
        self.draining = False
        self._settings = settings
        self._rest = rest
        self._telemetry = model.telemetry
        infer = Infer(model)
        path = f"/v2/models/{model.name}"
        self._predictors: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
            "/predict": ("/predict", Predict(model)),
            "/invocations": ("/invocations", Invocations(model)),
            f"{path}/infer": ("/v2/infer", infer),
            f"{path}/versions/{model.hash}/infer": ("/v2/infer", infer),
        }
        self._probes = {
            "/healthz": self._alive,
            "/readyz": self._readiness,
            "/v2/health/live": self._alive,
            "/v2/health/ready": self._readiness,
            f"{path}/ready": self._readiness,
            f"{path}/versions/{model.hash}/ready": self._readiness,
        }
        self._bundle = (b"slipway-bundle", model.hash.encode())
        self._uploads = 0
        self._backlog = Backlog(settings.max_wait)
        self._routes = {path.encode(): route for path, (route, _) in self._predictors.items()}
        prefix = os.urandom(8).hex()
        self._ids = (f"{prefix}-{number:x}".encode() for number in count())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        sent = dict(scope["headers"])
        headers = self._headers(sent)
        self._telemetry.in_flight += 1
        route, status = "other", 499
        try:
            if (predictor := self._predictors.get(scope["path"])) is not None:
                route = predictor[0]
                try:
                    body = await self._admit(scope["method"], sent, receive)
                    status, kind, answer = 200, JSON, self._predict(predictor[1], body)
                except Problem as problem:
                    status, kind, answer = problem.status, MEDIA_TYPE, problem.body()
                    headers += [(name.encode(), value.encode()) for name, value in problem.headers]
                await _answer(send, status, kind, answer, headers)
            elif (probe := self._probes.get(scope["path"])) is not None:
                route = scope["path"]
                status, kind, answer = probe(scope["method"], headers)
                await _answer(send, status, kind, answer, headers)
            else:
                status = await self._pass_on(scope, receive, send, headers)
        except Disconnected:
            pass
        except Exception as error:
            # Its message may hold what the client sent, which is never logged; where it was raised is enough.
            status = 500
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("unexpected error", extra={"error": type(error).__name__, "traceback": where})  # noqa: TRY400
            body = Problem(500, "The server made a mistake; its log says where.").body()
            await _answer(send, status, MEDIA_TYPE, body, headers)
        finally:
            self._telemetry.in_flight -= 1
            seconds = time.monotonic() - started
            self._telemetry.answered(route, status, seconds)
            if self._settings.log_requests:
                self._log(scope, status, seconds, dict(headers))

    def refuses(self, path: bytes, requests: int) -> bool:
        """Whether a request, after so many others that are not answered yet, would wait too long for a prediction.

        The connection asks, before anything is made for the request; it then sends `REFUSAL` (`connections.Protocol`).
        """
        route = self._routes.get(path)
        if route is None or not self._backlog.is_full(requests - self._uploads):
            return False
        self._telemetry.answered(route, REFUSAL.status, 0.0)
        return True

    def _headers(self, sent: dict[bytes, bytes]) -> Headers:
        given = sent.get(b"x-request-id")
        known = given if given is not None and REQUEST_ID.fullmatch(given) else next(self._ids)
        headers = [(b"x-request-id", known), self._bundle]
        trace = sent.get(b"traceparent")
        if trace is not None and TRACEPARENT.fullmatch(trace):
            headers.append((b"traceparent", trace))
        if self.draining:
            headers.append((b"connection", b"close"))
        return headers

    def _predict(self, predictor: Callable[[bytes], bytes], body: bytes) -> bytes:
        began = time.thread_time()
        try:
            return predictor(body)
        finally:
            self._backlog.took(time.thread_time() - began)

    async def _admit(self, method: str, sent: dict[bytes, bytes], receive: Receive) -> bytes:
        """The body of a request that may be worked on; raises Problem for all others, at the least cost."""
        if method != "POST":
            raise Problem(405, "Send the records with POST.", headers=[("allow", "POST")])
        media = sent.get(b"content-type", JSON)
        if media != JSON and media.partition(b";")[0].strip().lower() != JSON:
            raise Problem(415, "Send JSON, with `Content-Type: application/json`.")
        if b"content-encoding" in sent or b"inference-header-content-length" in sent:
            raise Problem(415, "Send plain JSON, neither compressed nor with binary tensors.")
        length = sent.get(b"content-length")
        if length is not None and int(length) > self._settings.max_body:
            raise self._too_large()
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
            return body
        if self._uploads >= self._settings.max_uploads:
            raise Problem(503, "The server is receiving as much as it can hold; try again.", headers=[RETRY, CLOSE])
        self._uploads += 1
        try:
            async with asyncio.timeout(self._settings.deadline):
                return await self._rest_of_body(message, receive)
        except TimeoutError:
            raise Problem(
                408, f"The request took longer than {self._settings.deadline:g} s.", headers=[CLOSE]
            ) from None
        finally:
            self._uploads -= 1

    async def _rest_of_body(self, message: dict[str, Any], receive: Receive) -> bytes:
        body = bytearray()
        while message["type"] == "http.request":
            body += message["body"]
            if len(body) > self._settings.max_body:
                raise self._too_large()
            if not message["more_body"]:
                return bytes(body)
            message = await receive()
        raise Disconnected

    def _too_large(self) -> Problem:
        return Problem(413, f"The body is larger than {self._settings.max_body} bytes; split it.", headers=[CLOSE])

    def _alive(self, method: str, headers: Headers) -> Answer:
        return self._yes_or_no(method, headers, b"live", yes=True)

    def _readiness(self, method: str, headers: Headers) -> Answer:
        return self._yes_or_no(method, headers, b"ready", yes=self.ready and not self.draining)

    def _yes_or_no(self, method: str, headers: Headers, question: bytes, *, yes: bool) -> Answer:
        if method not in ("GET", "HEAD"):
            headers.append((b"allow", b"GET, HEAD"))
            return 405, MEDIA_TYPE, Problem(405, "Ask with GET.").body()
        return (200 if yes else 503), JSON, b'{"%s":%s}' % (question, b"true" if yes else b"false")

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> int:
        status = 499

        async def with_headers(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._rest(scope, receive, with_headers)
        return status

    def _log(self, scope: Scope, status: int, seconds: float, headers: dict[bytes, bytes]) -> None:
        fields = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
        for name in (b"x-request-id", b"traceparent"):
            if name in headers:
                fields[name.decode()] = headers[name].decode()
        logger.info("request", extra=fields)


async def _answer(send: Send, status: int, media: bytes, body: bytes, headers: Headers) -> None:
    headers += [(b"content-type", media), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

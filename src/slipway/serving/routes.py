"""The routes that FastAPI handles: an HTML page with a form, the API documentation, the version and the metrics."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import onnxruntime
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from slipway.provenance import Provenance
from slipway.serving.openapi import add_predictions
from slipway.serving.problems import MEDIA_TYPE, Problem
from slipway.serving.protocols import Infer
from slipway.serving.served_model import ServedModel


class Version(BaseModel):
    """The response to `/version`."""

    model: str
    kind: str
    target: str
    provenance: Provenance
    onnxruntime: str


def make_app(model: ServedModel, provenance: Provenance, collectors: Sequence[Collector] = ()) -> FastAPI:
    """Return the FastAPI application for the routes that `Application` passes on.

    `/metrics` shows the metrics of the model and of `collectors`.
    """
    app = FastAPIOffline(
        title=model.name,  # cannot contain HTML, because `Settings` checks it
        version=provenance.bundle[:12],
        description=f"Predicts `{model.schema.target}`. Errors are problem details (RFC 9457).",
        redoc_url=None,
    )
    registry = _registry([model.metrics, *collectors])
    page = (files("slipway.serving") / "page.html").read_text(encoding="utf-8")
    page_headers = {"Content-Security-Policy": _policy(page), "X-Content-Type-Options": "nosniff"}
    infer = Infer(model)

    @app.get("/", include_in_schema=False)
    async def _page() -> HTMLResponse:
        return HTMLResponse(page, headers=page_headers)

    @app.get("/version", tags=["Slipway"], summary="The served model and its origin")
    async def _version() -> Version:
        return Version(
            model=model.name,
            kind=model.schema.kind,
            target=model.schema.target,
            provenance=provenance,
            onnxruntime=onnxruntime.__version__,
        )

    @app.get("/metrics", tags=["Slipway"], summary="Metrics for Prometheus", response_class=Response)
    async def _metrics() -> Response:
        return Response(await _render(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/ping", tags=["MLflow"], summary="MLflow's health check")
    @app.get("/health", tags=["MLflow"], summary="MLflow's health check")
    async def _ping() -> dict[str, str]:
        return {}

    @app.get("/v2", tags=["Open Inference Protocol v2"], summary="The server")
    async def _server() -> dict[str, Any]:
        return {"name": "slipway", "version": onnxruntime.__version__, "extensions": ["binary_tensor_data"]}

    @app.get(f"/v2/models/{model.name}", tags=["Open Inference Protocol v2"], summary="The model's inputs and outputs")
    @app.get(f"/v2/models/{model.name}/versions/{model.hash}", include_in_schema=False)
    async def _metadata() -> dict[str, Any]:
        return infer.metadata()

    @app.exception_handler(HTTPException)
    async def _refused(_: Request, error: HTTPException) -> Response:
        body = Problem(error.status_code, f"{error.detail}; /docs lists the routes.").body()
        return Response(body, error.status_code, headers=error.headers, media_type=MEDIA_TYPE.decode())

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = add_predictions(document, model)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _registry(collectors: Sequence[Collector]) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


class _Family(Collector):
    """A collector of one metric family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


async def _render(registry: CollectorRegistry) -> bytes:
    """Return all metrics in the text format of Prometheus. After each metric, the server can answer other requests."""
    families = []
    for family in registry.collect():
        families.append(generate_latest(_Family(family)))
        await asyncio.sleep(0)
    return b"".join(families)


def _policy(page: str) -> str:
    """Return the Content-Security-Policy of the HTML page.

    The policy allows requests to this server. It also allows the page's own script and style, by their hashes.
    """

    def own(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {own('script')}; style-src {own('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

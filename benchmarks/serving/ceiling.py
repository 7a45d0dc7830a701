"""Serve the fastest possible application on uvicorn, which sends a constant without reading the request."""

from typing import Any

BODY = b'{"prediction":123456.7890625}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001
    """Answer any request with the constant."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})

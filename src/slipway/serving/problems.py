"""Define the error responses for rejected requests: problem details (RFC 9457)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = b"application/problem+json"
MAX_FAULTS = 100
MAX_DETAIL = 1_000
"""Maximum length of a detail in characters. A detail can quote long values from a request or a column."""
MAX_NAME = 80


class Fault(msgspec.Struct, frozen=True):
    """One fault in a request body. `pointer` is the place of the fault: `#` and a JSON Pointer (RFC 6901)."""

    detail: str
    pointer: str


class Problem(Exception):
    """Error that rejects a request, with the HTTP status of the response."""

    def __init__(
        self, status: int, detail: str, faults: Sequence[Fault] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}…"
        self.faults = faults
        self.headers = headers

    def body(self) -> bytes:
        """Encode the problem as JSON. Clients of the Open Inference Protocol read `error` instead of `detail`."""
        document: dict[str, Any] = {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        if self.faults:
            document["errors"] = self.faults[:MAX_FAULTS]
        return msgspec.json.encode(document)


def pointer(*steps: str | int) -> str:
    """Return a JSON Pointer to a place in a request body. Long names are shortened, because clients choose names."""
    return "#" + "".join(as_step(step) for step in steps)


def as_step(name: str | int) -> str:
    """Return a name as one step of a JSON Pointer, shortened and escaped."""
    return "/" + str(name)[:MAX_NAME].replace("~", "~0").replace("/", "~1")


def listed(names: Sequence[str | float], most: int = 5) -> str:
    """Return the first few items as text, followed by the number of items that are left out."""
    shown = [repr(name[:MAX_NAME]) if isinstance(name, str) else str(name).removesuffix(".0") for name in names[:most]]
    rest = [f"{len(names) - most:,} more"] if len(names) > most else []
    *first, last = [*shown, *rest]
    return f"{', '.join(first)} and {last}" if first else last

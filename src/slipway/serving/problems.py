"""Refusals as problem details (RFC 9457)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = b"application/problem+json"
MOST_FAULTS = 100


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong in a request body; `pointer` says where, as a JSON Pointer (RFC 6901) behind a #."""

    detail: str
    pointer: str


class Problem(Exception):
    """A request that gets no answer, with the status that says whose fault it is."""

    def __init__(
        self, status: int, detail: str, faults: Sequence[Fault] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = headers

    def body(self) -> bytes:
        """The JSON document. `error` says the same to clients of the Open Inference Protocol."""
        document: dict[str, Any] = {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        if self.faults:
            document["errors"] = self.faults[:MOST_FAULTS]
        return msgspec.json.encode(document)


def pointer(*steps: str | int) -> str:
    """A JSON Pointer to a place in a body; a step that a client chose is cut to a length that can be read."""
    return "#" + "".join("/" + str(step)[:80].replace("~", "~0").replace("/", "~1") for step in steps)

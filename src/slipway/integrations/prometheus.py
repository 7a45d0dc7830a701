"""Query the HTTP API of Prometheus, with limits on the time and size of a response.

API: https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

import re
import time
from typing import Annotated, Generic, Literal, TypeVar

import requests
from pydantic import BaseModel, Field, ValidationError
from urllib3.exceptions import HTTPError

from slipway.config import ADDRESS
from slipway.errors import InputError

QUERY_TIMEOUT_SECONDS = 120
MAX_BYTES = 256 * 2**20


class Range(BaseModel):
    """One time series: its labels, and its values as pairs of time and value."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Ranges(BaseModel):
    resultType: Literal["matrix"]  # noqa: N815
    result: list[Range]


class _Scalar(BaseModel):
    resultType: Literal["scalar"]  # noqa: N815
    result: tuple[Annotated[float, Field(gt=0, lt=1e11)], str]


Data = TypeVar("Data", _Ranges, _Scalar)


class _Answer(BaseModel, Generic[Data]):
    data: Data


class Prometheus:
    """A Prometheus server. Every method raises InputError if the server does not respond as expected."""

    def __init__(self, url: str, token: str | None) -> None:
        if not re.search(ADDRESS, url):
            raise InputError(f"{url!r} is not the address of Prometheus; use http://prometheus.example.com:9090.")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def now(self) -> float:
        """Return the time of the server, in seconds since 1970."""
        return self._get("query", _Answer[_Scalar], query="time()").result[0]

    def ranges(self, query: str, start: float, end: float, step: float) -> list[Range]:
        """Return the time series of a query between `start` and `end`, with one value every `step` seconds."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._get("query_range", _Answer[_Ranges], query=query, **times).result

    def _get(self, path: str, expected: type[_Answer[Data]], **parameters: str) -> Data:
        content, deadline = bytearray(), time.monotonic() + QUERY_TIMEOUT_SECONDS
        address = f"{self.url}/api/v1/{path}"
        try:
            with requests.get(
                address, parameters, timeout=QUERY_TIMEOUT_SECONDS, headers=self._headers, stream=True
            ) as answer:
                while more := answer.raw.read1(2**16, decode_content=True):
                    content += more
                    if len(content) > MAX_BYTES or time.monotonic() > deadline:
                        raise InputError(
                            f"{self.url} sends its answer too slowly, or too much of it; shorten drift.window."
                        )
        except (requests.RequestException, HTTPError, OSError) as error:
            raise InputError(f"{self.url} does not answer ({type(error).__name__}); correct the address.") from None
        if answer.status_code != requests.codes.ok:
            words = " ".join(content[:300].decode(errors="replace").split())
            raise InputError(f"{self.url} answers with status {answer.status_code}: {words}")
        try:
            return expected.model_validate_json(content).data
        except ValidationError as error:
            words = error.errors()[0]["msg"]
            raise InputError(
                f"The answer of {self.url} is not from Prometheus ({words}); correct the address."
            ) from None

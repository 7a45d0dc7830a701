"""JSON documents as clients send them, before anybody asks what they mean."""

import json
from typing import Any

import msgspec
import numpy as np

from slipway.serving.problems import Problem

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for documents that are no JSON, or not of the type asked for."""


def is_array(body: bytes) -> bool:
    """Whether the JSON document is an array, if it is one at all."""
    return body.lstrip().startswith(b"[")


def parse(body: bytes) -> Any:
    """Any JSON document; raises Problem for what is none, and for keys that an object has twice."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body cannot be read as JSON: {error}.") from None
    except RecursionError:
        raise Problem(400, "The body is nested too deep; send flat records.") from None
    refuse_duplicates(body, None)
    return document


def refuse_duplicates(body: bytes, strings: int | None) -> None:
    """Raise Problem if an object of the document has a key twice: a reader would silently take the last.

    `strings` is how many strings the reader saw. Where the text has just as many, no key is there twice, and the text
    need not be read again. Each string has two quotation marks, and only a backslash could hide another.
    """
    if strings is not None and b"\\" not in body:
        quotes = np.count_nonzero(np.frombuffer(body, np.uint8) == ord('"')) if len(body) > 16_384 else body.count(b'"')
        if quotes == 2 * strings:
            return
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except RecursionError:
        raise Problem(400, "The body is nested too deep; send flat records.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Problem(400, f"An object has the key {twice[:80]!r} twice; send it once.")
    return members

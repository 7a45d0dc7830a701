"""What a check finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from slipway.doctor.context import Fork

State = Literal["holds", "missing", "unknown"]
"""`unknown` where it could not be looked at, or where a fork may well do without."""


@dataclass(frozen=True)
class Finding:
    """One sentence on a thing that a fork needs. `command` mends it, or shows more; it is empty where that holds."""

    name: str
    state: State
    sentence: str
    command: str = ""


Check = Callable[[Fork], Finding]
"""Looks at one thing; who runs it knows its name. Raises InputError where params.yaml, which it needs, is not valid."""


def holds(sentence: str) -> Finding:
    return Finding("", "holds", sentence)


def missing(sentence: str, command: str) -> Finding:
    return Finding("", "missing", sentence, command)


def unknown(sentence: str, command: str) -> Finding:
    return Finding("", "unknown", sentence, command)

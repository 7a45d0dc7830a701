"""The result of a check."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from slipway.doctor.context import Fork

State = Literal["ok", "missing", "optional", "unknown"]
"""`optional` if the fork works without it, `unknown` if the check could not run."""


@dataclass(frozen=True)
class Finding:
    """One sentence about the state, and the fix: a command to paste, a place to edit, or both in this order."""

    state: State
    sentence: str
    command: str = ""
    place: str = ""


Check = Callable[[Fork], Finding]
"""Examines one thing that a user can fix. Raises InputError if params.yaml is needed and invalid."""

ok = partial(Finding, "ok")
missing = partial(Finding, "missing")
optional = partial(Finding, "optional")
unknown = partial(Finding, "unknown")

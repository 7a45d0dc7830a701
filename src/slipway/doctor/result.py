"""The result of a check."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from slipway.doctor.context import Fork

State = Literal["ok", "missing", "optional", "unknown"]
"""`optional` means that a fork can work without what is missing. `unknown` means that the check could not run."""


@dataclass(frozen=True)
class Finding:
    """The state, one sentence about it, and the fix. A fix is a command to paste, a place to edit, or both."""

    state: State
    sentence: str
    command: str = ""
    place: str = ""


Check = Callable[[Fork], Finding]
"""A function that checks one thing that a user can fix. It raises InputError if it needs an invalid params.yaml."""

ok = partial(Finding, "ok")
missing = partial(Finding, "missing")
optional = partial(Finding, "optional")
unknown = partial(Finding, "unknown")

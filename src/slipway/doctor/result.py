"""Define the result of a check of `slipway doctor`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from slipway.doctor.context import Fork

State = Literal["ok", "missing", "optional", "unknown"]
"""`optional` means that a fork works without the missing setting. `unknown` means that the check could not run."""


@dataclass(frozen=True)
class Finding:
    """The state that a check found, a sentence, and the fix: a command to paste, a place to edit, or both."""

    state: State
    sentence: str
    command: str = ""
    place: str = ""


Check = Callable[[Fork], Finding]
"""A function that checks one setting or program. It raises InputError if it reads params.yaml and the file is invalid.
"""

ok = partial(Finding, "ok")
missing = partial(Finding, "missing")
optional = partial(Finding, "optional")
unknown = partial(Finding, "unknown")

"""Read `.slipway.json`: the framework version of a fork, and the identity that `slipway init` set."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.errors import InputError
from slipway.fork.identity import Identity

RECORD = Path(".slipway.json")


class Record(BaseModel):
    """The content of `.slipway.json`. Only `slipway init` and `slipway update` write this file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str | None
    """The address of the template repository. None before the first update."""
    version: str
    """The framework version: a tag of the template or, before the first update, the version in pyproject.toml."""
    identity: Identity
    files: dict[str, str]
    """The git hash that each framework file has in this version of the template, by path."""

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse the content of `.slipway.json`. Raises InputError if the content is not valid."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            raise InputError(
                f"{RECORD} is not a record of `slipway init`; restore it with `git checkout {RECORD}`."
            ) from None

    def content(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

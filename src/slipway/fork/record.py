"""`.slipway.json`: the framework version of a fork, and the identity that `slipway init` gave it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.errors import InputError
from slipway.fork.identity import Identity

RECORD = Path(".slipway.json")


class Record(BaseModel):
    """The content of `.slipway.json`. Only `slipway init` and `slipway update` write it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str | None
    """The address of the template repository. None before the first update."""
    version: str
    """The version of the framework: a tag of the template. Before the first update, the version in pyproject.toml."""
    identity: Identity
    files: dict[str, str]
    """The git hash of each framework file in the template, by the path of the file."""

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse a record. Raises InputError if the content is not a record."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            raise InputError(
                f"{RECORD} is not a record of `slipway init`; restore it with `git checkout {RECORD}`."
            ) from None

    def content(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

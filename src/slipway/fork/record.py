"""`.slipway.json`: which version of the framework a fork has, and which identity `slipway init` gave it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.errors import InputError
from slipway.fork.identity import Identity

RECORD = Path(".slipway.json")


class Record(BaseModel):
    """What `slipway init` and `slipway update` write. Nobody edits it by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str | None
    """The address of the template repository; None until the first update."""
    version: str
    """The version of the framework: a tag of the template, or before the first update the one in pyproject.toml."""
    identity: Identity
    files: dict[str, str]
    """The files of the framework as the template has them: the path and the hash that git gives the content."""

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raises InputError if the content is not a record."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            raise InputError(
                f"{RECORD} is not what `slipway init` wrote; restore it with `git checkout {RECORD}`."
            ) from None

    def content(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

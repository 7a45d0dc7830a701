"""What an operator may set: environment variables named `SLIPWAY_` and the field in capitals."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slipway.errors import InputError

PREFIX = "SLIPWAY_"


class Settings(BaseModel):
    """How to listen, what to refuse, how to stop. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "model"
    """Its name in the paths of the Open Inference Protocol."""
    max_records: Annotated[int, Field(ge=1)] = 1_000
    """Of one request."""
    max_body: Annotated[int, Field(ge=1)] = 1_048_576
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """Requests whose bodies are still arriving; they are what holds memory."""
    max_connections: Annotated[int, Field(ge=1)] = 2_000
    max_wait: Annotated[float, Field(gt=0)] = 0.05
    """Work on what arrived together, in processor time; what is left after that much is refused."""
    deadline: Annotated[float, Field(gt=0)] = 10
    """Within it a request has to arrive whole."""
    keep_alive: Annotated[float, Field(gt=0)] = 75
    """Idle connections are closed after it. Longer than proxies keep theirs, so that the proxy is who closes."""
    grace: Annotated[float, Field(ge=0)] = 5
    """After SIGTERM: how long requests are still answered, while the cluster learns that this replica leaves."""
    log_requests: bool = False


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings that the environment names; raises InputError for a value that does not fit."""
    named = {name: environment.get(PREFIX + name.upper()) for name in Settings.model_fields}
    try:
        return Settings.model_validate({name: value for name, value in named.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        variable = PREFIX + str(problem["loc"][0]).upper()
        raise InputError(f"The environment variable {variable} is wrong: {problem['msg']}; correct it.") from None

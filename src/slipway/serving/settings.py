"""Settings of the server. The environment variable of a field is `SLIPWAY_` and the field's name in capitals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from slipway.errors import InputError

PREFIX = "SLIPWAY_"
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseModel):
    """The server's address, limits and durations. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")] = "model"
    """Name of the model in the paths of the Open Inference Protocol."""
    execution_providers: Annotated[str, Field(pattern=r"[^,\s]")] = "CPUExecutionProvider"
    """Execution providers of ONNX Runtime in order of preference, separated by commas."""
    max_records: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1_000
    """Maximum number of records in one request."""
    max_body: Annotated[int, Field(ge=1)] = 1_048_576
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """Maximum number of requests whose bodies are still arriving. The limit bounds the memory for these bodies."""
    max_connections: Annotated[int, Field(ge=1)] = 2_000
    max_wait: Seconds = 0.2
    """Maximum CPU time for requests that have arrived together. Beyond this time, the server refuses requests."""
    max_run: Seconds = 0.015
    """Maximum time of one run of the model graph. A request that would take longer is divided into several runs.

    A run for several requests can take twice as long.
    """
    share_runs: Literal["auto", "on", "off"] = "auto"
    """`auto`: requests that arrive together share a run if that is faster and gives equal predictions."""
    deadline: Seconds = 10
    """Maximum time for a request to arrive."""
    keep_alive: Seconds = 75
    """Time until an idle connection is closed. A proxy must use a shorter time, so that the proxy closes it first."""
    grace: Annotated[float, Field(ge=0, le=86_400)] = 5
    """Time for which the server still answers requests after SIGTERM, while the cluster stops sending new requests."""
    log_requests: bool = False
    prediction_log: Path | None = None
    """Folder to which the prediction log is written, or None to turn the log off."""
    prediction_log_share: Annotated[float, Field(gt=0, le=1)] = 1
    """Share of keys whose rows are logged. If requests have no key, the share of requests to log."""
    prediction_log_secret: SecretStr | None = None
    """Secret with which private values are hashed."""
    prediction_log_max_bytes: Annotated[int, Field(ge=1)] = 536_870_912
    """Maximum size of the log folder. When the folder is full, further rows are dropped."""
    prediction_log_seconds: Seconds = 10
    """Maximum time that a row waits before it is written. Waiting rows are lost if the process is killed."""

    @property
    def providers(self) -> list[str]:
        return [name.strip() for name in self.execution_providers.split(",") if name.strip()]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment. Raises InputError for an invalid value.

    An empty value is invalid, because an empty host would be all addresses, and an empty folder the working directory.
    Only the secret can be empty, because GitHub sets a secret that does not exist to an empty text.
    """
    named = {name: environment.get(PREFIX + name.upper()) for name in Settings.model_fields}
    for name, value in named.items():
        if value == "" and name != "prediction_log_secret":
            raise InputError(f"The environment variable {PREFIX}{name.upper()} is wrong: it is empty; correct it.")
    try:
        return Settings.model_validate({name: value for name, value in named.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        variable = PREFIX + str(problem["loc"][0]).upper()
        raise InputError(f"The environment variable {variable} is wrong: {problem['msg']}; correct it.") from None

"""GitHub Actions: read the event that started a run, and write the outputs and the summary of a step.

`environ` contains the variables that Actions sets: https://docs.github.com/actions/reference/workflows-and-actions/variables
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AliasPath, BaseModel, Field, ValidationError

from slipway.errors import InputError

Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Payload = TypeVar("Payload", bound=BaseModel)


class WorkflowRun(BaseModel):
    """The completed workflow run in the payload of a `workflow_run` event. `head_repository` is OWNER/NAME."""

    id: int = Field(gt=0, validation_alias=AliasPath("workflow_run", "id"))
    conclusion: str | None = Field(None, validation_alias=AliasPath("workflow_run", "conclusion"))
    head_branch: str | None = Field(None, validation_alias=AliasPath("workflow_run", "head_branch"))
    head_sha: Sha = Field(validation_alias=AliasPath("workflow_run", "head_sha"))
    head_repository: str = Field(validation_alias=AliasPath("workflow_run", "head_repository", "full_name"))


class RunDispatch(BaseModel):
    """The payload of a `workflow_dispatch` event. Its input `run` is the number of a completed workflow run."""

    run: int = Field(gt=0, validation_alias=AliasPath("inputs", "run"))


def in_actions(environ: Mapping[str, str]) -> bool:
    """Return whether this process runs in GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


def server_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the GitHub server, without a final slash."""
    return environ.get("GITHUB_SERVER_URL") or "https://github.com"


def repository_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the repository that GITHUB_REPOSITORY names."""
    return f"{server_url(environ)}/{environ['GITHUB_REPOSITORY']}"


def run_url(environ: Mapping[str, str], run_id: int | None = None) -> str:
    """Return the URL of a workflow run. The default is the current run."""
    return f"{repository_url(environ)}/actions/runs/{run_id or environ.get('GITHUB_RUN_ID', '')}"


def read_event(environ: Mapping[str, str], name: str, payload: type[Payload]) -> Payload:
    """Read the payload of the event `name` that started this workflow run.

    Raises InputError if the file GITHUB_EVENT_PATH does not exist, or if its content does not fit the type `payload`.
    """
    try:
        return payload.model_validate_json(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
    except (KeyError, OSError):
        raise InputError(
            f"GITHUB_EVENT_PATH does not name the file of an event {name!a}; run this in a GitHub workflow."
        ) from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise InputError(
            f"GITHUB_EVENT_PATH: {where} is not valid for the event {name!a}; start this workflow with that event."
        ) from None


def read_workflow_run(environ: Mapping[str, str]) -> WorkflowRun:
    """Read the completed run from the event `workflow_run`. Raises InputError for any other event."""
    return read_event(environ, "workflow_run", WorkflowRun)


def write_outputs(values: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Set outputs of the current step. Do nothing outside of a workflow."""
    _append(environ.get("GITHUB_OUTPUT"), "".join(f"{name}={value}\n" for name, value in values.items()))


def append_summary(markdown: str, environ: Mapping[str, str]) -> None:
    """Append text to the summary of the current job. Do nothing outside of a workflow."""
    _append(environ.get("GITHUB_STEP_SUMMARY"), markdown)


def _append(file: str | None, text: str) -> None:
    if file:
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write(text)

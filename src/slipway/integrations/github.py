"""Access GitHub's API with PyGithub. Time limits are short, so that a job fails within a minute if GitHub hangs."""

from collections.abc import Iterator, Mapping

import requests
from github import Auth, Github, GithubException
from github.Repository import Repository
from requests import RequestException
from urllib3 import Retry

from slipway.errors import InputError
from slipway.integrations.actions import RunDispatch, WorkflowRun, read_event, read_workflow_run
from slipway.integrations.git import MAIN

CHECKS = "pull-request.yml"
"""File name of the workflow that checks a pull request and makes its report."""
GITHUB_TIMEOUT_SECONDS = 10
"""Time limit of one request."""
ERRORS = (GithubException, RequestException)
"""The exceptions that a request can raise."""
# Write requests are not repeated. A request that exceeds a rate limit fails at once.
RETRY = Retry(
    total=2,
    backoff_factor=0.5,
    status_forcelist=(500, 502, 503, 504),
    respect_retry_after_header=False,
    raise_on_status=False,
)


def connect(environ: Mapping[str, str], timeout_seconds: int | None = None, retry: Retry = RETRY) -> Repository:
    """Return the repository that GITHUB_REPOSITORY names, with the access that GITHUB_TOKEN gives. No request is sent.

    Raises InputError if one of these variables is not set.
    """
    for variable in ("GITHUB_TOKEN", "GITHUB_REPOSITORY"):
        if not environ.get(variable):
            raise InputError(f"{variable} is not set; in a workflow, give it to this step under `env:`.")
    client = Github(
        auth=Auth.Token(environ["GITHUB_TOKEN"]),
        base_url=environ.get("GITHUB_API_URL") or "https://api.github.com",
        timeout=GITHUB_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
        per_page=100,
        verify=_authorities(environ),
        retry=retry,
        seconds_between_requests=None,
        lazy=True,
    )
    return client.get_repo(environ["GITHUB_REPOSITORY"])


def _authorities(environ: Mapping[str, str]) -> str | bool:
    """Return the file with the certificate authorities to trust, or True for the installed certificate authorities."""
    return environ.get("REQUESTS_CA_BUNDLE") or environ.get("SSL_CERT_FILE") or True


def login(repository: Repository) -> str | None:
    """Return the user that the token belongs to. Return None for the token of a workflow, which has no user."""
    try:
        return str(repository.requester.requestJsonAndCheck("GET", "/user")[1]["login"])
    except ERRORS:
        return None


def reason(error: Exception) -> str:
    """Return the reason why a request failed: GitHub's status and message, or the type of the exception."""
    if isinstance(error, GithubException):
        message = error.data.get("message") if isinstance(error.data, dict) else None
        return f"{error.status} {message or ''}".strip()
    return type(error).__name__


def start_workflow(repository: Repository, workflow: str) -> str | None:
    """Start a workflow on `main`. Return None on success, else the problem and the command to start it by hand."""
    try:
        repository.get_workflow(workflow).create_dispatch(MAIN, throw=True)
    except ERRORS as error:
        return f"{workflow} cannot be started ({reason(error)}); start it with `gh workflow run {workflow}`."
    return None


def find_checked_run(environ: Mapping[str, str], workflow: str) -> WorkflowRun:
    """Return the completed run of `workflow` that the current workflow run has to process.

    The event `workflow_run` contains the completed run. The event `workflow_dispatch` contains only the run's number,
    as the input `run`, so the run is read from GitHub's API. Raises InputError for any other event, and if the run
    belongs to another workflow or has not ended.
    """
    if environ.get("GITHUB_EVENT_NAME") != "workflow_dispatch":
        return read_workflow_run(environ)
    number = read_event(environ, "workflow_dispatch", RunDispatch).run
    try:
        run = connect(environ).get_workflow_run(number)
        path, status = run.path, run.status
    except ERRORS as error:
        raise InputError(
            f"Run {number} cannot be read ({reason(error)}); check its number and run this again."
        ) from None
    if path != f".github/workflows/{workflow}" or status != "completed":
        raise InputError(f"Run {number} is not a completed run of {workflow}; give the number of one.")
    return WorkflowRun.model_validate({"workflow_run": run.raw_data})


def artifacts_of(environ: Mapping[str, str], workflow: str, head: str, name: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the artifacts with the name `name` as ZIP archives, the newest first.

    The artifacts come from the runs of a workflow on the commit `head`. The content of the artifacts is untrusted.
    Artifacts larger than `max_bytes` are left out. Raises InputError if GitHub does not answer.
    """
    repository = connect(environ)
    headers = {"Authorization": f"Bearer {environ['GITHUB_TOKEN']}"}
    try:
        for run in repository.get_workflow(workflow).get_runs(head_sha=head):
            for each in run.get_artifacts():
                if each.name == name and not each.expired and each.size_in_bytes <= max_bytes:
                    answer = requests.get(
                        each.archive_download_url,
                        headers=headers,
                        verify=_authorities(environ),
                        timeout=GITHUB_TIMEOUT_SECONDS,
                    )
                    answer.raise_for_status()
                    yield answer.content
    except ERRORS as error:
        raise InputError(f"The artifacts of {head[:12]} cannot be read ({reason(error)}); run this again.") from None

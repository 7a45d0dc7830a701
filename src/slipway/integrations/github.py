"""GitHub's API, by PyGithub: impatient, so that a server which hangs fails a job within a minute."""

from collections.abc import Mapping

from github import Auth, Github, GithubException
from github.Repository import Repository
from requests import RequestException
from urllib3 import Retry

from slipway.errors import InputError

SECONDS = 10
"""How long an answer may take."""
ERRORS = (GithubException, RequestException)
"""What asking can raise."""
# Nothing is written twice, and no rate limit is waited for.
RETRY = Retry(
    total=2,
    backoff_factor=0.5,
    status_forcelist=(500, 502, 503, 504),
    respect_retry_after_header=False,
    raise_on_status=False,
)


def connect(environ: Mapping[str, str], seconds: int | None = None, retry: Retry = RETRY) -> Repository:
    """The repository GITHUB_REPOSITORY, as GITHUB_TOKEN may see it; nothing is asked before something of it is wanted.

    Raises InputError where one of these variables lacks.
    """
    for variable in ("GITHUB_TOKEN", "GITHUB_REPOSITORY"):
        if not environ.get(variable):
            raise InputError(f"{variable} is not set; in a workflow, give it to this step under `env:`.")
    client = Github(
        auth=Auth.Token(environ["GITHUB_TOKEN"]),
        base_url=environ.get("GITHUB_API_URL") or "https://api.github.com",
        timeout=SECONDS if seconds is None else seconds,
        per_page=100,
        verify=environ.get("REQUESTS_CA_BUNDLE") or environ.get("SSL_CERT_FILE") or True,
        retry=retry,
        seconds_between_requests=None,
        lazy=True,
    )
    return client.get_repo(environ["GITHUB_REPOSITORY"])


def login(repository: Repository) -> str | None:
    """Whose token it is; None for that of a workflow, which is nobody's."""
    try:
        return str(repository.requester.requestJsonAndCheck("GET", "/user")[1]["login"])
    except ERRORS:
        return None


def reason(error: Exception) -> str:
    """Why a request failed, in a few words."""
    if isinstance(error, GithubException):
        message = error.data.get("message") if isinstance(error.data, dict) else None
        return f"{error.status} {message or ''}".strip()
    return type(error).__name__

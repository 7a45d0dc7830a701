"""An issue for a release that failed: opened once, and told again where it is still open."""

from collections.abc import Mapping

from slipway.errors import InputError
from slipway.integrations import github
from slipway.integrations.actions import run_url

LABEL = "release"
WORDS = (
    "What `main` said before is live again in {0}. The log of the run says what failed. `slipway releases {0}` lists "
    "what was released and taken back; that model is not released again unless `slipway candidate --again` says so."
)


def report(environment: str, environ: Mapping[str, str]) -> str:
    """Open an issue on a release to an environment, or comment on the open one; returns its address.

    Raises InputError where GitHub does not take it.
    """
    repository = github.connect(environ)
    title = f"A release to {environment} failed, and was taken back"
    text = f"{WORDS.format(environment)}\n\nThe run: {run_url(environ)}"
    try:
        for issue in repository.get_issues(state="open", labels=[LABEL]):
            if issue.title == title:
                return str(issue.create_comment(text).html_url)
        return str(repository.create_issue(title, text, labels=[LABEL]).html_url)
    except github.ERRORS as error:
        raise InputError(f"The issue {title!r} cannot be opened ({github.reason(error)}).") from None

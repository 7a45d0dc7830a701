"""Open a pull request for a pushed branch."""

from collections.abc import Callable, Mapping

from slipway.errors import InputError
from slipway.integrations import github
from slipway.integrations.git import MAIN, tip

MAX_BODY = 60_000
"""Maximum number of characters in the text of a pull request. GitHub refuses more than 65,536 characters."""


def open_pull(branch: str, environ: Mapping[str, str], render: Callable[[str], str] = str) -> str:
    """Open a pull request for a branch, with the last commit's message as its text. Return its title and URL.

    `render` converts the text to Markdown. Without GITHUB_TOKEN, return the command that opens the pull request. Raises
    InputError if GitHub refuses the pull request.
    """
    if not environ.get("GITHUB_TOKEN"):
        return f"{branch} is pushed; open its pull request with `gh pr create --head {branch} --fill`"
    title, _, body = tip(environ, branch).commit.message.partition("\n")
    try:
        pull = github.connect(environ).create_pull(base=MAIN, head=branch, title=title, body=_cut(render(body.strip())))
    except github.ERRORS as error:
        raise InputError(
            f"The pull request of {branch} cannot be opened ({github.reason(error)}); run this again."
        ) from None
    return f"{title}: {pull.html_url}"


def _cut(body: str) -> str:
    return body if len(body) <= MAX_BODY else f"{body[:MAX_BODY]}…"

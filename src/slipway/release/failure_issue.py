"""Report a failed release in a GitHub issue."""

from collections.abc import Mapping

from slipway.errors import InputError
from slipway.integrations import github
from slipway.integrations.actions import run_url
from slipway.integrations.git import tip
from slipway.release.history import PRODUCTION, previous, releases, rollbacks

LABEL = "release"
AGAIN = "Fix the cause and run the workflow `Ship` again."
AGAIN_IN_PRODUCTION = (
    "The failed model is not released again automatically. Merge another one, or run the workflow `Ship` with the "
    "input `again`."
)


def report(environment: str, environ: Mapping[str, str]) -> str:
    """Open an issue about the failed release to an environment. If the issue is open already, add a comment.

    Returns the address of the issue or comment. Raises InputError if GitHub refuses the issue or comment.
    """
    repository = github.connect(environ)
    outcome, text = _outcome(environment, environ)
    title = f"A release to {environment} failed, and {outcome}"
    text = f"{text}\n\nThe log of the run shows what failed: {run_url(environ)}"
    try:
        for issue in repository.get_issues(state="open", labels=[LABEL]):
            if issue.title == title:
                return str(issue.create_comment(text).html_url)
        return str(repository.create_issue(title, text, labels=[LABEL]).html_url)
    except github.ERRORS as error:
        raise InputError(f"The issue {title!r} cannot be opened ({github.reason(error)}).") from None


def _outcome(environment: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return two texts about a failed release: the outcome for the title of the issue, and what the user has to do."""
    history = list(releases(tip(environ), environment))
    tag = history[0].deployed.image.tag if history else "nothing"
    if 0 in rollbacks(history):
        again = AGAIN_IN_PRODUCTION if environment == PRODUCTION else AGAIN
        return "was rolled back", f"{environment} is back at {tag}, by a commit on `main`. {again}"
    if previous(history) is None:
        return (
            "there is no earlier one",
            f"It was the first release to {environment}, so `main` still has the release {tag}. {AGAIN}",
        )
    return (
        "was not rolled back",
        f"`main` still has the release {tag} for {environment}. Run `slipway rollback {environment}`, or fix the cause "
        "and run the workflow `Ship` again.",
    )

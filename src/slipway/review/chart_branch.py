"""Push the charts of a report to a branch of the repository, so that a comment can show them."""

from collections.abc import Mapping

from slipway.errors import CheckFailed, InputError
from slipway.integrations import actions, git
from slipway.integrations.process import ProcessFailed

BRANCH = "reports"


def push_charts(
    charts: Mapping[str, bytes], number: int, head: str, environ: Mapping[str, str], judged: str = ""
) -> str | None:
    """Replace the charts of a pull request on the branch `reports`, and return the address of their folder.

    `judged` is the commit message line that names the evaluated model (`slipway.review.looks`), or "". If there are no
    charts, only a file with `judged` is pushed, and None is returned. The remote is
    GITHUB_REPOSITORY, or the address in SLIPWAY_REPORTS_REMOTE. Raises CheckFailed if the push fails.
    """
    repository = actions.repository_url(environ)
    remote = environ.get("SLIPWAY_REPORTS_REMOTE") or f"{repository}.git"
    shown = remote.removesuffix(".git") if remote.startswith("https://") else repository
    if "@" in shown:
        raise CheckFailed("The comment has no charts: SLIPWAY_REPORTS_REMOTE must be an address without a user name.")
    folder = f"{number}/{head[:12]}"
    files = {f"{folder}/{name}": content for name, content in charts.items()}
    if judged and not files:
        files[f"{folder}/judged.txt"] = judged.encode()
    if not files:
        return None
    message = f"Add the charts of {folder}" + (f"\n\n{judged}" if judged else "")
    try:
        git.replace_folder(remote, BRANCH, str(number), files, message, environ)
    except InputError as error:
        reason = error.message if isinstance(error, ProcessFailed) else str(error)
        raise CheckFailed(f"The comment has no charts: pushing to {BRANCH} failed ({reason.rstrip('.')}).") from None
    except CheckFailed as error:
        raise CheckFailed(f"The comment has no charts: {error}") from None
    return f"{shown}/raw/{BRANCH}/{folder}" if charts else None

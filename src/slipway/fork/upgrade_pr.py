"""Open a pull request that upgrades the locked packages and the digests of the base images."""

from collections.abc import Mapping
from pathlib import Path

from slipway.errors import InputError
from slipway.integrations import github, process
from slipway.integrations.git import Snapshot, create_branch
from slipway.integrations.pull_requests import open_pull

UPGRADED = ("requirements", "Dockerfile")
PREFIX = "upgrade/"
MESSAGE = """Upgrade the locked packages

`make upgrade` has locked the newest versions that pyproject.toml allows, and `slipway image pin` the newest base
images. If a version changes the model, the report compares it with the one in production.
"""


def open_upgrade_pr(environ: Mapping[str, str]) -> str:
    """Open a pull request with the lock files and the Dockerfile of the work tree. Return a sentence for the log.

    Does nothing if these files do not differ from the last commit, or if the pull request of an earlier upgrade is
    still open. Raises InputError if GitHub does not answer, and CheckFailed if origin refuses the branch.
    """
    changed = process.run("git", "diff", "--name-only", "HEAD", "--", *UPGRADED).splitlines()
    if not changed:
        return "all packages have the newest versions that pyproject.toml allows"
    if waiting := _waiting(environ):
        return f"{waiting} is open; merge or close it first"
    branch = PREFIX + process.run("git", "rev-parse", "--short=12", "HEAD")
    files = {path: Path(path).read_bytes() for path in changed}

    def edit(_: Snapshot) -> Mapping[str, bytes]:
        return files

    if not create_branch(branch, edit, MESSAGE, environ):
        return f"{branch} was proposed before; delete the branch to propose it again"
    return open_pull(branch, environ)


def _waiting(environ: Mapping[str, str]) -> str | None:
    """Return the address of an open pull request from an earlier upgrade, or None."""
    if not environ.get("GITHUB_TOKEN"):
        return None
    try:
        pulls = github.connect(environ).get_pulls(state="open")
        return next((str(each.html_url) for each in pulls if each.head.ref.startswith(PREFIX)), None)
    except github.ERRORS as error:
        raise InputError(f"GitHub does not list pull requests ({github.reason(error)}); run this again.") from None

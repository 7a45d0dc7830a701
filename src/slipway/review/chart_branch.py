"""The charts of a report, on a branch of their own, where a comment can show them."""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from slipway.errors import CheckFailed
from slipway.integrations import isolated_subprocess

BRANCH = "reports"
TRIES = 4
"""How often it is pushed on a new tip where others push too."""
SECONDS = 30
"""How long a command of git may take."""

Git = Callable[..., isolated_subprocess.Done]


def push(charts: Mapping[str, bytes], number: int, head: str, environ: Mapping[str, str]) -> str:
    """Put the charts of a pull request on the branch `reports` instead of its earlier ones; returns their address.

    The remote is that of GITHUB_REPOSITORY, or SLIPWAY_REPORTS_REMOTE. Raises CheckFailed if it cannot be pushed to.
    """
    server = environ.get("GITHUB_SERVER_URL") or "https://github.com"
    repository = f"{server}/{environ['GITHUB_REPOSITORY']}"
    remote = environ.get("SLIPWAY_REPORTS_REMOTE") or f"{repository}.git"
    shown = remote.removesuffix(".git") if remote.startswith("https://") else repository
    if "@" in shown:
        raise CheckFailed(
            "The comment has no pictures: SLIPWAY_REPORTS_REMOTE must be an address without a user in it."
        )
    folder = f"{number}/{head[:12]}"
    with tempfile.TemporaryDirectory() as home:
        git = _git(Path(home), server, environ)
        for name, content in charts.items():
            file = Path(home, folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        _must(git("init", "--quiet"))
        _must(git("remote", "add", "origin", remote))
        for attempt in range(TRIES):
            time.sleep(attempt * random.uniform(0.1, 0.5))  # noqa: S311 (so that two that race do not meet again)
            pushed = _push_on_tip(git, number, folder)
            if pushed.succeeded:
                return f"{shown}/raw/{BRANCH}/{folder}"
    rejected = [line.split("\t")[-1] for line in pushed.out.splitlines() if line.startswith("!")]
    raise CheckFailed(_sentence(rejected[0] if rejected else pushed.words))


def _git(home: Path, server: str, environ: Mapping[str, str]) -> Git:
    """A git that reads no configuration of this machine's user, and holds the token for this server only."""
    token = environ.get("GITHUB_TOKEN", "")
    header = isolated_subprocess.authorization(token)
    variables = {
        "GIT_AUTHOR_NAME": isolated_subprocess.WHO,
        "GIT_AUTHOR_EMAIL": isolated_subprocess.EMAIL,
        "GIT_COMMITTER_NAME": isolated_subprocess.WHO,
        "GIT_COMMITTER_EMAIL": isolated_subprocess.EMAIL,
        **isolated_subprocess.with_token(server, token),
    }
    return lambda *command: isolated_subprocess.run(
        ["git", *command], home, environ, variables, secrets=[token, header.split()[-1]], seconds=SECONDS
    )


def _push_on_tip(git: Git, number: int, folder: str) -> isolated_subprocess.Done:
    """Commit onto the branch as it is now. Nothing of it is checked out, or fetched but its trees."""
    listed = _must(git("ls-remote", "origin", f"refs/heads/{BRANCH}"))
    tip = listed.split("\t")[0]
    if tip:
        _must(git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", f"refs/heads/{BRANCH}"))
    _must(git("read-tree", "FETCH_HEAD" if tip else "--empty"))
    _must(git("rm", "-r", "--cached", "--force", "--quiet", "--ignore-unmatch", "--", f"{number}/"))
    _must(git("add", "--", folder))
    tree = _must(git("write-tree"))
    parent = ("-p", "FETCH_HEAD") if tip else ()
    commit = _must(git("commit-tree", *parent, "-m", f"Pictures of {folder}", tree))
    return git("push", "--porcelain", "origin", f"{commit}:refs/heads/{BRANCH}")


def _must(done: isolated_subprocess.Done) -> str:
    if not done.succeeded:
        raise CheckFailed(_sentence(done.words))
    return done.out.strip()


def _sentence(words: str) -> str:
    return f"The comment has no pictures: the branch `{BRANCH}` cannot be pushed ({words.rstrip('.')})."

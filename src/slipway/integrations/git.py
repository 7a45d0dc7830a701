"""Landing a change on `main`: a commit on whatever the tip is, pushed; on a new tip it is made again.

No work tree takes part, so nothing of a person's is touched, and a kill leaves nothing but unreachable objects.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pygit2

from slipway.errors import CheckFailed, InputError
from slipway.integrations import isolated_subprocess, process

BRANCH = "main"
PATIENCE = 180.0
"""Seconds for which pushes of others are given way to."""
PROTECTED = ("protected branch", "GH006", "GH013", "rule violations", "pre-receive hook declined")
"""What GitHub and others say where a rule refuses a push."""


@dataclass(frozen=True)
class Snapshot:
    """The files of a commit."""

    repository: pygit2.Repository
    commit: pygit2.Commit

    @property
    def name(self) -> str:
        return str(self.commit.id)

    def read(self, path: str | Path) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            found = self.commit.tree[str(path)]
        except KeyError:
            return None
        return found.data if isinstance(found, pygit2.Blob) else None


Edit = Callable[[Snapshot], Mapping[str, bytes]]
"""The files to write on a tip, with their content; none where it has all already."""


def snapshot(revision: str = "HEAD", at: Path = Path()) -> Snapshot:
    """The files at a revision of this clone; raises InputError where it names no commit."""
    try:
        repository = pygit2.Repository(str(at))
        return Snapshot(repository, repository.revparse_single(revision).peel(pygit2.Commit))
    except (pygit2.GitError, KeyError, ValueError):
        raise InputError(f"{revision!a} is no commit of this clone; fetch it with `git fetch origin`.") from None


def known() -> Snapshot:
    """What this clone knows of `main`: that of origin, or its own last commit where there is no origin."""
    try:
        return snapshot(f"refs/remotes/origin/{BRANCH}")
    except InputError:
        return snapshot()


def tip(environ: Mapping[str, str], branch: str = BRANCH) -> Snapshot:
    """The newest commit of a branch at the remote `origin`, fetched."""
    _git(environ, "fetch", "--quiet", "origin", f"+refs/heads/{branch}:refs/remotes/origin/{branch}")
    return snapshot(f"refs/remotes/origin/{branch}")


def land(edit: Edit, message: str, environ: Mapping[str, str]) -> str | None:
    """Commit what `edit` says on the tip of `main` at `origin`; returns the commit, or None if nothing had to change.

    Raises CheckFailed where a rule of the remote does not let the push pass, or where others push for too long.
    """
    deadline = time.monotonic() + PATIENCE
    made = None
    while True:
        now = tip(environ)
        if made and _is_in(now, made):  # the push arrived, though its answer did not
            return made
        changed = edit(now)
        if not changed:
            return None
        made = _commit(now, changed, message)
        words = _push(made, environ)
        if words is None:
            return made
        if tip(environ).name == now.name:
            raise CheckFailed(_why_not(words))
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"Others pushed to {BRANCH} for {PATIENCE:.0f} seconds, before each push of this; run it again."
            )
        time.sleep(random.uniform(0.0, 0.3))  # noqa: S311 (so that two that race do not meet again)


def publish(branch: str, edit: Edit, message: str, environ: Mapping[str, str]) -> bool:
    """Make a new branch at `origin`: the tip of `main` with what `edit` says; False where the branch is there already.

    Raises CheckFailed where origin does not take it.
    """
    now = tip(environ)
    words = _push(_commit(now, edit(now), message), environ, branch)
    if words is not None and branch not in branches(branch, environ):
        raise CheckFailed(_why_not(words, branch))
    return words is None


def branches(pattern: str, environ: Mapping[str, str]) -> list[str]:
    """The branches of `origin` that match a pattern."""
    listed = _git(environ, "ls-remote", "--heads", "origin", f"refs/heads/{pattern}")
    return sorted(line.split("\t")[1].removeprefix("refs/heads/") for line in listed.splitlines())


def _is_in(now: Snapshot, commit: str) -> bool:
    return now.name == commit or now.repository.descendant_of(now.name, commit)


def _commit(now: Snapshot, changed: Mapping[str, bytes], message: str) -> str:
    repository, index = now.repository, pygit2.Index()
    index.read_tree(now.commit.tree)
    for path, content in changed.items():
        mode = index[path].mode if path in index else pygit2.enums.FileMode.BLOB
        index.add(pygit2.IndexEntry(path, repository.create_blob(content), mode))
    who = _signature(repository)
    return str(repository.create_commit(None, who, who, message, index.write_tree(repository), [now.commit.id]))


def _signature(repository: pygit2.Repository) -> pygit2.Signature:
    try:
        return repository.default_signature
    except KeyError:
        return pygit2.Signature(isolated_subprocess.WHO, isolated_subprocess.EMAIL)


def _push(commit: str, environ: Mapping[str, str], branch: str = BRANCH) -> str | None:
    """None if it arrived, or else all that git and the remote said."""
    try:
        _git(environ, "push", "--porcelain", "origin", f"{commit}:refs/heads/{branch}")
    except process.Failed as error:
        return error.printed
    return None


def _why_not(words: str, branch: str = BRANCH) -> str:
    if any(each in words for each in PROTECTED):
        return (
            f"A rule of origin protects {branch} from this push; let the App of docs/github.md bypass it, and set "
            "the variable SLIPWAY_APP_ID and the secret SLIPWAY_APP_KEY."
        )
    said = [line.strip() for line in words.splitlines() if line.startswith(("remote: ", "!", "fatal: "))]
    return (
        f"origin does not take the push to {branch} ({' '.join(said)[:300] or 'it does not say why'}); nothing changed."
    )


def _git(environ: Mapping[str, str], *command: str) -> str:
    token, server = environ.get("GITHUB_TOKEN"), environ.get("GITHUB_SERVER_URL") or "https://github.com"
    return process.run("git", *command, variables=isolated_subprocess.with_token(server, token) if token else {})

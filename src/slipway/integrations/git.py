"""Make commits on a branch of a remote repository, without a work tree.

Each commit is made on top of the newest commit of the branch, and pushed. If another push came first, the commit is
repeated on top of the branch's new tip. The user's files are never changed. A process that is killed leaves only
unreachable objects in the repository.
"""

import base64
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pygit2

from slipway.errors import CheckFailed, InputError
from slipway.integrations import actions, process
from slipway.integrations.github_text import REFERENCE, without_effect

MAIN = "main"
BOT = ("github-actions[bot]", "41898282+github-actions[bot]@users.noreply.github.com")
"""The author of commits if git has no configured user."""
CONTENTION_TIMEOUT_SECONDS = 180.0
"""Time for which a push is repeated while other processes push to the same branch."""
GIT_TIMEOUT_SECONDS = 300.0
"""Time limit of one git command with a token. Without a token there is no limit, because git can prompt for a password.
"""
CHARTS_GIT_TIMEOUT_SECONDS = 30.0
"""Time limit of one git command on a branch that contains only charts."""
EFFECTIVE = re.compile(
    rf"{REFERENCE}|/(issues|pull|discussions)/(?=\d)"
    r"|\[(?=(skip|no) ci\]|ci skip\]|skip actions\]|actions skip\])|\bskip-checks:",
    re.IGNORECASE,
)
"""Matches the start of each text that has an effect in a commit message on GitHub: it mentions a person, closes an
issue, or skips workflows.
"""
PROTECTED = ("protected branch", "GH006", "GH013", "rule violations", "pre-receive hook declined")
"""Words that GitHub and other servers print if a rule of the repository refuses a push."""
REFUSED = (
    (
        "GH001",
        "a file is larger than GitHub accepts; keep the DVC remote outside of the repository, see docs/storage.md",
    ),
    ("PUSH PROTECTION", "it contains a secret; remove the secret, and revoke it"),
    ("refusing to allow", "the token may not change workflow files; merge that change by a pull request"),
)
"""Words that GitHub prints if it refuses a push, each with the cause and the fix. Bypassing the rules does not help."""
CONTENDED = ("fetch first", "non-fast-forward", "cannot lock ref", "failed to update ref")
"""Words that git prints if it refuses a push because another push came first."""


@dataclass(frozen=True)
class Snapshot:
    """The files of a commit."""

    repository: pygit2.Repository
    commit: pygit2.Commit

    @property
    def name(self) -> str:
        return str(self.commit.id)

    def read(self, path: str | Path) -> bytes | None:
        """Return the content of a file, or None if there is no such file."""
        try:
            found = self.commit.tree[str(path)]
        except KeyError:
            return None
        return found.data if isinstance(found, pygit2.Blob) else None

    def paths(self, folder: str) -> Iterator[str]:
        """Yield the path of every file below a folder, or `folder` itself if it is a file or a link."""
        with suppress(KeyError):
            yield from _paths(self.commit.tree[folder], folder)


Base = TypeVar("Base", Snapshot, Snapshot | None)
Files = Mapping[str, bytes | None]
"""The new content of files, by path, with None for a file to remove."""
Edit = Callable[[Snapshot], Files]
"""A function that takes a commit and returns the files to change. An empty result means that nothing changes."""


@dataclass(frozen=True)
class _Clone:
    """A local repository from which commits are pushed to `origin`.

    `git` runs a git command in this repository, and returns its output.
    """

    repository: pygit2.Repository
    author: pygit2.Signature
    git: Callable[..., str]

    def fetch(self, branch: str, *options: str) -> Snapshot:
        ref = f"refs/remotes/origin/{branch}"
        self.git("fetch", "--quiet", *options, "origin", f"+refs/heads/{branch}:{ref}")
        return Snapshot(self.repository, self.repository.revparse_single(ref).peel(pygit2.Commit))

    def branches(self, pattern: str) -> list[str]:
        listed = self.git("ls-remote", "--heads", "origin", f"refs/heads/{pattern}")
        return sorted(line.split("\t")[1].removeprefix("refs/heads/") for line in listed.splitlines())

    def commit(self, base: Snapshot | None, files: Files, message: str) -> str:
        """Write a commit on top of `base`. Without `base`, the commit has no parent.

        The message can contain names from data, so nothing in it has an effect on GitHub.
        """
        index = pygit2.Index()
        if base:
            index.read_tree(base.commit.tree)
        for path, content in files.items():
            if content is None:
                index.remove(path)
            else:
                mode = index[path].mode if path in index else pygit2.enums.FileMode.BLOB
                index.add(pygit2.IndexEntry(path, self.repository.create_blob(content), mode))
        tree, parents = index.write_tree(self.repository), [base.commit.id] if base else []
        text = without_effect(message, EFFECTIVE)
        return str(self.repository.create_commit(None, self.author, self.author, text, tree, parents))

    def push(self, commit: str, branch: str) -> str | None:
        """Push a commit to a branch. Return None on success, else everything that git printed."""
        try:
            self.git("push", "--porcelain", "origin", f"{commit}:refs/heads/{branch}")
        except process.ProcessFailed as error:
            return error.output or error.message
        return None


def snapshot(revision: str = "HEAD", at: Path = Path()) -> Snapshot:
    """Return the files at a revision of the repository `at`. Raises InputError if there is no such commit."""
    try:
        repository = pygit2.Repository(str(at))
        return Snapshot(repository, repository.revparse_single(revision).peel(pygit2.Commit))
    except (pygit2.GitError, KeyError, ValueError):
        raise InputError(f"commit {revision!a} not found; fetch it with `git fetch origin`.") from None


def known() -> Snapshot:
    """Return the commit of `main` at `origin`, as of the last fetch. Return HEAD if `main` was never fetched."""
    try:
        return snapshot(f"refs/remotes/origin/{MAIN}")
    except InputError:
        return snapshot()


def messages(branch: str) -> Iterator[str]:
    """Yield the commit messages of a branch that was fetched from `origin`, the oldest first.

    Nothing is yielded if the branch was never fetched.
    """
    with suppress(InputError):
        last = snapshot(f"refs/remotes/origin/{branch}")
        oldest_first = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE
        yield from (commit.message for commit in last.repository.walk(last.commit.id, oldest_first))


def tip(environ: Mapping[str, str], branch: str = MAIN) -> Snapshot:
    """Fetch a branch from `origin` and return its newest commit."""
    return _this_clone(environ).fetch(branch)


def branches(pattern: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of the branches at `origin` that match a pattern."""
    return _this_clone(environ).branches(pattern)


def commit_to_main(edit: Edit, message: str, environ: Mapping[str, str]) -> str | None:
    """Make a commit on `main` at `origin` with the files from `edit`. Return the commit, or None if nothing changes.

    Raises CheckFailed if the remote refuses the push, or if no push succeeds within the time limit.
    """
    clone = _this_clone(environ)
    return _commit_to(clone, MAIN, edit, message, lambda: clone.fetch(MAIN))


def create_branch(branch: str, edit: Edit, message: str, environ: Mapping[str, str]) -> bool:
    """Create a branch at `origin` with one commit on top of `main`. `edit` returns the files to write.

    Return False if the branch exists already. Raises CheckFailed if `origin` refuses the push.
    """
    clone = _this_clone(environ)
    if branch in clone.branches(branch):  # git would accept a push of the same commit
        return False
    main = clone.fetch(MAIN)
    printed = clone.push(clone.commit(main, edit(main), message), branch)
    if printed is not None and branch not in clone.branches(branch):
        raise CheckFailed(_refusal(printed, branch))
    return printed is None


def replace_folder(
    url: str, branch: str, folder: str, files: Mapping[str, bytes], message: str, environ: Mapping[str, str]
) -> None:
    """Replace a folder on a branch of the remote `url`. The branch is created if it does not exist.

    The content of the branch is untrusted. Therefore, only its last commit is fetched into a temporary repository,
    without file contents, and nothing is checked out. git does not read this machine's configuration. Raises
    ProcessFailed or CheckFailed if the commit cannot be pushed.
    """

    def edit(base: Snapshot | None) -> Files:
        earlier = set(base.paths(folder)) if base else set()
        return {**dict.fromkeys(earlier - files.keys()), **files}

    with _temporary_clone(url, environ) as clone:

        def fetch() -> Snapshot | None:
            options = ("--depth=1", "--filter=blob:none")
            return clone.fetch(branch, *options) if clone.branches(branch) else None

        _commit_to(clone, branch, edit, message, fetch)


def token_variables(server: str, token: str) -> dict[str, str]:
    """Return environment variables that make git send a token to `server`, and to no other server.

    Environment variables are used, because command-line options would be visible to other users of the machine.
    """
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {_credentials(token)}",
    }


def _credentials(token: str) -> str:
    return base64.b64encode(f"x-access-token:{token}".encode()).decode()


def _this_clone(environ: Mapping[str, str]) -> _Clone:
    """Return the repository in the working directory. git uses the user's configuration, and GITHUB_TOKEN if set."""
    token = environ.get("GITHUB_TOKEN")

    def git(*command: str) -> str:
        if not token:
            return process.run("git", *command)
        return process.run(
            "git",
            *command,
            variables=token_variables(actions.server_url(environ), token),
            timeout_seconds=GIT_TIMEOUT_SECONDS,
            secrets=(token, _credentials(token)),
        )

    repository = snapshot().repository
    try:
        author = repository.default_signature
    except KeyError:
        author = pygit2.Signature(*BOT)
    return _Clone(repository, author, git)


@contextmanager
def _temporary_clone(url: str, environ: Mapping[str, str]) -> Iterator[_Clone]:
    token = environ.get("GITHUB_TOKEN", "")
    with tempfile.TemporaryDirectory() as home:
        # libgit2 cannot open a repository into which git has fetched without blobs, so open it before the fetch.
        repository = pygit2.init_repository(Path(home, "repository"), bare=True)
        repository.remotes.create("origin", url)

        def git(*command: str) -> str:
            return process.run(
                "git",
                *command,
                at=Path(repository.path),
                environment=process.isolated_environment(Path(home), environ),
                variables=token_variables(actions.server_url(environ), token),
                timeout_seconds=CHARTS_GIT_TIMEOUT_SECONDS,
                secrets=(token, _credentials(token)),
            )

        yield _Clone(repository, pygit2.Signature(*BOT), git)


def _commit_to(
    clone: _Clone, branch: str, edit: Callable[[Base], Files], message: str, fetch: Callable[[], Base]
) -> str | None:
    """Commit on the tip of a branch and push.

    If another push came first, repeat the commit and the push, until the time limit.
    """
    deadline = time.monotonic() + CONTENTION_TIMEOUT_SECONDS
    made = None
    while True:
        base = fetch()
        if made and base and _contains(base, made):  # the earlier push succeeded, but its confirmation was lost
            return made
        files = edit(base)
        if not files:
            return None
        made = clone.commit(base, files, message)
        printed = clone.push(made, branch)
        if printed is None:
            return made
        now = fetch()
        moved = (now and now.name) != (base and base.name)
        if not moved and not any(each in printed for each in CONTENDED):
            raise CheckFailed(_refusal(printed, branch))
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"For {CONTENTION_TIMEOUT_SECONDS:.0f} seconds, another push to {branch} came before each push of this "
                "command; run it again."
            )
        time.sleep(random.uniform(0.0, 0.3))  # noqa: S311 (so that two processes do not collide again)


def _contains(base: Snapshot, commit: str) -> bool:
    with suppress(pygit2.GitError):  # the history of a shallow clone is incomplete
        return base.name == commit or base.repository.descendant_of(base.name, commit)
    return False


def _paths(found: pygit2.Object, path: str) -> Iterator[str]:
    if isinstance(found, pygit2.Tree):
        for each in found:
            yield from _paths(each, f"{path}/{each.name}")
    else:
        yield path


def _refusal(printed: str, branch: str) -> str:
    """Explain a refused push in one sentence."""
    lines = [line for line in printed.splitlines() if line.startswith(("remote: ", "!", "fatal: "))]
    reason = " ".join(line.split("\t")[-1].strip() for line in lines) or printed.strip() or "no reason given"
    for words, what_to_do in REFUSED:
        if words in printed:
            return f"origin refused the push to {branch}: {what_to_do} ({reason[:300]})."
    if any(each in printed for each in PROTECTED):
        return (
            f"A rule of origin protects {branch} from this push ({reason[:300]}); let the App of docs/github.md "
            "bypass it, and set the variable SLIPWAY_APP_ID and the secret SLIPWAY_APP_KEY."
        )
    return f"origin refused the push to {branch} ({reason[:300]}); nothing changed."

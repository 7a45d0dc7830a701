"""The state of the fake GitHub: pull requests, issues, comments, workflow runs, tokens and settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

BOT = "github-actions[bot]"
"""The user behind a workflow's own token."""
Plan = Literal["free", "team", "enterprise"]


@dataclass
class Failure:
    """A failure of all requests whose method, path and client match the regular expressions."""

    answer: int | str
    """The HTTP status to answer with, or `hang` for no answer."""
    method: str = ".*"
    path: str = ".*"
    client: str = ".*"
    """The pattern for the header User-Agent."""
    times: int = 1_000_000
    applied: bool = False
    """If true, the request takes effect although it fails."""

    @property
    def status(self) -> int | None:
        """The HTTP status, or None if the server hangs."""
        return self.answer if isinstance(self.answer, int) else None


@dataclass(frozen=True)
class Token:
    """The user and the permissions of a token. A token whose `permissions` are not set may do everything.

    An action with a workflow's own token starts no other workflow on GitHub, except by `workflow_dispatch` and
    `repository_dispatch`.
    """

    login: str
    kind: str
    permissions: Mapping[str, str] | None = None

    @property
    def starts_workflows(self) -> bool:
        """True for the tokens of users and Apps, and false for a workflow's own token."""
        return self.login != BOT

    def may(self, permission: str, access: str) -> bool:
        """Return whether the token has a permission. `write` includes `read`, and any token may read metadata."""
        if self.permissions is None or permission == "metadata":
            return True
        return self.permissions.get(permission) in (access, "write")

    def may_any(self, needed: Sequence[tuple[str, str]]) -> bool:
        """Return whether the token has one of the needed permissions, or no permission is needed."""
        return not needed or any(self.may(*each) for each in needed)


def token_text(authorization: str) -> str:
    """Return the token in the value of a header Authorization."""
    return authorization.split(" ")[-1]


class Host(Protocol):
    """The repository behind the server. It executes the calls of the API."""

    artifacts: Path
    """A folder with a subfolder for each run, which contains the run's artifacts as NAME.tar."""

    def branch_head(self, branch: str) -> str | None:
        """Return the commit of a branch, or None if it does not exist."""

    def now(self) -> str:
        """Return the time of a new event."""

    def on_pull_request(self, number: int, token: Token) -> None:
        """Add a pull request that the API has opened."""

    def on_dispatch(self, workflow: str, ref: str, inputs: Mapping[str, str], token: Token) -> int:
        """Start a workflow by hand, and return the number of the run."""

    def on_repository_dispatch(self, kind: str, token: Token) -> None:
        """Send a repository_dispatch event."""

    def merge(self, number: int, message: str, token: Token) -> str | None:
        """Merge a pull request as one commit. Return the commit, or None if git finds a conflict."""

    def cancel_run(self, identity: int) -> None:
        """Cancel a run."""

    def rerun(self, identity: int) -> None:
        """Start a run again."""


@dataclass
class State:
    """The state of the server, and the requests so far. Tests read and set it directly.

    A pull request is a dictionary with `head` (a commit) and `from` (a repository, or None if it was deleted), and
    optionally `branch`, `title`, `body`, `login`, `kind`, `state`, `labels`, `files`, `changed_files`, `merged`,
    `merging` (the title of the merge) and `message` (all of its message).
    """

    repository: str = "team/houses"
    token: str = "token-of-the-workflow"  # noqa: S105 (only this server takes it)
    """A token with all permissions. `writer` is its user."""
    writer: tuple[str, str] = (BOT, "Bot")
    """Login and type of the user behind `token`."""
    user_is_told: bool = False
    """If true, /user returns the user of a token, as GitHub does for a person's token, but not for a workflow's token.
    """
    tokens: dict[str, Token] = field(default_factory=dict)
    """Other tokens, such as the tokens of jobs."""
    used: dict[str, set[tuple[tuple[str, str], ...]]] = field(default_factory=dict)
    """Token → the permissions that its calls needed, each as a tuple of alternatives."""
    private: bool = False
    plan: Plan = "team"
    disabled: set[str] = field(default_factory=set)
    """File names of disabled workflows."""
    workflows: dict[str, str] = field(default_factory=dict)
    """File name → text of the workflows on the default branch. If empty, the server accepts any name."""
    pulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Number → pull request."""
    comments: list[dict[str, Any]] = field(default_factory=list)
    """Each with `id`, `pull`, `body`, `login` and `type`, the oldest first."""
    issues: list[dict[str, Any]] = field(default_factory=list)
    """Each with `number`, `title`, `body`, `labels` and `state`."""
    label_events: list[dict[str, Any]] = field(default_factory=list)
    """Each with `pull`, `event` (labeled or unlabeled), `label`, `login` and `at`, the oldest first."""
    dispatched: list[dict[str, Any]] = field(default_factory=list)
    """Workflows that were started: `workflow`, `ref`, `inputs`."""
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Number → workflow run, as the API shows it."""
    host: Host | None = field(default=None, repr=False)
    contents: dict[str, str] = field(default_factory=dict)
    """`COMMIT:PATH` → text of a file."""
    documents: dict[str, Any] = field(default_factory=dict)
    """Path below the repository → response to a GET request, which replaces the server's own response."""
    failures: list[Failure] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Each with `method`, `path`, `client`, `authorization`, `body` and `status` (None until it is answered)."""

    def comment(self, body: str, login: str = "somebody", kind: str = "User", pull: int = 7) -> dict[str, Any]:
        """Add a comment."""
        identity = 1 + max((each["id"] for each in self.comments), default=1000)
        who = {"login": login, "type": kind}
        self.comments.append({"id": identity, "pull": pull, "body": body, "at": self.now(), **who})
        return self.comments[-1]

    def now(self) -> str:
        """Return the time of a new event. Without a host, all comments have the same time, before any other event."""
        return self.host.now() if self.host else "2000-01-01T00:00:00Z"

    def bodies(self, pull: int = 7) -> list[str]:
        """Return the texts of the comments on a pull request."""
        return [each["body"] for each in self.comments if each["pull"] == pull]

    def asked(self, method: str, client: str = "") -> list[str]:
        """Return the paths that a client requested with a method."""
        return [each["path"] for each in self.requests if each["method"] == method and client in each["client"].lower()]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The method and the path of each request that changed something."""
        return [
            (each["method"], each["path"])
            for each in self.requests
            if each["method"] != "GET" and each["status"] and each["status"] < 300 and "graphql" not in each["path"]
        ]

    def token_of(self, authorization: str) -> Token | None:
        """Return the token in a header Authorization, or None if it is unknown."""
        text = token_text(authorization)
        return Token(*self.writer) if text == self.token else self.tokens.get(text)

    def failure(self, method: str, path: str, client: str) -> Failure | None:
        """Return the failure that applies to a request, or None. Each use of a failure is counted in `times`."""
        for each in self.failures:
            wanted = ((each.method, method), (each.path, path), (each.client, client))
            if each.times and all(re.fullmatch(pattern, text, re.IGNORECASE) for pattern, text in wanted):
                each.times -= 1
                return each
        return None

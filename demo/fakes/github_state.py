"""What the fake of GitHub knows: repository, pull requests, issues, comments, workflow runs, tokens, settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

BOT = "github-actions[bot]"
"""The user behind a workflow's own token."""
Plan = Literal["free", "team", "enterprise"]


@dataclass
class Failure:
    """What requests are answered with whose method, path and client match three regular expressions."""

    answer: int | str
    """A status, or `hang`."""
    method: str = ".*"
    path: str = ".*"
    client: str = ".*"
    """Matched with the header User-Agent."""
    times: int = 1_000_000
    applied: bool = False
    """Whether the request takes effect all the same."""

    @property
    def status(self) -> int | None:
        """The status; None where the server hangs."""
        return self.answer if isinstance(self.answer, int) else None


@dataclass(frozen=True)
class Token:
    """Who acts by a token, and what it may do. `permissions` is None where it may do everything.

    GitHub starts no workflow for what a workflow's own token does, except for the two kinds of dispatch.
    """

    login: str
    kind: str
    permissions: Mapping[str, str] | None = None

    @property
    def starts_workflows(self) -> bool:
        return self.login != BOT

    def may(self, permission: str, access: str) -> bool:
        """Whether the token has a permission: `write` includes `read`, and metadata can always be read."""
        if self.permissions is None or permission == "metadata":
            return True
        return self.permissions.get(permission) in (access, "write")


class Host(Protocol):
    """A repository behind the server, in which what the API is told to do happens."""

    def branch_head(self, branch: str) -> str | None:
        """Return the commit of a branch; None where there is no such branch."""

    def on_pull_request(self, number: int, token: Token) -> None:
        """Take in a pull request that was opened."""

    def on_dispatch(self, workflow: str, ref: str, inputs: Mapping[str, str], token: Token) -> int:
        """Start a workflow by hand; returns the number of the run."""

    def on_repository_dispatch(self, kind: str, token: Token) -> None:
        """Send a repository_dispatch event."""

    def merge(self, number: int, title: str, token: Token) -> str | None:
        """Merge a pull request as one commit; returns the commit, or None where git finds a conflict."""

    def cancel_run(self, identity: int) -> None:
        """Cancel a run."""

    def rerun(self, identity: int) -> None:
        """Run a run again."""


@dataclass
class State:
    """Everything that the server knows and saw. Tests set and read it directly.

    A pull request is a dictionary with `head` (a commit) and `from` (a repository, or None if it was deleted), and
    optionally `branch`, `title`, `body`, `login`, `kind`, `state`, `labels`, `files`, `merged` and `merging`.
    """

    repository: str = "team/houses"
    token: str = "token-of-the-workflow"  # noqa: S105 (only this server takes it)
    """It may do everything; `writer` acts by it."""
    writer: tuple[str, str] = (BOT, "Bot")
    """Login and type of the user behind `token`."""
    user_is_told: bool = False
    """Whether /user tells who that is, as it does for people but not for workflows."""
    tokens: dict[str, Token] = field(default_factory=dict)
    """More tokens, such as those of single jobs."""
    private: bool = False
    plan: Plan = "team"
    disabled: set[str] = field(default_factory=set)
    """File names of disabled workflows."""
    workflows: dict[str, str] = field(default_factory=dict)
    """File name → text of the workflows on the default branch; empty where any name will do."""
    pulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Number → pull request."""
    comments: list[dict[str, Any]] = field(default_factory=list)
    """Each with `id`, `pull`, `body`, `login` and `type`; the oldest first."""
    issues: list[dict[str, Any]] = field(default_factory=list)
    """Each with `number`, `title`, `body`, `labels` and `state`."""
    label_events: list[dict[str, Any]] = field(default_factory=list)
    """Each with `pull`, `event` (labeled or unlabeled), `label`, `login` and `at`; the oldest first."""
    dispatched: list[dict[str, Any]] = field(default_factory=list)
    """Workflows that were started: `workflow`, `ref`, `inputs`."""
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Number → workflow run, as the API shows it."""
    host: Host | None = field(default=None, repr=False)
    contents: dict[str, str] = field(default_factory=dict)
    """`COMMIT:PATH` → text of a file."""
    documents: dict[str, Any] = field(default_factory=dict)
    """Path below the repository → what GET answers there, instead of what the server would."""
    failures: list[Failure] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Each with `method`, `path`, `client`, `authorization`, `body` and `status` (None until it is answered)."""

    def comment(self, body: str, login: str = "somebody", kind: str = "User", pull: int = 7) -> dict[str, Any]:
        """Add a comment."""
        identity = 1 + max((each["id"] for each in self.comments), default=1000)
        self.comments.append({"id": identity, "pull": pull, "body": body, "login": login, "type": kind})
        return self.comments[-1]

    def bodies(self, pull: int = 7) -> list[str]:
        """Return the texts of the comments on a pull request."""
        return [each["body"] for each in self.comments if each["pull"] == pull]

    def asked(self, method: str, client: str = "") -> list[str]:
        """Return the paths that a client requested with a method."""
        return [each["path"] for each in self.requests if each["method"] == method and client in each["client"].lower()]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Method and path of each request that changed something."""
        return [
            (each["method"], each["path"])
            for each in self.requests
            if each["method"] != "GET" and each["status"] and each["status"] < 300 and "graphql" not in each["path"]
        ]

    def token_of(self, authorization: str) -> Token | None:
        """Return who sends a header Authorization; None where the token is unknown."""
        text = authorization.split(" ")[-1]
        return Token(*self.writer) if text == self.token else self.tokens.get(text)

    def failure(self, method: str, path: str, client: str) -> Failure | None:
        """Return the failure that a request meets, and count it."""
        for each in self.failures:
            wanted = ((each.method, method), (each.path, path), (each.client, client))
            if each.times and all(re.fullmatch(pattern, text, re.IGNORECASE) for pattern, text in wanted):
                each.times -= 1
                return each
        return None

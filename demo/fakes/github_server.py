"""A server that answers like GitHub's API, over HTTPS, as far as Slipway asks it."""

import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from demo.fakes.github_api import ENTERPRISE, Answers


@dataclass
class Failure:
    """What is answered to requests of a method, on paths and from clients that two patterns match."""

    answer: int | str
    """A status, or `hang`."""
    method: str = ".*"
    path: str = ".*"
    client: str = ".*"
    """Of the header User-Agent."""
    times: int = 1_000_000
    applied: bool = False
    """Whether the request is obeyed all the same."""

    @property
    def status(self) -> int:
        """0 for none, ever."""
        return self.answer if isinstance(self.answer, int) else 0


@dataclass
class State:
    """What the server knows. A pull request: number → `state`, `head` (a commit) and `from` (a repository or None)."""

    repository: str = "team/houses"
    token: str = "token-of-the-workflow"  # noqa: S105 (nobody else takes it)
    writer: tuple[str, str] = ("github-actions[bot]", "Bot")
    """Login and type of whoever has the token."""
    user_is_told: bool = False
    """Whether /user says who that is, as it does for people and not for workflows."""
    pulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: list[dict[str, Any]] = field(default_factory=list)
    """Each with `id`, `pull`, `body`, `login` and `type`, the oldest first."""
    issues: list[dict[str, Any]] = field(default_factory=list)
    """Each with `number`, `title`, `body`, `labels` and `state`."""
    dispatched: list[dict[str, Any]] = field(default_factory=list)
    """What workflows were started: `workflow`, `ref`, `inputs`."""
    contents: dict[str, str] = field(default_factory=dict)
    """`COMMIT:PATH` → a file."""
    documents: dict[str, Any] = field(default_factory=dict)
    """Path below the repository → what GET answers there, for what else a test needs."""
    failures: list[Failure] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """What was asked: `method`, `path`, `client`, `authorization` and `body`."""

    def comment(self, body: str, login: str = "somebody", kind: str = "User", pull: int = 7) -> dict[str, Any]:
        """Have a comment that was there before."""
        identity = 1 + max((each["id"] for each in self.comments), default=1000)
        self.comments.append({"id": identity, "pull": pull, "body": body, "login": login, "type": kind})
        return self.comments[-1]

    def bodies(self, pull: int = 7) -> list[str]:
        return [each["body"] for each in self.comments if each["pull"] == pull]

    def asked(self, method: str, client: str = "") -> list[str]:
        """Paths that a client asked for with a method."""
        return [each["path"] for each in self.requests if each["method"] == method and client in each["client"].lower()]


class GitHub:
    """The server. `url` has no trailing slash; `authority` is the file of its certificate authority."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state = state
        self.over = threading.Event()
        self.lock = threading.Lock()
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Answers,), {"github": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        # Hands are shaken in the thread of the connection, so that none waits for another's.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_address[1]}"

    @property
    def api(self) -> str:
        return self.url + ENTERPRISE

    @contextmanager
    def serving(self) -> Generator["GitHub", None, None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def variables(self) -> dict[str, str]:
        """What a workflow on this server would have."""
        return {
            "GITHUB_TOKEN": self.state.token,
            "GITHUB_REPOSITORY": self.state.repository,
            "GITHUB_SERVER_URL": self.url,
            "GITHUB_API_URL": self.api,
            "REQUESTS_CA_BUNDLE": str(self.authority),
            "NODE_EXTRA_CA_CERTS": str(self.authority),
        }

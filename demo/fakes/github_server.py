"""Provide a fake of GitHub's API over HTTPS. It answers every call that Slipway, CML and `gh` make.

The fake refuses the calls that GitHub refuses. docs/decisions/demo.md lists GitHub's rules, with their sources.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import trustme
from starlette.applications import Starlette
from starlette.routing import Mount

from demo.fakes import github_actions_api, github_api, github_settings_api
from demo.fakes.github_call import API, top_route, unmatched
from demo.fakes.github_state import Failure, State
from demo.fakes.http_server import listen, served

__all__ = ["Failure", "GitHub", "State"]


class GitHub:
    """The server. `url` has no final slash. `authority` is the certificate file of its certificate authority."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state = state
        self.lock = threading.RLock()
        authority, certificate = trustme.CA(), folder / "certificate.pem"
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        self._tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(certificate)}
        self._listener = listen()
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        routes = [*github_api.ROUTES, *github_actions_api.ROUTES, *github_settings_api.ROUTES, unmatched()]
        graphql = top_route("POST", "/api/graphql", github_settings_api.query)
        self._application = Starlette(routes=[graphql, Mount(API, routes=routes), unmatched()])
        self._application.state.github = self

    @property
    def api(self) -> str:
        """The URL of the REST API."""
        return self.url + API

    @contextmanager
    def serving(self) -> Generator["GitHub", None, None]:
        """Answer requests until the block ends."""
        with served(self._application, self._listener, **self._tls):
            yield self

    def variables(self) -> dict[str, str]:
        """Return the environment variables that a workflow on this server would have."""
        return {
            "GITHUB_TOKEN": self.state.token,
            "GITHUB_REPOSITORY": self.state.repository,
            "GITHUB_SERVER_URL": self.url,
            "GITHUB_API_URL": self.api,
            "REQUESTS_CA_BUNDLE": str(self.authority),
            "NODE_EXTRA_CA_CERTS": str(self.authority),
        }

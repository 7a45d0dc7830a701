"""Read the configuration that the checks examine: params.yaml, git and DVC remotes, and environment variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.exceptions import DvcException

from slipway import artifacts
from slipway.config import Params, load_params
from slipway.errors import InputError
from slipway.integrations import actions, process

ANSWER_TIMEOUT_SECONDS = 4
"""Time limit for one program to end, or for one server to respond."""


@dataclass(frozen=True)
class Fork:
    """The configuration of a fork in this clone. Addresses can contain passwords, so they are masked when printed.

    `settings` contains params.yaml, or the error if params.yaml is invalid. `remotes` contains the settings of each DVC
    remote.
    """

    environ: Mapping[str, str]
    settings: Params | InputError
    origin: str | None
    token: str | None
    default_remote: str | None
    remotes: Mapping[str, Mapping[str, Any]]

    @property
    def params(self) -> Params:
        """The content of params.yaml. Raises InputError if params.yaml is invalid."""
        if isinstance(self.settings, InputError):
            raise self.settings
        return self.settings

    @property
    def server(self) -> str:
        """The address of the GitHub server."""
        return actions.server_url(self.environ)

    @property
    def repository(self) -> str | None:
        """OWNER/NAME of the repository on GitHub. None if `origin` is not on the GitHub server."""
        return repository_at(self.server, self.origin or "")

    @property
    def remote_url(self) -> str:
        """The address of the default DVC remote. An empty text if there is no default remote."""
        return str(self.remotes.get(self.default_remote or "", {}).get("url", ""))


def read_fork(environ: Mapping[str, str]) -> Fork:
    """Read the configuration of this clone, without a request to a server."""
    settings: Params | InputError
    try:
        settings = load_params(artifacts.PARAMS)
    except InputError as error:
        settings = error
    try:
        config = Config.from_cwd()
        remotes, default = config["remote"], config["core"].get("remote")
    except DvcException:  # the check `DVC remote` reports the error
        remotes, default = {}, None
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or program_output(environ, "gh", "auth", "token")
    origin = program_output(environ, "git", "remote", "get-url", "origin")
    return Fork(environ, settings, origin, token, default, remotes)


def repository_at(server: str, address: str) -> str | None:
    """Return OWNER/NAME from an HTTPS or SSH address of a repository. Return None if it is not on `server`."""
    found = re.search(rf"(?:^|[@/]){re.escape(urlsplit(server).netloc)}[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    return found[1] if found else None


def program_output(environ: Mapping[str, str], *command: str) -> str | None:
    """Return the output of a program. Return None if the program is missing, fails, or takes too long."""
    try:
        return process.run(*command, environment=environ, timeout_seconds=ANSWER_TIMEOUT_SECONDS)
    except (InputError, UnicodeDecodeError):
        return None


def setting(key: str) -> str:
    """Return a sentence with the line of params.yaml to edit for a key."""
    lines = artifacts.PARAMS.read_text(encoding="utf-8").splitlines()
    number = next((number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:")), 1)
    return f"Edit `{key}` in {artifacts.PARAMS}, line {number}."

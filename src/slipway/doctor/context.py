"""What the checks start from: this fork, as its files, its remotes and the environment tell it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.exceptions import DvcException

from slipway import artifacts
from slipway.config import Params, load_params
from slipway.errors import InputError
from slipway.integrations import actions, process

ANSWER_TIMEOUT_SECONDS = 4
"""Time limit of one program, and of one answer of a server."""


@dataclass(frozen=True)
class Fork:
    """A clone of a fork. Addresses can have a password in them: what is made of them is masked before it is shown.

    `settings` is params.yaml, or why it is not valid; `remotes` are those of DVC by name, with their settings.
    """

    environ: Mapping[str, str]
    settings: Params | InputError
    origin: str | None
    token: str | None
    default_remote: str | None
    remotes: Mapping[str, Mapping[str, Any]]

    @property
    def params(self) -> Params:
        """Raises InputError where params.yaml is not valid."""
        if isinstance(self.settings, InputError):
            raise self.settings
        return self.settings

    @property
    def server(self) -> str:
        """Of GitHub."""
        return actions.server_url(self.environ)

    @property
    def repository(self) -> str | None:
        """OWNER/NAME at GitHub; None where origin is not there."""
        return repository_at(self.server, self.origin or "")

    @property
    def name(self) -> str:
        """The same for a command, to be filled in where it is not known."""
        return self.repository or "OWNER/NAME"

    @property
    def remote_url(self) -> str:
        """Of the default remote; empty without one."""
        return str(self.remotes.get(self.default_remote or "", {}).get("url", ""))


def read_fork(environ: Mapping[str, str]) -> Fork:
    """Read the fork from the clone, without a request to a server."""
    settings: Params | InputError
    try:
        settings = load_params(artifacts.PARAMS)
    except InputError as error:
        settings = error
    try:
        config = Config.from_cwd()
        remotes, default = config["remote"], config["core"].get("remote")
    except DvcException:  # the check of the remote says so
        remotes, default = {}, None
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or program_output(environ, "gh", "auth", "token")
    origin = program_output(environ, "git", "remote", "get-url", "origin")
    return Fork(environ, settings, origin, token, default, remotes)


def repository_at(server: str, address: str) -> str | None:
    """OWNER/NAME of a repository at this server, from any of its addresses; None where it is another server's."""
    found = re.search(rf"(?:^|[@/]){re.escape(urlsplit(server).netloc)}[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    return found[1] if found else None


def program_output(environ: Mapping[str, str], *command: str) -> str | None:
    """Return what a program prints. Return None if it is not on the PATH, fails, or takes too long."""
    try:
        return process.run(*command, environment=environ, timeout_seconds=ANSWER_TIMEOUT_SECONDS)
    except (InputError, UnicodeDecodeError):
        return None


def edit(file: Path, text: str = "") -> str:
    """The command that opens a file, at the first line that begins with a text."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    number = next((n for n, line in enumerate(lines, 1) if text and line.strip().startswith(text)), 1)
    return edit_line(file, number)


def edit_line(file: Path, number: int) -> str:
    """The command that opens a file at a line."""
    return f"${{EDITOR:-vi}} +{number} {file}"

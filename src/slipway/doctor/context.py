"""What the checks start from: this fork, as its files, its remotes and the environment tell it."""

import re
import subprocess
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

SECONDS = 4
"""How long an answer of a program or of a server may take."""


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
        return self.environ.get("GITHUB_SERVER_URL") or "https://github.com"

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
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or told("gh", "auth", "token")
    return Fork(environ, settings, told("git", "remote", "get-url", "origin"), token, default, remotes)


def repository_at(server: str, address: str) -> str | None:
    """OWNER/NAME of a repository at this server, from any of its addresses; None where it is another server's."""
    found = re.search(rf"(?:^|[@/]){re.escape(urlsplit(server).netloc)}[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    return found[1] if found else None


def told(*command: str) -> str | None:
    """What a program prints, stripped; None where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def edit(file: Path, text: str = "") -> str:
    """The command that opens a file, at the first line that begins with a text."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    number = next((n for n, line in enumerate(lines, 1) if text and line.strip().startswith(text)), 1)
    return edit_line(file, number)


def edit_line(file: Path, number: int) -> str:
    """The command that opens a file at a line."""
    return f"${{EDITOR:-vi}} +{number} {file}"

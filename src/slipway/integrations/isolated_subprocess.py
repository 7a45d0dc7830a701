"""Programs that are given the token: with an environment of their own, for a limited time, never quoted with it."""

import base64
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PASSED = (
    "PATH",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    *PROXIES,
    *(name.lower() for name in PROXIES),
)
"""What a program is told of its surroundings."""
MOST_WORDS = 300
"""Characters."""
WHO = "github-actions[bot]"
EMAIL = "41898282+github-actions[bot]@users.noreply.github.com"
"""Who commits, where nobody is logged in."""


@dataclass(frozen=True)
class Done:
    """What a program did. `words` are its last, on one line and without the secrets."""

    succeeded: bool
    out: str
    words: str


def authorization(token: str) -> str:
    """The header by which git shows a token to GitHub."""
    return f"Authorization: Basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"


def with_token(server: str, token: str) -> dict[str, str]:
    """Variables with which git shows the token to this server, and to no other; on no command line."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": authorization(token),
    }


def run(
    command: Sequence[str],
    home: Path,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
    secrets: Sequence[str],
    seconds: float,
) -> Done:
    """Run a program in `home`, its home as well; what has not ended in time is killed with all that it started."""
    environment = {name: environ[name] for name in PASSED if name in environ} | {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        **variables,
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Done(False, "", f"it cannot be started: {error.strerror}")
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Done(False, "", f"it did not end within {seconds:g} seconds")
    return Done(process.returncode == 0, out, _last_words(err.strip() or out.strip(), secrets))


def _last_words(text: str, secrets: Sequence[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    line = text.splitlines()[-1] if text else "it said nothing"
    with contextlib.suppress(ValueError, TypeError, KeyError):
        line = json.loads(line)["message"]  # CML logs JSON
    words = "".join(each if each.isprintable() else " " for each in str(line))
    return words.replace("##[", "[")[:MOST_WORDS]  # which a log would obey

"""Run other programs: git, DVC, kubectl, CML.

Pass a token to a program only with `isolated_environment`, a time limit and `secrets`. With these three arguments, the
program does not read this machine's configuration and cannot hang, and messages cannot show the token. Passwords and
query strings in addresses are masked in any case.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.errors import InputError
from slipway.integrations.storage import MASK, without_secrets

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ISOLATED_VARIABLES = (
    "PATH",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    *PROXIES,
    *(name.lower() for name in PROXIES),
)
"""The environment variables that an isolated program inherits."""
MAX_MESSAGE_CHARACTERS = 300


class ProcessFailed(InputError):
    """Error of a failed program. `message` is its error on one line. `output` is everything that it printed."""

    def __init__(self, command: Sequence[str], message: str, output: str = "") -> None:
        super().__init__(f"`{without_secrets(' '.join(command))}` failed: {message}")
        self.message = message
        self.output = output


def run(
    *command: str,
    at: Path = Path(),
    variables: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
    secrets: Sequence[str] = (),
    echo: bool = False,
) -> str:
    """Run a program in the directory `at` and return its output, without surrounding whitespace.

    `environment` replaces the environment variables that the program inherits from this process. `variables` are added
    to the environment variables. After `timeout_seconds`, the program and every process that it started are killed.
    `secrets` are masked in messages. With `echo`, the output and the errors also appear in the terminal, line by line.

    Raises InputError if the program is not installed, and ProcessFailed if it fails or exceeds the time limit.
    """
    resolved = _resolve(command) if environment is None else list(command)
    environment = {**(_inherited_environment(at) if environment is None else environment), **(variables or {})}
    if shutil.which(resolved[0], path=environment.get("PATH")) is None:
        raise InputError(f"The program {command[0]} is not on the PATH; install it.")
    try:
        process = subprocess.Popen(
            resolved,
            cwd=at,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if echo else subprocess.PIPE,
            start_new_session=timeout_seconds is not None,
        )
    except OSError as error:
        raise ProcessFailed(command, f"it does not start: {error.strerror}") from None
    with process:
        try:
            out, err = _echo(process) if echo else process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise ProcessFailed(command, f"it did not end within {timeout_seconds:g} seconds") from None
    if process.returncode:
        printed, errors = (_masked(each.decode(errors="replace"), secrets) for each in (out, err))
        raise ProcessFailed(command, _message(errors.strip() or printed.strip()), printed + errors)
    return out.decode().strip()


def isolated_environment(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that hide the user's configuration and credentials from a program."""
    return {name: environ[name] for name in ISOLATED_VARIABLES if name in environ} | {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
    }


def _inherited_environment(at: Path) -> dict[str, str]:
    """Return the environment of this process, with `slipway` on the PATH.

    The folder src/ of the directory `at` comes first on the PYTHONPATH.
    """
    paths = [str((at / "src").resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _resolve(command: tuple[str, ...]) -> list[str]:
    """Return the command with the full path of its program, if the running Python environment contains this program.

    The PATH is not enough, because the environment is not always activated.
    """
    program = Path(sys.executable).parent / command[0]
    return [str(program) if program.exists() else command[0], *command[1:]]


def _echo(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    printed = []
    for line in process.stdout or ():
        print(without_secrets(line.decode(errors="replace")), end="", flush=True)
        printed.append(line)
    return b"".join(printed), b""


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, MASK)
    return without_secrets(text)


def _message(text: str) -> str:
    """Find the error message in the output of a program.

    For DVC, the message is everything from the first error to the end. For CML, the message is the field `message` of
    the last line, which is JSON. For other programs, the message is the last line.
    """
    lines = text.splitlines() or ["it printed nothing"]
    errors = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    line = " ".join(lines[errors[0] :]).removeprefix("ERROR: ") if errors else lines[-1]
    with contextlib.suppress(ValueError, TypeError, KeyError):
        line = json.loads(line)["message"]
    printable = "".join(each if each.isprintable() else " " for each in str(line))
    return printable.replace("##[", "[")[:MAX_MESSAGE_CHARACTERS]  # GitHub's log interprets `##[`

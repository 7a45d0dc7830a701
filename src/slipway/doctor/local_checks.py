"""Check the Python environment and the programs on this machine."""

import re
import sys
from importlib import metadata
from pathlib import Path

from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, program_output
from slipway.doctor.result import Finding, missing, ok, optional
from slipway.errors import InputError
from slipway.release.image import connect

PROJECT = Path("pyproject.toml")
LOCKED = Path("requirements/dev.txt")
OLDEST_GIT = (2, 31)
"""The first version of git that reads settings from environment variables. `git.token_variables` sets them."""
GH, KUBECTL, ENGINE = "gh (to set up GitHub)", "kubectl (to set up a cluster)", "Docker or Podman (for `slipway image`)"
SOURCES = {
    GH: "https://cli.github.com",
    KUBECTL: "https://kubernetes.io/docs/tasks/tools",
    ENGINE: "https://docs.docker.com/engine/install",
}


def environment(_: Fork) -> Finding:
    """Compare the versions of Python and of the installed packages with pyproject.toml and requirements/dev.txt."""
    (bounds,) = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', PROJECT.read_text(encoding="utf-8"))
    oldest, beyond = map(int, bounds)
    version = sys.version.split()[0]
    if not oldest <= sys.version_info.minor < beyond:
        words = f"Python is {version}, and {PROJECT} requires 3.{oldest} to 3.{beyond - 1}."
        return missing(words, f"make --always-make setup PYTHON=python3.{beyond - 1}")
    pinned: dict[str, set[str]] = {}
    for name, pin in re.findall(r"^([\w.-]+)==([\w.]+)", LOCKED.read_text(encoding="utf-8"), re.MULTILINE):
        pinned.setdefault(name, set()).add(pin)  # a package can have different pins for two platforms
    installed = {each.name.lower(): each.version for each in metadata.distributions()}
    others = [
        f"{name} is {installed[name]} instead of {' or '.join(sorted(pins))}"
        for name, pins in pinned.items()
        if name in installed and installed[name] not in pins
    ]
    if others:
        words = f"{', '.join(others[:3])}{', and more' if others[3:] else ''} (pinned in {LOCKED})."
        return missing(words, "make --always-make setup")
    return ok(f"Python is {version}, and the packages have the versions pinned in {LOCKED}.")


def programs(fork: Fork) -> Finding:
    """Check that git and make are installed. Report other missing programs as optional."""
    git = program_output(fork.environ, "git", "--version") or "git is not on the PATH"
    if tuple(map(int, re.findall(r"\d+", git)[:2])) < OLDEST_GIT:
        return missing(f"git {'.'.join(map(str, OLDEST_GIT))} or newer is required. Found: {git}.", _install("git"))
    if not program_output(fork.environ, "make", "--version"):
        return missing("make is not on the PATH.", _install("make"))
    found = {
        GH: program_output(fork.environ, "gh", "--version"),
        KUBECTL: program_output(fork.environ, "kubectl", "version", "--client"),
        ENGINE: _engine_answers(),
    }
    if absent := [name for name, answer in found.items() if not answer]:
        places = ", ".join(SOURCES[name] for name in absent)
        return optional(f"Not found: {', '.join(absent)}.", place=f"Install from {places}")
    return ok("git, make, gh, kubectl and an image engine work.")


def _engine_answers() -> bool:
    try:
        return bool(connect(ANSWER_TIMEOUT_SECONDS).version())
    except InputError:
        return False


def _install(program: str) -> str:
    return f"brew install {program}" if sys.platform == "darwin" else f"sudo apt-get install {program}"

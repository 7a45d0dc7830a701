"""Checks of the local machine: the programs, in the versions that the repository was made with."""

import re
import sys
from importlib import metadata
from pathlib import Path

from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, program_output
from slipway.doctor.result import Finding, holds, missing, unknown
from slipway.errors import InputError
from slipway.release.image import connect

PROJECT = Path("pyproject.toml")
LOCKED = Path("requirements/dev.txt")
"""What `make setup` installs."""
OLDEST_GIT = (2, 31)
"""The first that takes settings from variables, by which it is given a token."""


def python(_: Fork) -> Finding:
    """Held against `requires-python`, since an environment can be older than that line."""
    asked = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', PROJECT.read_text(encoding="utf-8"))
    oldest, beyond = map(int, asked[0])
    if (3, oldest) <= sys.version_info[:2] < (3, beyond):
        return holds(f"This is {sys.version.split()[0]}.")
    words = f"This is {sys.version.split()[0]}, and {PROJECT} asks for 3.{oldest} to 3.{beyond - 1}."
    return missing(words, f"make --always-make setup PYTHON=python3.{beyond - 1}")


def locked_packages(_: Fork) -> Finding:
    """What is installed, held against the versions that are pinned; DVC among them, which reads what others wrote."""
    pinned: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", LOCKED.read_text(encoding="utf-8"), re.MULTILINE):
        pinned.setdefault(name, set()).add(version)  # which can differ by platform
    installed = {each.name.lower(): each.version for each in metadata.distributions()}
    others = [
        f"{name} is {installed[name]} instead of {' or '.join(sorted(wanted))}"
        for name, wanted in pinned.items()
        if name in installed and installed[name] not in wanted
    ]
    if others:
        words = f"{', '.join(others[:3])}{', and more' if others[3:] else ''}, says {LOCKED}."
        return missing(words, "make --always-make setup")
    return holds(f"DVC {installed.get('dvc')} and the rest are as {LOCKED} pins them.")


def git(fork: Fork) -> Finding:
    said = program_output(fork.environ, "git", "--version") or "git is not on the path"
    if tuple(map(int, re.findall(r"\d+", said)[:2])) >= OLDEST_GIT:
        return holds(f"This is {said}.")
    return missing(f"{said}, and {'.'.join(map(str, OLDEST_GIT))} or newer is needed.", _install("git"))


def make(fork: Fork) -> Finding:
    if said := program_output(fork.environ, "make", "--version"):
        return holds(f"This is {said.splitlines()[0]}.")
    return missing("make is not on the path, by which people and workflows set up.", _install("make"))


def image_engine(_: Fork) -> Finding:
    try:
        return holds(f"An engine answers, of version {connect(ANSWER_TIMEOUT_SECONDS).version()['Version']}.")
    except InputError:
        return unknown(
            "Optional: neither Docker nor Podman's service answers, which only `slipway image` needs.",
            "podman system service --time=0 & export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock",
        )


def kubectl(fork: Fork) -> Finding:
    if said := program_output(fork.environ, "kubectl", "version", "--client"):
        return holds(f"This is {said.splitlines()[0]}.")
    return unknown("Optional: kubectl is not on the path, with which an agent is set up once.", _install("kubectl"))


def gh(fork: Fork) -> Finding:
    if said := program_output(fork.environ, "gh", "--version"):
        return holds(f"This is {said.splitlines()[0]}.")
    return unknown("Optional: gh is not on the path, with which the commands for GitHub start.", _install("gh"))


def _install(program: str) -> str:
    return f"brew install {program}" if sys.platform == "darwin" else f"sudo apt-get install {program}"

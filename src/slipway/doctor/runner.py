"""All checks at once, each in a thread of its own, and what they found as a page for the terminal."""

import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.markup import escape

from slipway import artifacts
from slipway.doctor import credentials, github, local_checks, release_checks, storage
from slipway.doctor.context import Fork, edit, read_fork
from slipway.doctor.redact import masked, secrets
from slipway.doctor.result import Check, Finding, unknown
from slipway.errors import InputError

CHECKS_TIMEOUT_SECONDS = 12.0
"""Time limit of all checks together. One that has not ended is reported as unknown."""
MARKS = {"holds": "[green]holds  [/]", "missing": "[red]MISSING[/]", "unknown": "[yellow]unknown[/]"}
AGAIN = "slipway doctor"

CHECKS: dict[str, dict[str, Check]] = {
    "This machine": {
        "Python": local_checks.python,
        "locked packages": local_checks.locked_packages,
        "git": local_checks.git,
        "make": local_checks.make,
        "image engine": local_checks.image_engine,
        "kubectl": local_checks.kubectl,
        "gh": local_checks.gh,
    },
    "Data and models": {
        "params.yaml": storage.params_file,
        "DVC remote": storage.remote,
        "data": storage.data,
        "champion": storage.champion,
        "source": storage.source,
        "MLflow": storage.mlflow,
    },
    "GitHub": {
        "origin": github.origin,
        "owners": release_checks.owners,
        "repository": github.repository,
        "workflows": github.workflows,
        "workflow token": github.workflow_token,
        "rules of main": github.rules_of_main,
        "label": github.label,
        "environments": github.environments,
        "App": github.app,
        "secrets of data": credentials.storage,
        "secrets of MLflow": credentials.record,
        "registry login": credentials.image_registry,
        "cluster secret": credentials.cluster,
        "Prometheus": credentials.monitoring,
        "attestation": credentials.attestation,
    },
    "Releases": {
        "release.image": release_checks.release_image,
        "registry": release_checks.registry,
        "example hosts": release_checks.example_hosts,
        "agents": release_checks.agents,
        "cluster access": release_checks.cluster_access,
        "release.urls": release_checks.answers,
    },
}


def doctor(out: Console, environ: Mapping[str, str]) -> bool:
    """Examine this fork and print what was found; returns whether nothing is missing."""
    with _silence():
        fork = read_fork(environ)
        every = {name: check for group in CHECKS.values() for name, check in group.items()}
        found = examine(fork, every, CHECKS_TIMEOUT_SECONDS)
    known = secrets(fork)
    width = max(map(len, every))
    said = ""
    for title, group in CHECKS.items():
        out.print(f"\n[bold]{title}[/]")
        for this in (found[name] for name in group):
            out.print(f"{this.name:>{width}}  {MARKS[this.state]}  {escape(masked(this.sentence, known))}")
            if this.command and this.command != said:
                out.print(f"{'':{width}}           [dim]$[/] [cyan]{escape(masked(this.command, known))}[/]")
            said = this.command
    counts = Counter(each.state for each in found.values())
    out.print(f"\n{counts['holds']} hold, {counts['missing']} missing, {counts['unknown']} unknown.")
    return not counts["missing"]


def examine(fork: Fork, checks: Mapping[str, Check], seconds: float) -> dict[str, Finding]:
    """What each check finds; `unknown` for one that stops, or that does not end in time."""
    found: dict[str, Finding] = {}

    def look(name: str) -> None:
        found[name] = replace(_look(checks[name], fork), name=name)

    # A pool would wait for its threads when the process ends, and a server that hangs would hold it.
    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in checks]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = unknown(f"Not seen, as it took more than {seconds:g} seconds.", AGAIN)
    return {name: found.get(name) or replace(late, name=name) for name in checks}


def _look(check: Check, fork: Fork) -> Finding:
    try:
        return check(fork)
    except InputError:
        return unknown(f"Not seen, as {artifacts.PARAMS} is not valid.", edit(artifacts.PARAMS))
    except Exception as error:  # one check that stops is no reason to withhold what the others found
        return unknown(f"Not seen, as the check stopped ({type(error).__name__}); please report it.", AGAIN)


@contextmanager
def _silence() -> Iterator[None]:
    """Whatever libraries log or warn of, they would do unmasked."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

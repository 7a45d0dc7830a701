"""Run all checks of `slipway doctor` in parallel, and print the findings."""

import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

from rich.console import Console
from rich.markup import escape

from slipway import artifacts
from slipway.doctor import credentials, github, local_checks, release_checks, storage
from slipway.doctor.context import Fork, read_fork
from slipway.doctor.redact import masked, secrets
from slipway.doctor.result import Check, Finding, unknown
from slipway.errors import InputError

CHECKS_TIMEOUT_SECONDS = 12.0
"""Time limit of all checks together. A check that has not ended is reported as unknown."""
MARKS = {
    "ok": "[green]ok      [/]",
    "missing": "[red]MISSING [/]",
    "optional": "[cyan]optional[/]",
    "unknown": "[yellow]unknown [/]",
}
AGAIN = "slipway doctor"

CHECKS: dict[str, dict[str, Check]] = {
    "This machine": {"environment": local_checks.environment, "programs": local_checks.programs},
    "Data and models": {
        "params.yaml": storage.params_file,
        "DVC remote": storage.remote,
        "pushed data": storage.pushed,
        "source": storage.source,
        "MLflow": storage.mlflow,
    },
    "GitHub": {
        "origin": github.origin,
        "repository": github.repository,
        "Actions": github.actions,
        "schedules": github.schedules,
        "label": github.label,
        "ruleset": github.ruleset,
        "App": github.app,
        "environments": github.environments,
        "secrets": credentials.required,
        "optional secrets": credentials.optional_settings,
        "code owners": github.code_owners,
    },
    "Releases": {
        "image": release_checks.image,
        "base images": release_checks.bases,
        "template values": release_checks.template_values,
        "prediction log": release_checks.prediction_log,
        "cluster access": release_checks.cluster_access,
        "release.urls": release_checks.urls,
    },
}


def doctor(out: Console, environ: Mapping[str, str]) -> bool:
    """Run all checks on this fork, and print the findings. Return False if a required setting is missing."""
    with _silence():
        fork = read_fork(environ)
        checks = {name: check for group in CHECKS.values() for name, check in group.items()}
        found = examine(fork, checks, CHECKS_TIMEOUT_SECONDS)
    known = secrets(fork)
    width = max(map(len, checks))
    for title, group in CHECKS.items():
        out.print(f"\n[bold]{title}[/]")
        for finding, names in groupby(group, found.__getitem__):  # without a GitHub token, many findings are equal
            first, *others = names
            name = f"{1 + len(others)} checks" if others else first
            which = f"{', '.join([first, *others])}: " if others else ""
            out.print(f"{name:>{width}}  {MARKS[finding.state]}  {which}{escape(masked(finding.sentence, known))}")
            for prompt, fix in (("[dim]$[/] ", finding.command), ("", finding.place)):
                if fix:
                    out.print(f"{'':{width}}            {prompt}[cyan]{escape(masked(fix, known))}[/]")
    counts = Counter[str](each.state for each in found.values())
    out.print(f"\n{len(found)} checks: {', '.join(f'{counts[state]} {state}' for state in MARKS)}.")
    return not counts["missing"]


def examine(fork: Fork, checks: Mapping[str, Check], seconds: float) -> dict[str, Finding]:
    """Return the finding of each check. The state is `unknown` if a check raises an error or takes too long."""
    found: dict[str, Finding] = {}

    def look(name: str) -> None:
        found[name] = _look(checks[name], fork)

    # A thread pool would wait for its threads at exit. A server that does not answer would therefore block the exit.
    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in checks]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = unknown(f"Not checked, because it took more than {seconds:g} seconds.", AGAIN)
    return {name: found.get(name, late) for name in checks}


def _look(check: Check, fork: Fork) -> Finding:
    try:
        return check(fork)
    except InputError:
        return unknown(f"Not checked, because {artifacts.PARAMS} is invalid.")
    except Exception as error:  # the findings of the other checks are still needed
        return unknown(f"Not checked, because of an error ({type(error).__name__}). Please report it.", AGAIN)


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the logs and warnings of libraries, because they can contain secrets."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

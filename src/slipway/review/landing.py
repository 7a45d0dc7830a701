"""Decide whether the data of a delivery may be merged although its model is held (`ingest.when_held: land`)."""

import hashlib
import re
from collections.abc import Mapping

from github.PullRequest import PullRequest

from slipway import artifacts
from slipway.errors import InputError
from slipway.integrations import github
from slipway.integrations.dvc import embedded_remote, is_in
from slipway.review.report import Changes

PREFIX = "delivery/"
"""Prefix of the names of delivery branches. The name of the newest delivery follows (`branch_of`)."""
PLAIN = re.compile(r"(?!.*(\.\.|\.lock$|\.$))[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Matches the names that git allows in a branch, and that need no quotes in a shell."""


def branch_of(delivery: str) -> str:
    """Return the branch name of a delivery.

    If the name has special characters, replace them by hyphens, and append a hash of the name.
    """
    if PLAIN.fullmatch(delivery):
        return PREFIX + delivery
    hashed = hashlib.sha256(delivery.encode()).hexdigest()[:8]
    return f"{PREFIX}{re.sub(r'[^A-Za-z0-9_]+', '-', delivery).strip('-')[:80]}-{hashed}"


def why_it_waits(changes: Changes, number: int | None, environ: Mapping[str, str]) -> str | None:
    """Return why the data of a pull request with a held model must not be merged, or None if it may be merged.

    The data may be merged if a bot opened the pull request from a branch of this repository, and if the pull request
    only adds deliveries. Raises InputError if GitHub does not answer.
    """
    if number is None:
        return "it has no pull request"
    if not changes.deliveries or any(each.change != "added" for each in changes.deliveries):
        return "it does not only add deliveries"
    try:
        pull = github.connect(environ).get_pull(number)
        if not is_delivery(pull):
            return f"no bot opened pull request {number} for a delivery"
        if file := other_file(pull):
            return f"pull request {number} changes {file}"
    except github.ERRORS as error:
        raise InputError(
            f"GitHub does not return the files of #{number} ({github.reason(error)}); run the job again."
        ) from None
    return None


def is_delivery(pull: PullRequest) -> bool:
    """Return True if a bot opened the pull request for a delivery, from a branch of this repository."""
    source = pull.head.repo.full_name if pull.head.repo else None
    return source == pull.base.repo.full_name and pull.head.ref.startswith(PREFIX) and pull.user.type == "Bot"


def other_file(pull: PullRequest) -> str | None:
    """Return a changed file that does not belong to the data, or None. GitHub lists at most 3,000 changed files."""
    remote, files = embedded_remote(), list(pull.get_files())
    for file in files:
        added = file.status == "added" and is_in(remote, file.filename)
        if not added and file.filename != str(artifacts.DATA_DVC):
            return str(file.filename)
    return "more files than GitHub lists" if pull.changed_files != len(files) else None

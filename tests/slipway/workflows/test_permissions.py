"""No job has a permission that its steps do not need. The tests of whole runs look at what the fake has recorded."""

from typing import Any

import pytest

from demo.fakes.github_permissions import (
    ISSUES_OR_PULLS_READ,
    ISSUES_OR_PULLS_WRITE,
    PUSH,
    Needed,
    needless,
    of_actions,
)
from tests.slipway.workflows.test_static import GITHUB, WORKFLOWS, jobs

RUNS: Needed = (("actions", "read"),)
START: Needed = (("actions", "write"),)
PULLS: Needed = (("pull-requests", "read"),)
ISSUES: Needed = (("issues", "write"),)
OPEN: Needed = (("pull-requests", "write"),)
VERBS: dict[str, tuple[Needed, ...]] = {
    "report": (PULLS, ISSUES_OR_PULLS_READ),
    "merge-check": (PULLS, ISSUES_OR_PULLS_READ),
    "push-charts": (PULLS, PUSH),
    "comment": (PULLS, ISSUES_OR_PULLS_WRITE),
    "auto-merge": (PULLS, PUSH, START),
    "rerun-checks": (START,),
    "open-data-pr": (PUSH, OPEN),
    "follow-data-prs": (PULLS, START),
    "open-upgrade-pr": (PUSH, OPEN),
    "candidate": (PULLS, ISSUES_OR_PULLS_READ, RUNS),
    "promote": (PUSH,),
    "deploy": (),
    "rollback": (PUSH,),
    "report-failure": (ISSUES,),
    "monitor": (ISSUES, START),
}
"""The permissions that each verb needs without an App."""


def needs(job: dict[str, Any]) -> list[Needed]:
    """Return what the steps of a job need. Raises KeyError for a verb that gets a token and is not in the table."""
    with_token = [step["run"].split()[1] for step in job["steps"] if "GITHUB_TOKEN" in step.get("env", {})]
    return [*of_actions(job), *(each for verb in with_token for each in VERBS[verb])]


def all_needless(text: str) -> dict[str, list[str]]:
    found = {name: needless(job["permissions"], needs(job)) for name, job in jobs(text).items()}
    return {name: each for name, each in found.items() if each}


@pytest.mark.parametrize("file", WORKFLOWS)
def test_no_job_has_a_permission_that_its_steps_do_not_need(file: str) -> None:
    assert all_needless((GITHUB / file).read_text()) == {}


@pytest.mark.parametrize(
    ("file", "old", "new", "needless"),
    [
        ("comment.yml", "contents: read # to check out", "contents: write # to", {"comment": ["contents: write"]}),
        ("ship.yml", "packages: write", "issues: read # to\n      packages: write", {"image": ["issues: read"]}),
        ("label.yml", "actions: write", "id-token: write # to\n      actions: write", {"rerun": ["id-token: write"]}),
        ("rollback.yml", "slipway rollback", "slipway deploy", {"rollback": ["contents: write"]}),
    ],
)
def test_a_permission_too_many_is_found(file: str, old: str, new: str, needless: dict[str, list[str]]) -> None:
    text = (GITHUB / "workflows" / file).read_text()
    assert old in text
    assert all_needless(text.replace(old, new)) == needless

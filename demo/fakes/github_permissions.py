"""The permissions that a token needs for each GitHub REST API call that Slipway, CML or `gh` makes.

They are an excerpt from the table that GitHub's documentation is made from: github/docs at commit 058fa63bfe93, file
src/github-apps/data/fpt-2022-11-28/server-to-server-permissions.json, read on 2026-11-26. If the table lists a call
under several permissions, any one of these permissions is enough.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from demo.fakes.github_state import Token

Needed = tuple[tuple[str, str], ...]
"""Alternative permissions, of which one is enough. Each has the name that workflows use, and `read` or `write`."""

ISSUES_OR_PULLS_READ: Needed = (("issues", "read"), ("pull-requests", "read"))
ISSUES_OR_PULLS_WRITE: Needed = (("issues", "write"), ("pull-requests", "write"))
OWNER: Needed = (("administration", "write"),)
"""A permission that only an owner's token has. A workflow cannot get it."""

NEEDED: dict[tuple[str, str], Needed] = {
    ("GET", ""): (("metadata", "read"),),
    ("GET", "/actions/runs/{number}"): (("actions", "read"),),
    ("GET", "/actions/runs/{number}/artifacts"): (("actions", "read"),),
    ("GET", "/actions/artifacts/{number}/{name}/zip"): (("actions", "read"),),
    ("POST", "/actions/runs/{number}/cancel"): (("actions", "write"),),
    ("POST", "/actions/runs/{number}/rerun"): (("actions", "write"),),
    ("GET", "/actions/secrets/public-key"): (("secrets", "read"),),
    ("PUT", "/actions/secrets/{name}"): (("secrets", "write"),),
    ("POST", "/actions/variables"): (("variables", "write"),),
    ("GET", "/actions/workflows/{name}"): (("actions", "read"),),
    ("POST", "/actions/workflows/{name}/dispatches"): (("actions", "write"),),
    ("GET", "/actions/workflows/{name}/runs"): (("actions", "read"),),
    ("GET", "/commits/{commit}"): (("contents", "read"),),
    ("GET", "/commits/{commit}/pulls"): (("pull-requests", "read"),),
    ("GET", "/contents/{path}"): (("contents", "read"),),
    ("POST", "/dispatches"): (("contents", "write"),),
    ("GET", "/issues"): (("issues", "read"),),
    ("POST", "/issues"): (("issues", "write"),),
    ("GET", "/issues/comments/{number}"): ISSUES_OR_PULLS_READ,
    ("PATCH", "/issues/comments/{number}"): ISSUES_OR_PULLS_WRITE,
    ("DELETE", "/issues/comments/{number}"): ISSUES_OR_PULLS_WRITE,
    ("GET", "/issues/{number}"): (("issues", "read"),),
    ("PATCH", "/issues/{number}"): ISSUES_OR_PULLS_WRITE,
    ("GET", "/issues/{number}/comments"): ISSUES_OR_PULLS_READ,
    ("POST", "/issues/{number}/comments"): ISSUES_OR_PULLS_WRITE,
    ("GET", "/issues/{number}/events"): ISSUES_OR_PULLS_READ,
    ("POST", "/labels"): ISSUES_OR_PULLS_WRITE,
    ("GET", "/pulls"): (("pull-requests", "read"),),
    ("POST", "/pulls"): (("pull-requests", "write"),),
    ("GET", "/pulls/{number}"): (("pull-requests", "read"),),
    ("GET", "/pulls/{number}/files"): (("pull-requests", "read"),),
    ("PUT", "/pulls/{number}/merge"): (("contents", "write"),),
    ("POST", "/rulesets"): OWNER,
}

PUSH: Needed = (("contents", "write"),)
ACTIONS: dict[str, tuple[Needed, ...]] = {
    "actions/checkout": ((("contents", "read"),),),
    "docker/login-action": ((("packages", "write"),),),
    "./.github/actions/cloud": ((("id-token", "write"),),),
    "actions/attest": ((("id-token", "write"),), (("attestations", "write"),)),
    "actions/attest-build-provenance": ((("id-token", "write"),), (("attestations", "write"),)),
}
"""The permissions that actions need according to their documentation. The fakes of the actions make no calls."""


def of_actions(job: Mapping[str, Any]) -> Iterator[Needed]:
    """Yield the permissions that the actions in a job need."""
    for step in job["steps"]:
        yield from ACTIONS.get(step.get("uses", "").split("@")[0], ())
        if "github-token" in step.get("with", {}):  # with a token, the action downloads an artifact of another run
            yield (("actions", "read"),)


def needless(declared: Mapping[str, str], needs: Collection[Needed]) -> list[str]:
    """Return the permissions that a job does not need.

    All calls of the job would succeed without such a permission, or with `read` instead of `write`.
    """
    found = []
    for name, access in declared.items():
        less = {**declared, name: "read"} if access == "write" else {k: v for k, v in declared.items() if k != name}
        if all(Token("", "Bot", less).may_any(need) for need in needs):
            found.append(f"{name}: {access}")
    return found

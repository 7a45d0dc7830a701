"""The permissions that a token needs for each call of GitHub's REST API that Slipway, CML or `gh` makes.

Excerpt of the table that GitHub's documentation is made from: github/docs at commit 058fa63bfe93, file
src/github-apps/data/fpt-2022-11-28/server-to-server-permissions.json, read on 2026-11-26. If it lists a call under
several permissions, any one of them is enough.
"""

Needed = tuple[tuple[str, str], ...]
"""Alternative permissions, of which one is enough. Each has the name that workflows use, and `read` or `write`."""

ISSUES_OR_PULLS_READ: Needed = (("issues", "read"), ("pull-requests", "read"))
ISSUES_OR_PULLS_WRITE: Needed = (("issues", "write"), ("pull-requests", "write"))
OWNER: Needed = (("administration", "write"),)
"""A permission that only the token of an owner has. A workflow cannot get it."""

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

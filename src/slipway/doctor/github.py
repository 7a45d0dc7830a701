"""The repository at GitHub, as docs/github.md and docs/clusters.md have it set up."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from github.Repository import Repository
from urllib3 import Retry

from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork
from slipway.doctor.result import Check, Finding, holds, missing, unknown
from slipway.integrations.git import MAIN
from slipway.integrations.github import ERRORS, connect, reason
from slipway.release.history import PRODUCTION, STAGING

HERE = "repos/{owner}/{repo}"
"""What `gh api` fills in."""
LOGIN = "unset GITHUB_TOKEN GH_TOKEN; gh auth login"
RULESET = Path(".github/ruleset.json")
LABEL = "ship-anyway"
BLOCKING = {"pull_request", "required_status_checks"}
"""Rules that do not let the commit of a release pass."""
PAGE = 30
"""As many variables as GitHub tells at once."""


@dataclass(frozen=True)
class Api:
    """The repository as the token may see it; each method raises one of `ERRORS`."""

    repository: Repository
    top: str

    def get(self, below: str = "") -> Any:
        return self.repository.requester.requestJsonAndCheck("GET", f"{self.top}{below}")[1]

    def names(self, below: str, key: str | None = None) -> set[str]:
        """The names in a list that comes in pages, under a key or not. Of secrets GitHub tells nothing else."""
        found: set[str] = set()
        for page in range(1, 100):
            told = self.get(f"{below}?per_page={PAGE}&page={page}")
            these = {each["name"] for each in (told[key] if key else told)} - found
            found |= these
            if len(these) < PAGE:
                break
        return found

    def there(self, kind: str) -> set[str]:
        """`secrets` or `variables`: of the repository, and those of its organisation that it may use."""
        return self.names(f"/actions/{kind}", kind) | self.names(f"/actions/organization-{kind}", kind)

    def lacking(self, secrets: Collection[str] = (), variables: Collection[str] = ()) -> tuple[str, str]:
        """The names of those that are not set, and the command that sets them; both empty where all are."""
        wanted = (("variable", variables), ("secret", secrets))
        gone = [(kind, name) for kind, names in wanted if names for name in sorted({*names} - self.there(f"{kind}s"))]
        return ", ".join(name for _, name in gone), " && ".join(f"gh {kind} set {name}" for kind, name in gone)


def asked(look: Callable[[Api, Fork], Finding]) -> Check:
    """A check that asks GitHub; where GitHub does not say, nothing is known."""

    def check(fork: Fork) -> Finding:
        if fork.repository is None:
            return unknown("Not seen, as origin is no repository at GitHub.", origin(fork).command)
        if not fork.token:
            return unknown("Not seen, as there is no token for GitHub.", LOGIN)
        environ = {**fork.environ, "GITHUB_TOKEN": fork.token, "GITHUB_REPOSITORY": fork.repository}
        try:
            return look(
                Api(connect(environ, ANSWER_TIMEOUT_SECONDS, Retry(total=0)), f"/repos/{fork.repository}"), fork
            )
        except ERRORS as error:
            answered = hasattr(error, "status")
            words = f"Not seen, as GitHub {'answers' if answered else 'does not answer:'} {reason(error)}."
            return unknown(words, LOGIN if answered else "gh auth status")

    return check


def origin(fork: Fork) -> Finding:
    if fork.repository:
        return holds(f"origin is {fork.repository} at {fork.server}.")
    if fork.origin is None:
        return missing("There is no remote `origin`.", "gh repo create --private --source=. --remote=origin --push")
    words = f"origin is {fork.origin}, which is no repository at {fork.server}."
    return missing(words, f"git remote set-url origin {fork.server}/OWNER/NAME")


@asked
def repository(api: Api, _: Fork) -> Finding:
    told = api.get()
    if (default := told["default_branch"]) != MAIN:
        words = f"Its default branch is {default}, and releases go to {MAIN}."
        return missing(words, f"gh repo edit --default-branch {MAIN}")
    if not told.get("has_issues", True):
        return missing("Issues are off, which tell of alarms and failed releases.", "gh repo edit --enable-issues")
    return holds(f"Its default branch is {MAIN}, and issues are on.")


@asked
def workflows(api: Api, _: Fork) -> Finding:
    """GitHub switches those of a fork off, and scheduled ones where nobody commits for a while."""
    may = api.get("/actions/permissions")
    if not may["enabled"] or may.get("allowed_actions") == "local_only":
        words = "Only actions of this account may run." if may["enabled"] else "GitHub Actions are off."
        values = "-F enabled=true -f allowed_actions=all"
        return missing(words, f"gh api --method PUT '{HERE}/actions/permissions' {values}")
    listed = api.get("/actions/workflows?per_page=100")["workflows"]
    off = [each["path"].rpartition("/")[2] for each in listed if each["state"] != "active"]
    if off:
        return missing(f"Off are {', '.join(off)}.", " && ".join(f"gh workflow enable {name}" for name in off))
    return holds("GitHub Actions are on, and every workflow is.")


@asked
def workflow_token(api: Api, _: Fork) -> Finding:
    told = api.get("/actions/permissions/workflow")
    reads, creates = told["default_workflow_permissions"] == "read", told["can_approve_pull_request_reviews"]
    if reads and creates:
        return holds("Workflows read unless they say more, and may create pull requests.")
    words = "Workflows may not create pull requests, which `New data` does."
    values = "-f default_workflow_permissions=read -F can_approve_pull_request_reviews=true"
    return missing(
        words if reads else "A workflow that does not say what it may, may write.",
        f"gh api --method PUT '{HERE}/actions/permissions/workflow' {values}",
    )


@asked
def rules_of_main(api: Api, _: Fork) -> Finding:
    """What .github/ruleset.json asks for, held against all that is in force, whichever ruleset has it."""
    wanted = json.loads(RULESET.read_text(encoding="utf-8"))
    active = api.get(f"/rules/branches/{MAIN}?per_page=100")
    lacking = [rule["type"] for rule in wanted["rules"] if not any(covers(each, rule) for each in active)]
    if not lacking:
        return holds(f"{MAIN} has the rules of {RULESET}; `pass` is required.")
    words = f"{MAIN} lacks rules of {RULESET}, or has weaker ones: {', '.join(lacking)}."
    for each in api.get("/rulesets?per_page=100"):
        if each["name"] == wanted["name"]:  # who may bypass it stays as it is
            update = f"gh api --method PUT '{HERE}/rulesets/{each['id']}' --input -"
            return missing(words, f"grep -v bypass_actors {RULESET} | {update}")
    return missing(words, f"gh api --method POST '{HERE}/rulesets' --input {RULESET}")


def covers(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a rule in force is at least as strict as the one that is wanted."""
    mine, its = found.get("parameters") or {}, wanted.get("parameters") or {}
    required, there = ({each["context"] for each in rule.get("required_status_checks", ())} for rule in (its, mine))
    strict = all((mine.get(key) or 0) >= value for key, value in its.items() if isinstance(value, int))
    return bool(found["type"] == wanted["type"] and strict and required <= there)


@asked
def label(api: Api, _: Fork) -> Finding:
    if LABEL in api.names("/labels"):
        return holds(f"There is the label {LABEL}.")
    why = "This commit may be merged though its model is held"
    return missing(f"There is no label {LABEL}.", f"gh label create {LABEL} --color B60205 --description '{why}'")


@asked
def environments(api: Api, _: Fork) -> Finding:
    """Whether both exist; whether somebody has to approve production is said, and may be either way."""
    there = {each["name"]: each for each in api.get("/environments?per_page=100").get("environments", ())}
    if lacking := [name for name in (STAGING, PRODUCTION) if name not in there]:
        commands = [f"gh api --method PUT '{HERE}/environments/{name}'" for name in lacking]
        return missing(f"There is no environment {', '.join(lacking)}.", " && ".join(commands))
    approved = any(each["type"] == "required_reviewers" for each in there[PRODUCTION].get("protection_rules", ()))
    return holds(f"{STAGING} and {PRODUCTION} exist; {PRODUCTION} asks for {'an' if approved else 'no'} approval.")


@asked
def app(api: Api, _: Fork) -> Finding:
    """By whom releases get past the rules of main."""
    active = api.get(f"/rules/branches/{MAIN}?per_page=100")
    blocking = {each["ruleset_id"] for each in active if each["type"] in BLOCKING}
    if not blocking:
        return holds(f"No rule of {MAIN} stands in the way of a release, so no App is needed.")
    names, command = api.lacking(secrets=["SLIPWAY_APP_KEY"], variables=["SLIPWAY_APP_ID"])
    if names:
        return missing(f"Rules of {MAIN} stop the commit of a release, and its App is not told: {names}.", command)
    for identity in sorted(blocking):
        actors = api.get(f"/rulesets/{identity}").get("bypass_actors")
        if actors is None:
            return unknown(f"Who may bypass the rules of {MAIN}, only an owner is told.", LOGIN)
        if not any(each["actor_type"] == "Integration" for each in actors):
            actor = '-F "bypass_actors[][actor_id]=$(gh variable get SLIPWAY_APP_ID)"'
            rest = "-f 'bypass_actors[][actor_type]=Integration' -f 'bypass_actors[][bypass_mode]=always'"
            command = f"gh api --method PUT '{HERE}/rulesets/{identity}' {actor} {rest}"
            return missing(f"No App may bypass the rules of {MAIN}, which stop the commit of a release.", command)
    return holds(f"An App may bypass the rules of {MAIN}, and the workflows know it.")

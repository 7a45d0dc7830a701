"""Check that the repository on GitHub is set up as docs/github.md describes."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from github import GithubException
from github.Repository import Repository
from urllib3 import Retry

from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork
from slipway.doctor.result import Check, Finding, missing, ok, optional, unknown
from slipway.integrations.git import MAIN
from slipway.integrations.github import ERRORS, connect, reason
from slipway.release.history import PRODUCTION, STAGING

HERE = "repos/{owner}/{repo}"
"""API path of the repository. The program `gh api` replaces `{owner}` and `{repo}`."""
LOGIN = "unset GITHUB_TOKEN GH_TOKEN; gh auth login"
RULESET = Path(".github/ruleset.json")
OWNERS = Path(".github/CODEOWNERS")
LABEL = "ship-anyway"
SCHEDULES = "SLIPWAY_SCHEDULES"
BLOCKING = {"pull_request", "required_status_checks", "update", "required_signatures", "required_deployments"}
BLOCKING |= {"merge_queue", "workflows", "commit_message_pattern"}
"""Types of GitHub rules that refuse a push of a release commit to `main`."""
FILES = {"SLIPWAY_APP_KEY": " < KEY.pem", "KUBE_CONFIG": " < KUBECONFIG"}
"""Secrets with several lines, which `gh secret set` reads from a file."""
PAGE_SIZE = 30
"""The maximum number of variables that GitHub returns on one page of a list."""

Setting = tuple[str, str]
"""The kind (`secret` or `variable`) and the name of a setting on GitHub."""


@dataclass(frozen=True)
class Api:
    """Requests to the GitHub API for one repository. Each method raises one of `ERRORS` if a request fails."""

    repository: Repository
    top: str

    def get(self, below: str = "") -> Any:
        """Return the response to a GET request for a path below the repository."""
        return self.repository.requester.requestJsonAndCheck("GET", f"{self.top}{below}")[1]

    def names(self, below: str, key: str | None = None) -> set[str]:
        """Return the names from all pages of a list. `key` is the field of the response that contains the list."""
        found: set[str] = set()
        for page in range(1, 100):
            answer = self.get(f"{below}?per_page={PAGE_SIZE}&page={page}")
            new = {each["name"] for each in (answer[key] if key else answer)} - found
            found |= new
            if len(new) < PAGE_SIZE:
                break
        return found

    def existing(self, kind: str) -> set[str]:
        """Return the names of all secrets or variables (`kind`) of the repository and of its organisation."""
        return self.names(f"/actions/{kind}s", f"{kind}s") | self.names(f"/actions/organization-{kind}s", f"{kind}s")

    def not_set(self, wanted: Collection[Setting]) -> list[Setting]:
        """Return the settings in `wanted` that do not exist on GitHub, in the order of `wanted`."""
        existing = {kind: self.existing(kind) for kind in {kind for kind, _ in wanted}}
        return [(kind, name) for kind, name in wanted if name not in existing[kind]]


def on_github(look: Callable[[Api, Fork], Finding]) -> Check:
    """Make a check from a function that reads the GitHub API. The check returns `unknown` if GitHub does not answer."""

    def check(fork: Fork) -> Finding:
        if fork.repository is None:
            return unknown(f"Not checked, because origin is not a repository at {fork.server}.")
        if not fork.token:
            return unknown("Not checked, because there is no token for GitHub.", "gh auth login")
        environ = {**fork.environ, "GITHUB_TOKEN": fork.token, "GITHUB_REPOSITORY": fork.repository}
        repository = connect(environ, ANSWER_TIMEOUT_SECONDS, Retry(total=0))
        try:
            return look(Api(repository, f"/repos/{fork.repository}"), fork)
        except ERRORS as error:
            return _refused(error)

    return check


def _refused(error: Exception) -> Finding:
    """Return the finding for a failed request. The state is `optional` if the GitHub plan lacks the feature."""
    words = reason(error)
    if not isinstance(error, GithubException):
        return unknown(f"Not checked, because GitHub does not answer ({words}).", "gh auth status")
    if _is_of_plan(error):
        sentence = f"The GitHub plan of this repository does not include this. GitHub answers: {words}"
        return optional(sentence, place="docs/github.md has a table of the plans.")
    return unknown(f"Not checked, because GitHub answers {words}. The token of an owner is needed.", LOGIN)


def _is_of_plan(error: GithubException) -> bool:
    """Return whether GitHub refuses a request because the account's plan does not include the feature."""
    return error.status == 403 and "upgrade" in reason(error).lower()


def origin(fork: Fork) -> Finding:
    """Check that the git remote `origin` is a repository on GitHub."""
    if fork.repository:
        return ok(f"origin is {fork.repository} at {fork.server}.")
    if fork.origin is None:
        words = "This clone has no remote `origin`."
        return missing(words, "gh repo create --private --source=. --remote=origin --push")
    words = f"origin is {fork.origin}, which is not a repository at {fork.server}."
    return missing(words, f"git remote set-url origin {fork.server}/OWNER/NAME")


@on_github
def repository(api: Api, _: Fork) -> Finding:
    """Check that the default branch is `main`, and that issues are enabled."""
    answer = api.get()
    if (default := answer["default_branch"]) != MAIN:
        words = f"The default branch is {default}, and releases go to {MAIN}."
        return missing(words, f"gh repo edit --default-branch {MAIN}")
    if not answer.get("has_issues", True):
        words = "Issues are off, so alarms and failed releases cannot be reported."
        return missing(words, "gh repo edit --enable-issues")
    return ok(f"The default branch is {MAIN}, and issues are on.")


@on_github
def actions(api: Api, _: Fork) -> Finding:
    """Check that GitHub Actions are enabled, and that workflows can create pull requests.

    GitHub disables all workflows when a repository is forked, and scheduled workflows in an inactive repository.
    """
    allowed = api.get("/actions/permissions")
    if not allowed["enabled"] or allowed.get("allowed_actions") == "local_only":
        words = "Only actions of this account are allowed." if allowed["enabled"] else "GitHub Actions are off."
        values = "-F enabled=true -f allowed_actions=all"
        return missing(words, f"gh api --method PUT '{HERE}/actions/permissions' {values}")
    workflows = api.get("/actions/workflows?per_page=100")["workflows"]
    off = [each["path"].rpartition("/")[2] for each in workflows if each["state"] != "active"]
    if off:
        return missing(f"Disabled: {', '.join(off)}.", " && ".join(f"gh workflow enable {name}" for name in off))
    if not api.get("/actions/permissions/workflow")["can_approve_pull_request_reviews"]:
        words = "Workflows cannot create pull requests, but `New data` has to create them if there is no App."
        command = f"gh api --method PUT '{HERE}/actions/permissions/workflow' -F can_approve_pull_request_reviews=true"
        return missing(words, command)
    return ok("GitHub Actions and all workflows are on, and workflows can create pull requests.")


@on_github
def schedules(api: Api, _: Fork) -> Finding:
    """Report whether scheduled runs of workflows are enabled."""
    if SCHEDULES in api.existing("variable"):
        return ok(f"Scheduled runs of New data, Monitor and Cluster are on, because the variable {SCHEDULES} is set.")
    words = f"Scheduled runs of New data, Monitor and Cluster are off, because the variable {SCHEDULES} is not set."
    return optional(words, f"gh variable set {SCHEDULES} --body true")


@on_github
def ruleset(api: Api, _: Fork) -> Finding:
    """Check that the rules for `main` on GitHub are at least as strict as .github/ruleset.json."""
    wanted = json.loads(RULESET.read_text(encoding="utf-8"))
    active = api.get(f"/rules/branches/{MAIN}?per_page=100")
    lacking = [rule["type"] for rule in wanted["rules"] if not any(_covers(each, rule) for each in active)]
    if not lacking:
        return ok(f"{MAIN} has the rules of {RULESET}.")
    same = [each["id"] for each in api.get("/rulesets?per_page=100") if each["name"] == wanted["name"]]
    target = f"PUT '{HERE}/rulesets/{same[0]}'" if same else f"POST '{HERE}/rulesets'"
    words = f"{MAIN} lacks these rules of {RULESET}, or has weaker ones: {', '.join(lacking)}."
    return missing(words, f"gh api --method {target} --input {RULESET}")


def _covers(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether a rule on GitHub is at least as strict as a wanted rule, with the same required checks."""
    has, needs = found.get("parameters") or {}, wanted.get("parameters") or {}
    (existing, required) = (
        {(each["context"], each.get("integration_id")) for each in rule.get("required_status_checks", ())}
        for rule in (has, needs)
    )
    strict = all((has.get(key) or 0) >= value for key, value in needs.items() if isinstance(value, int))
    return bool(found["type"] == wanted["type"] and strict and required <= existing)


@on_github
def app(api: Api, _: Fork) -> Finding:
    """Check that releases can push to `main`. If a rule refuses the push, check that an App can bypass the rule."""
    try:
        active = api.get(f"/rules/branches/{MAIN}?per_page=100")
    except GithubException as error:
        if not _is_of_plan(error):
            raise
        active = []
    blocking = {each["ruleset_id"] for each in active if each["type"] in BLOCKING}
    if not blocking:
        return ok(f"No rule of {MAIN} refuses release commits, so no App is needed.")
    if gone := api.not_set([("variable", "SLIPWAY_APP_ID"), ("secret", "SLIPWAY_APP_KEY")]):
        words = f"Rules of {MAIN} refuse release commits, so an App has to bypass them. Not set: {listed(gone)}."
        return missing(words, set_commands(gone), "The section `The App` in docs/github.md has the steps.")
    for identity in sorted(blocking):
        actors = api.get(f"/rulesets/{identity}").get("bypass_actors")
        if actors is None:
            return unknown(f"Not checked, because only an owner can list who bypasses the rules of {MAIN}.", LOGIN)
        if not any(each["actor_type"] == "Integration" for each in actors):
            words = f"No App can bypass the rules of {MAIN}, which refuse release commits."
            return missing(words, f"gh ruleset view {identity} --web", "Add the App to `Bypass list`.")
    return ok(f"An App can bypass the rules of {MAIN}, and the workflows have its ID and key.")


@on_github
def environments(api: Api, _: Fork) -> Finding:
    """Check that GitHub has the environments staging and production. Report whether production needs an approval."""
    found = {each["name"]: each for each in api.get("/environments?per_page=100").get("environments", ())}
    if lacking := [name for name in (STAGING, PRODUCTION) if name not in found]:
        commands = [f"gh api --method PUT '{HERE}/environments/{name}'" for name in lacking]
        return missing(f"Missing environments: {', '.join(lacking)}.", " && ".join(commands))
    approval = any(each["type"] == "required_reviewers" for each in found[PRODUCTION].get("protection_rules", ()))
    words = "needs an approval" if approval else "ships without approval, because it has no required reviewers"
    return ok(f"{STAGING} and {PRODUCTION} exist. A release to {PRODUCTION} {words}.")


def code_owners(_: Fork) -> Finding:
    """Check that .github/CODEOWNERS names reviewers. The rules of `main` require their approval."""
    text = OWNERS.read_text(encoding="utf-8") if OWNERS.is_file() else ""
    rules = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    place = f"Edit {OWNERS}: name your teams, and remove the `# ` before their rules."
    if "@YOUR-ORGANISATION" in "".join(rules):
        return missing(f"{OWNERS} names the placeholder @YOUR-ORGANISATION.", place=place)
    if rules:
        return ok(f"{OWNERS} names required reviewers.")
    return optional(f"{OWNERS} names no reviewers, so anyone with write access can approve.", place=place)


@on_github
def label(api: Api, _: Fork) -> Finding:
    """Check that the label `ship-anyway` exists. A maintainer overrides the verdict `hold` with this label."""
    if LABEL in api.names("/labels"):
        return ok(f"The label {LABEL} exists.")
    why = "This commit may be merged though its model is held"
    words = f"The label {LABEL}, which overrides a hold, does not exist."
    return missing(words, f"gh label create {LABEL} --color B60205 --description '{why}'")


def listed(settings: Collection[Setting]) -> str:
    """Return the kind and name of each secret or variable, as part of a sentence."""
    return ", ".join(f"{kind} {name}" for kind, name in settings)


def set_commands(settings: Collection[Setting]) -> str:
    """Return the command that sets secrets and variables. `gh` prompts for each value."""
    return " && ".join(f"gh {kind} set {name}{FILES.get(name, '')}" for kind, name in settings)

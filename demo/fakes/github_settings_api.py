"""The part of the fake GitHub API for the settings that an owner makes with `gh`."""

import base64

from starlette.routing import BaseRoute

from demo.fakes import github_api
from demo.fakes.github_call import Call, Refusal, Reply, route, top_route

PUBLIC_KEY = base64.b64encode(bytes(range(32))).decode()
ACTIVE = ("active", "disabled", "evaluate")


def get_meta(_: Call) -> Reply:
    return 200, {"installed_version": "3.19.0"}


def query(call: Call) -> Reply:
    """Answer a GraphQL query: the query by `gh` for the default branch, or Slipway's query for a comment."""
    if "id" in call.body.get("variables", {}):
        return github_api.get_node(call)
    owner, _, name = call.state.repository.partition("/")
    known = {"name": name, "owner": {"login": owner}, "defaultBranchRef": {"name": "main"}}
    return 200, {"data": {"repository": {"id": "1", "viewerPermission": "ADMIN", **known}}}


def get_public_key(_: Call) -> Reply:
    return 200, {"key_id": "1", "key": PUBLIC_KEY}


def put_secret(call: Call) -> Reply:
    if not call.body.get("encrypted_value"):
        raise Refusal(422, "Invalid request. No value was given.")
    return 201, {}


def create_variable(call: Call) -> Reply:
    if not call.body.get("value"):
        raise Refusal(422, "Validation Failed: value can't be blank")
    return 201, {}


def create_ruleset(call: Call) -> Reply:
    if not call.body.get("name") or call.body.get("enforcement") not in ACTIVE:
        raise Refusal(422, "Invalid request. `name` and `enforcement` have to be given.")
    return 201, {"id": 1}


def create_label(call: Call) -> Reply:
    if len(call.body.get("description") or "") > 100:
        raise Refusal(422, "Validation Failed: description is too long (maximum is 100 characters)")
    return 201, {"name": call.body["name"]}


ROUTES: list[BaseRoute] = [
    top_route("GET", "/meta", get_meta),
    route("GET", "/actions/secrets/public-key", get_public_key),
    route("PUT", "/actions/secrets/{name}", put_secret),
    route("POST", "/actions/variables", create_variable),
    route("POST", "/rulesets", create_ruleset),
    route("POST", "/labels", create_label),
]

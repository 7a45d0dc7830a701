"""Find the workflows that an event starts. The rules for this are GitHub's, and act does not implement them."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.fakes.github_actions_api import triggers
from demo.fakes.github_state import Token

PULL_REQUEST_TYPES = ("opened", "synchronize", "reopened")
"""The types of the event `pull_request` that start a workflow if the workflow does not set `types`."""
PATHS_LOOKED_AT = 300
"""Number of changed files that GitHub compares with the filter `paths`. It ignores all further files."""


@dataclass(frozen=True)
class Event:
    """An event.

    `token` belongs to the user or App that caused it. The runs that the event starts use `commit` and `ref`.
    """

    name: str
    payload: Mapping[str, Any]
    token: Token
    commit: str
    ref: str
    paths: Sequence[str] = field(default=())
    """The changed files of a push."""


def starts(workflow: str, event: Event) -> bool:
    """Return whether an event starts a workflow. `workflow` is the text of its file, with its triggers and filters."""
    found = triggers(workflow)
    if event.name not in found:
        return False
    filters, payload = found[event.name], event.payload
    if event.name == "pull_request":
        is_of_base = payload["pull_request"]["base"]["ref"] in filters.get("branches", ["main"])
        return is_of_base and payload["action"] in filters.get("types", PULL_REQUEST_TYPES)
    if event.name == "push":
        is_of_branch = event.ref.removeprefix("refs/heads/") in filters.get("branches", ["main"])
        return is_of_branch and _any_path(filters.get("paths"), event.paths)
    if event.name == "workflow_run":
        return payload["workflow_run"]["name"] in filters["workflows"]
    if event.name == "repository_dispatch":
        return payload["action"] in filters.get("types", [payload["action"]])
    return True


def _any_path(patterns: Sequence[str] | None, paths: Sequence[str]) -> bool:
    if patterns is None:
        return True
    expressions = [re.escape(each).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") for each in patterns]
    return any(re.fullmatch(each, path) for path in paths[:PATHS_LOOKED_AT] for each in expressions)


def render(template: Any, context: Mapping[str, Any]) -> str:
    """Replace the expressions in a text by their values. Only expressions of concurrency groups are supported."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: _text(evaluate(match[1], context)), _text(template))


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """Evaluate an expression that contains names, texts, numbers, `||`, `&&`, `==` and `!=`."""
    python = expression.replace("||", " or ").replace("&&", " and ").strip()
    return _value(ast.parse(python, mode="eval").body, context)


def _value(node: ast.AST, context: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.BoolOp(op=operator, values=[*others, last]):
            for each in others:
                found = _value(each, context)
                if bool(found) is isinstance(operator, ast.Or):
                    return found
            return _value(last, context)
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            is_equal = _text(_value(left, context)) == _text(_value(right, context))
            return is_equal is isinstance(operator, ast.Eq)
        case ast.Attribute(value=inner, attr=name):
            found = _value(inner, context)
            return found.get(name) if isinstance(found, Mapping) else None
        case ast.Name(id=name):
            return context.get(name)
    raise ValueError(f"The fake of GitHub does not evaluate {ast.unparse(node)!r}.")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)

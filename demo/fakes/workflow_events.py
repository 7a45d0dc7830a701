"""Find the workflows that an event starts, by the rules of GitHub that act does not implement."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.fakes.github_actions_api import triggers
from demo.fakes.github_state import Token

PULL_REQUEST_TYPES = ("opened", "synchronize", "reopened")
"""The types of pull_request that start a workflow without `types`."""
PATHS_LOOKED_AT = 300
"""The number of changed files that a filter `paths` reads."""


@dataclass(frozen=True)
class Event:
    """An event: GitHub's name of it, its payload, the token that caused it, and the commit and ref of its runs."""

    name: str
    payload: Mapping[str, Any]
    token: Token
    commit: str
    ref: str
    paths: Sequence[str] = field(default=())
    """For a push: the changed files."""


def starts(workflow: str, event: Event) -> bool:
    """Return whether the text of a workflow file names an event, and whether its filters let it pass."""
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
    """Fill in the expressions of a text, as far as those of concurrency groups go."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: _text(evaluate(match[1], context)), _text(template))


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """Evaluate an expression of names, texts and numbers with `||`, `&&`, `==` and `!=`."""
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

"""Handle one call of the fake GitHub API: the request, the check of its permissions, and the refusal."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.fakes.github_permissions import NEEDED, Needed
from demo.fakes.github_state import State, Token, token_text

if TYPE_CHECKING:
    from demo.fakes.github_server import GitHub

API = "/api/v3"
"""The API path on GitHub Enterprise servers, which CML and `gh` use."""
HANG_SECONDS = 120
MAX_BODY = 65_536
"""Maximum number of characters in the body of a comment, an issue or a pull request."""
Reply = tuple[int, Any]
Answer = Callable[["Call"], Reply | Response]


class Refusal(Exception):
    """A call that GitHub refuses."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclass(frozen=True)
class Call:
    """A request to the API. `path` is relative to the repository."""

    state: State
    server: str
    token: Token
    path: str
    parameters: Mapping[str, Any]
    query: Mapping[str, str]
    body: Any

    def url(self, below: str) -> str:
        """Return the API URL for a path below the repository."""
        return f"{self.server}{API}/repos/{self.state.repository}{below}"

    def html_url(self, below: str) -> str:
        """Return the URL of a page in the repository, for people."""
        return f"{self.server}/{self.state.repository}{below}"

    def user(self, login: str, kind: str) -> dict[str, str]:
        """Return a user in the JSON format of the API."""
        return {"login": login, "type": kind, "url": f"{self.server}{API}/users/{login}"}

    def check_body(self) -> None:
        """Refuse a text that is too long for GitHub."""
        if len(self.body.get("body") or "") > MAX_BODY:
            raise Refusal(422, f"Validation Failed: body is too long (maximum is {MAX_BODY} characters)")


def route(method: str, path: str, answer: Answer) -> Route:
    """Make a route below the repository. Raises KeyError if `NEEDED` does not list the permissions for it."""
    needed = NEEDED[method, path.replace(":int", "").replace(":path", "")]
    return Route(f"/repos/{{owner}}/{{repo}}{path}", _endpoint(answer, needed), methods=[method])


def top_route(method: str, path: str, answer: Answer) -> Route:
    """Make a route that is not below a repository and needs no permission."""
    return Route(path, _endpoint(answer, ()), methods=[method])


def not_found(_: Call) -> Reply:
    """Refuse a request that matches no route."""
    raise Refusal(404, "Not Found")


def unmatched() -> Route:
    """Make the route for all other requests."""
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Route("/{path:path}", _endpoint(not_found, ()), methods=every)


def _endpoint(answer: Answer, needed: Needed) -> Callable[[Request], Any]:
    """Return a function that records a request, and answers it as GitHub does or with a failure that a test has set."""

    async def endpoint(request: Request) -> Response:
        github: GitHub = request.app.state.github
        content = await request.body()
        path, client = request.url.path.removeprefix(API), request.headers.get("User-Agent", "")
        asked: dict[str, Any] = {
            "method": request.method,
            "path": path,
            "client": client,
            "authorization": request.headers.get("Authorization", ""),
            "body": json.loads(content) if content else None,
            "status": None,
        }
        github.state.requests.append(asked)
        failure = github.state.failure(request.method, path, client)
        response = None
        if failure is None or failure.applied:
            response = await asyncio.to_thread(_answered, github, request, asked, answer, needed)
        if failure and failure.status is None:
            await asyncio.sleep(HANG_SECONDS)
        if failure or response is None:
            response = JSONResponse(
                {"message": "A failure that the test asked for"}, (failure and failure.status) or 500
            )
        asked["status"] = response.status_code
        return response

    return endpoint


def _answered(github: "GitHub", request: Request, asked: Mapping[str, Any], answer: Answer, needed: Needed) -> Response:
    state = github.state
    try:
        with github.lock:
            token = _token(state, asked["authorization"])
            below = _below(state, asked["path"])
            if request.method == "GET" and below in state.documents:
                return JSONResponse(state.documents[below])
            _check_permission(token, needed)
            state.used.setdefault(token_text(asked["authorization"]), set()).add(needed)
            reply = answer(
                Call(state, github.url, token, below, request.path_params, request.query_params, asked["body"])
            )
    except Refusal as refusal:
        reply = refusal.status, {"message": refusal.message, "status": str(refusal.status)}
    if isinstance(reply, Response):
        return reply
    status, document = reply
    return Response(status_code=204) if status == 204 else JSONResponse(document, status)


def _token(state: State, authorization: str) -> Token:
    token = state.token_of(authorization)
    if token is None:
        raise Refusal(401, "Bad credentials")
    return token


def _below(state: State, path: str) -> str:
    """Make a path relative to the repository. Return a path outside of the repository unchanged."""
    top = f"/repos/{state.repository}"
    if path.startswith("/repos/") and path != top and not path.startswith(f"{top}/"):
        raise Refusal(404, "Not Found")
    below = path.removeprefix(top)
    _check_plan(state, below)
    return below


def _check_permission(token: Token, needed: Needed) -> None:
    if not token.may_any(needed):
        raise Refusal(403, "Resource not accessible by integration")


def _check_plan(state: State, below: str) -> None:
    """Refuse requests for features that the free plan does not include in private repositories."""
    if state.private and state.plan == "free" and below.startswith(("/rulesets", "/rules/", "/environments")):
        raise Refusal(403, "Upgrade to GitHub Pro or make this repository public to enable this feature.")

"""The part of the fake GitHub API for users, commits, pull requests, issues and comments."""

import base64
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from demo.fakes.github_call import Call, Refusal, Reply, route, top_route

EPOCH = "2000-01-01T00:00:00Z"


def get_user(call: Call) -> Reply:
    if not call.state.user_is_told:
        raise Refusal(403, "Resource not accessible by integration")
    return 200, call.user(call.token.login, call.token.kind)


def get_repository(call: Call) -> Reply:
    visibility = {"private": call.state.private, "visibility": "private" if call.state.private else "public"}
    return 200, {"full_name": call.state.repository, "url": call.url(""), "default_branch": "main", **visibility}


def get_content(call: Call) -> Reply:
    path, ref = call.parameters["path"], call.query["ref"]
    content = call.state.contents.get(f"{ref}:{path}")
    if content is None:
        raise Refusal(404, "Not Found")
    encoded = base64.b64encode(content.encode()).decode()
    return 200, {"type": "file", "path": path, "encoding": "base64", "content": encoded, "sha": ref}


def get_commit(call: Call) -> Reply:
    return 200, {"sha": call.parameters["commit"], "url": call.url(call.path)}


def list_pulls_of_commit(call: Call) -> Reply:
    merged = [number for number, each in call.state.pulls.items() if each.get("merged") == call.parameters["commit"]]
    return 200, [_pull(call, number) for number in merged]


# Pull requests.


def list_pulls(call: Call) -> Reply:
    branch, state = call.query.get("head", "").partition(":")[2], call.query.get("state", "open")
    found = [_pull(call, number) for number, each in call.state.pulls.items() if branch in ("", each.get("branch"))]
    return 200, [each for each in found if state in ("all", each["state"])]


def create_pull(call: Call) -> Reply:
    call.check_body()
    state, branch = call.state, call.body["head"]
    if any(each.get("branch") == branch and each.get("state") != "closed" for each in state.pulls.values()):
        raise Refusal(422, "Validation Failed: A pull request already exists")
    head = state.host.branch_head(branch) if state.host else "0" * 40
    if head is None:
        raise Refusal(422, "Validation Failed: head is invalid")
    number = 1 + max(map(int, state.pulls), default=0)
    opened_by = {"login": call.token.login, "kind": call.token.kind}
    told = {"title": call.body["title"], "body": call.body["body"], "branch": branch, "from": state.repository}
    state.pulls[str(number)] = {"head": head, **told, **opened_by}
    if state.host:
        state.host.on_pull_request(number, call.token)
    return 201, _pull(call, str(number))


def get_pull(call: Call) -> Reply:
    return 200, _pull(call, str(call.parameters["number"]))


def list_files(call: Call) -> Reply:
    return 200, _known(call).get("files", [])


def merge_pull(call: Call) -> Reply:
    pull, state = _known(call), call.state
    if pull.get("state") == "closed":
        raise Refusal(405, "Pull Request is not mergeable")
    if call.body["sha"] != pull["head"]:
        raise Refusal(409, "Head branch was modified. Review and try the merge again.")
    title, body = call.body["commit_title"], call.body.get("commit_message", "")
    message = f"{title}\n\n{body}" if body else title
    commit = state.host.merge(call.parameters["number"], message, call.token) if state.host else pull["head"]
    if commit is None:
        raise Refusal(405, "Pull Request is not mergeable")
    pull |= {"state": "closed", "merging": title, "message": message}
    return 200, {"merged": True, "sha": commit, "message": "Pull Request successfully merged"}


def _known(call: Call) -> dict[str, Any]:
    """Return the pull request that a path names."""
    pull = call.state.pulls.get(str(call.parameters["number"]))
    if pull is None:
        raise Refusal(404, "Not Found")
    return pull


def _pull(call: Call, number: str) -> dict[str, Any]:
    pull = call.state.pulls.get(number)
    if pull is None:
        raise Refusal(404, "Not Found")
    source = pull["from"] and {"full_name": pull["from"]}
    done = bool(pull.get("merged") or pull.get("merging"))
    return {
        "number": int(number),
        "title": pull.get("title", ""),
        "user": call.user(pull.get("login", "somebody"), pull.get("kind", "User")),
        "state": pull.get("state", "open"),
        "url": call.url(f"/pulls/{number}"),
        "issue_url": call.url(f"/issues/{number}"),
        "html_url": call.html_url(f"/pull/{number}"),
        "head": {"sha": pull["head"], "ref": pull.get("branch", "change"), "repo": source},
        "base": {"sha": "0" * 40, "ref": "main", "repo": {"full_name": call.state.repository}},
        "labels": [{"name": name} for name in pull.get("labels", [])],
        "changed_files": pull.get("changed_files", len(pull.get("files", []))),
        "updated_at": EPOCH,
        "merged": done,
        "merged_at": EPOCH if done else None,
    }


# Issues. Each pull request is an issue too.


def list_issues(call: Call) -> Reply:
    label = call.query["labels"]
    found = [each for each in call.state.issues if each["state"] == "open" and label in each["labels"]]
    return 200, [_issue(call, each) for each in found]


def create_issue(call: Call) -> Reply:
    call.check_body()
    issues = call.state.issues
    issues.append({"number": 100 + len(issues), "state": "open", **call.body})
    return 201, _issue(call, issues[-1])


def get_issue(call: Call) -> Reply:
    number = call.parameters["number"]
    found = next((each for each in call.state.issues if each["number"] == number), None)
    return 200, _issue(call, found) if found else _pull(call, str(number)) | {"url": call.url(f"/issues/{number}")}


def update_issue(call: Call) -> Reply:
    call.check_body()
    found = next((each for each in call.state.issues if each["number"] == call.parameters["number"]), None)
    if found is None:
        raise Refusal(404, "Not Found")
    found |= call.body
    return 200, _issue(call, found)


def list_issue_events(call: Call) -> Reply:
    of_pull = [each for each in call.state.label_events if each["pull"] == call.parameters["number"]]
    return 200, [
        {
            "id": number,
            "event": each["event"],
            "actor": call.user(each["login"], "User"),
            "label": {"name": each["label"]},
            "created_at": each["at"],
        }
        for number, each in enumerate(of_pull)
    ]


def _issue(call: Call, issue: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": issue["number"],
        "title": issue["title"],
        "state": issue["state"],
        "created_at": "2000-01-02T00:00:00Z",
        "url": call.url(f"/issues/{issue['number']}"),
        "html_url": call.html_url(f"/issues/{issue['number']}"),
    }


# Comments.


def list_comments(call: Call) -> Response:
    """Return a page of comments. A header contains the URL of the next page."""
    number = _thread(call)
    size, page = int(call.query.get("per_page", 30)), int(call.query.get("page", 1))
    there = [each for each in call.state.comments if each["pull"] == number]
    pages = -(-len(there) // size)
    links = {"next": page + 1, "last": pages} if page < pages else {}
    address = call.url(f"/issues/{number}/comments")
    link = ", ".join(f'<{address}?per_page={size}&page={each}>; rel="{name}"' for name, each in links.items())
    shown = [_comment(call, each) for each in there[size * (page - 1) : size * page]]
    return JSONResponse(shown, headers={"Link": link} if link else {})


def create_comment(call: Call) -> Reply:
    call.check_body()
    number = _thread(call)
    return 201, _comment(call, call.state.comment(call.body["body"], call.token.login, call.token.kind, pull=number))


def get_comment(call: Call) -> Reply:
    return 200, _comment(call, _found(call))


def update_comment(call: Call) -> Reply:
    call.check_body()
    found = _found(call)
    found |= {"body": call.body["body"], "editor": call.token.login, "at": call.state.now()}
    return 200, _comment(call, found)


def get_node(call: Call) -> Reply:
    """Answer Slipway's GraphQL query for the author and the last editor of a comment."""
    number = int(call.body["variables"]["id"].removeprefix("IC_"))
    comment = next(each for each in call.state.comments if each["id"] == number)
    author, editor = (
        {"login": each.removesuffix("[bot]")} if each else None for each in (comment["login"], comment.get("editor"))
    )
    node = {"__typename": "IssueComment", "author": author, "editor": editor}
    return 200, {"data": {"node": node}}


def delete_comment(call: Call) -> Reply:
    call.state.comments.remove(_found(call))
    return 204, None


def _thread(call: Call) -> int:
    """Return the number of the pull request or issue that a path names."""
    number: int = call.parameters["number"]
    if str(number) not in call.state.pulls and number not in [each["number"] for each in call.state.issues]:
        raise Refusal(404, "Not Found")
    return number


def _found(call: Call) -> dict[str, Any]:
    """Return the comment that a path names."""
    for each in call.state.comments:
        if each["id"] == call.parameters["number"]:
            return each
    raise Refusal(404, "Not Found")


def _comment(call: Call, comment: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": comment["id"],
        "node_id": f"IC_{comment['id']}",
        "body": comment["body"],
        "updated_at": comment["at"],
        "user": call.user(comment["login"], comment["type"]),
        "url": call.url(f"/issues/comments/{comment['id']}"),
        "html_url": call.html_url(f"/pull/{comment['pull']}#issuecomment-{comment['id']}"),
    }


ROUTES: list[BaseRoute] = [
    top_route("GET", "/user", get_user),
    route("GET", "", get_repository),
    route("GET", "/contents/{path:path}", get_content),
    route("GET", "/commits/{commit}", get_commit),
    route("GET", "/commits/{commit}/pulls", list_pulls_of_commit),
    route("GET", "/pulls", list_pulls),
    route("POST", "/pulls", create_pull),
    route("GET", "/pulls/{number:int}", get_pull),
    route("GET", "/pulls/{number:int}/files", list_files),
    route("PUT", "/pulls/{number:int}/merge", merge_pull),
    route("GET", "/issues", list_issues),
    route("POST", "/issues", create_issue),
    route("GET", "/issues/{number:int}", get_issue),
    route("PATCH", "/issues/{number:int}", update_issue),
    route("GET", "/issues/{number:int}/comments", list_comments),
    route("POST", "/issues/{number:int}/comments", create_comment),
    route("GET", "/issues/{number:int}/events", list_issue_events),
    route("GET", "/issues/comments/{number:int}", get_comment),
    route("PATCH", "/issues/comments/{number:int}", update_comment),
    route("DELETE", "/issues/comments/{number:int}", delete_comment),
]

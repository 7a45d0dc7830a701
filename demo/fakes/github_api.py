"""What GitHub's API answers to the requests of Slipway and of CML: comments, pull requests, issues, workflows."""

import base64
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from demo.fakes.github_server import Failure, GitHub

ENTERPRISE = "/api/v3"
"""Below this path the API answers too, as GitHub Enterprise has it, and as CML asks there."""
HANGS = 120
"""Seconds."""
MOST_CHARACTERS = 65_536


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Answers(BaseHTTPRequestHandler):
    github: "GitHub"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed; `State.requests` has it all."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = self.github.state
        length = int(self.headers.get("Content-Length") or 0)
        content = json.loads(self.rfile.read(length)) if length else None
        path = urlsplit(self.path).path.removeprefix(ENTERPRISE)
        client = self.headers.get("User-Agent", "")
        with self.github.lock:
            asked = {"method": self.command, "path": path, "client": client, "body": content}
            state.requests.append(asked | {"authorization": self.headers.get("Authorization", "")})
            failure = self._failure(path, client)
            status: int
            document: Any
            headers: dict[str, str]
            status, document, headers = 0, {}, {}
            if failure is None or failure.applied:
                status, document, headers = self._outcome(path, content)
            if failure:
                status, document = failure.status, {"message": "This was to be expected"}
        if status == 0:
            self.github.over.wait(HANGS)
            self.close_connection = True
            return
        self._send(status, document, headers)

    def _outcome(self, path: str, content: Any) -> tuple[int, Any, dict[str, str]]:
        try:
            return self._obey(path, content)
        except _Refusal as refusal:
            return refusal.status, {"message": refusal.message}, {}

    def _failure(self, path: str, client: str) -> "Failure | None":
        for each in self.github.state.failures:
            wanted = ((each.method, self.command), (each.path, path), (each.client, client))
            if each.times and all(re.fullmatch(pattern, text, re.IGNORECASE) for pattern, text in wanted):
                each.times -= 1
                return each
        return None

    def _send(self, status: int, document: Any, headers: dict[str, str]) -> None:
        body = b"" if status == 204 else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _obey(self, path: str, content: Any) -> tuple[int, Any, dict[str, str]]:  # noqa: C901, PLR0911, PLR0912
        state = self.github.state
        if self.headers.get("Authorization", "").split(" ")[-1] != state.token:
            raise _Refusal(401, "Bad credentials")
        if path == "/user":
            if not state.user_is_told:
                raise _Refusal(403, "Resource not accessible by integration")
            return 200, self._user(*state.writer), {}
        top = f"/repos/{state.repository}"
        if path != top and not path.startswith(f"{top}/"):
            raise _Refusal(404, "Not Found")
        below = path.removeprefix(top)
        if self.command == "GET" and below in state.documents:
            return 200, state.documents[below], {}
        if below == "":
            return 200, {"full_name": state.repository, "url": self._url(""), "default_branch": "main"}, {}
        if match := re.fullmatch(r"/pulls/(\d+)", below):
            return 200, self._pull(match[1]), {}
        if below == "/pulls":
            return self._pulls(content)
        if match := re.fullmatch(r"/pulls/(\d+)/files", below):
            return 200, self.github.state.pulls[match[1]].get("files", []), {}
        if match := re.fullmatch(r"/pulls/(\d+)/merge", below):
            return self._merge(match[1], content)
        if match := re.fullmatch(r"/actions/workflows/([\w.-]+)(/dispatches)?", below):
            if match[2]:
                state.dispatched.append({"workflow": match[1], **content})
                return 204, None, {}
            return 200, {"id": 1, "name": match[1], "path": match[1], "url": self._url(below)}, {}
        if match := re.fullmatch(r"/contents/(.+)", below):
            ref = parse_qs(urlsplit(self.path).query)["ref"][0]
            content = base64.b64encode(state.contents[f"{ref}:{match[1]}"].encode()).decode()
            return 200, {"type": "file", "path": match[1], "encoding": "base64", "content": content, "sha": ref}, {}
        if match := re.fullmatch(r"/commits/([0-9a-f]{40})(/pulls)?", below):
            return 200, self._merged(match[1]) if match[2] else {"sha": match[1], "url": self._url(below)}, {}
        if below == "/issues":
            return self._issues(content)
        if match := re.fullmatch(r"/issues/(\d+)", below):
            if self.command == "PATCH":
                (issue,) = (each for each in state.issues if each["number"] == int(match[1]))
                issue |= content
                return 200, self._issue(issue), {}
            return 200, self._pull(match[1]) | {"url": self._url(below)}, {}
        if match := re.fullmatch(r"/issues/(\d+)/comments", below):
            return self._comments(match[1], content)
        if match := re.fullmatch(r"/issues/comments/(\d+)", below):
            return self._comment(int(match[1]), content)
        raise _Refusal(404, "Not Found")

    def _pull(self, number: str) -> dict[str, Any]:
        pull = self.github.state.pulls.get(number)
        if pull is None:
            raise _Refusal(404, "Not Found")
        base = self.github.state.repository
        return {
            "number": int(number),
            "title": pull.get("title", ""),
            "user": self._user(pull.get("login", "somebody"), pull.get("kind", "User")),
            "state": pull.get("state", "open"),
            "url": self._url(f"/pulls/{number}"),
            "issue_url": self._url(f"/issues/{number}"),
            "html_url": f"{self.github.url}/{base}/pull/{number}",
            "head": {"sha": pull["head"], "ref": "change", "repo": pull["from"] and {"full_name": pull["from"]}},
            "base": {"sha": "0" * 40, "ref": "main", "repo": {"full_name": base}},
            "labels": [{"name": name} for name in pull.get("labels", [])],
            "updated_at": "2000-01-01T00:00:00Z",
            "merged_at": "2000-01-01T00:00:00Z" if pull.get("merged") else None,
        }

    def _pulls(self, content: Any) -> tuple[int, Any, dict[str, str]]:
        pulls = self.github.state.pulls
        if self.command == "POST":
            if any(each.get("branch") == content["head"] and each.get("state") != "closed" for each in pulls.values()):
                raise _Refusal(422, "Validation Failed: A pull request already exists")
            number = str(1 + max(map(int, pulls), default=0))
            login, kind = self.github.state.writer
            told = {"branch": content["head"], "from": self.github.state.repository, "login": login, "kind": kind}
            pulls[number] = {"head": "0" * 40, **told, "title": content["title"], "body": content["body"]}
            return 201, self._pull(number), {}
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = query["head"].partition(":")[2]
        found = [number for number, each in pulls.items() if each.get("branch") == wanted]
        shown = [self._pull(number) for number in found]
        return 200, [each for each in shown if query["state"] in ("all", each["state"])], {}

    def _merge(self, number: str, content: Any) -> tuple[int, Any, dict[str, str]]:
        pull = self.github.state.pulls[number]
        if content["sha"] != pull["head"]:
            raise _Refusal(409, "Head branch was modified")
        pull |= {"state": "closed", "merging": content["commit_title"]}
        return 200, {"merged": True, "sha": pull["head"], "message": "Pull Request successfully merged"}, {}

    def _merged(self, commit: str) -> list[dict[str, Any]]:
        pulls = self.github.state.pulls
        return [self._pull(number) for number, each in pulls.items() if each.get("merged") == commit]

    def _issues(self, content: Any) -> tuple[int, Any, dict[str, str]]:
        issues = self.github.state.issues
        if self.command == "POST":
            issues.append({"number": 100 + len(issues), "state": "open", **content})
            self.github.state.pulls[str(issues[-1]["number"])] = {"head": "0" * 40, "from": None}  # has comments too
            return 201, self._issue(issues[-1]), {}
        wanted = parse_qs(urlsplit(self.path).query)["labels"][0]
        return 200, [self._issue(each) for each in issues if each["state"] == "open" and wanted in each["labels"]], {}

    def _issue(self, issue: dict[str, Any]) -> dict[str, Any]:
        return {
            "number": issue["number"],
            "title": issue["title"],
            "state": issue["state"],
            "created_at": "2000-01-02T00:00:00Z",
            "url": self._url(f"/issues/{issue['number']}"),
            "html_url": f"{self.github.url}/{self.github.state.repository}/issues/{issue['number']}",
        }

    def _comments(self, number: str, content: Any) -> tuple[int, Any, dict[str, str]]:
        state = self.github.state
        if number not in state.pulls:
            raise _Refusal(404, "Not Found")
        if self.command == "POST":
            self._check(content)
            return 201, self._shown(state.comment(content["body"], *state.writer, pull=int(number))), {}
        query = parse_qs(urlsplit(self.path).query)
        size, page = (int(query.get(name, [default])[0]) for name, default in (("per_page", "30"), ("page", "1")))
        there = [each for each in state.comments if each["pull"] == int(number)]
        pages = -(-len(there) // size)
        links = {"next": page + 1, "last": pages} if page < pages else {}
        address = self._url(f"/issues/{number}/comments")
        link = ", ".join(f'<{address}?per_page={size}&page={each}>; rel="{name}"' for name, each in links.items())
        shown = [self._shown(each) for each in there[size * (page - 1) : size * page]]
        return 200, shown, {"Link": link} if link else {}

    def _comment(self, identity: int, content: Any) -> tuple[int, Any, dict[str, str]]:
        state = self.github.state
        found = next((each for each in state.comments if each["id"] == identity), None)
        if found is None:
            raise _Refusal(404, "Not Found")
        if self.command == "DELETE":
            state.comments.remove(found)
            return 204, None, {}
        if self.command == "PATCH":
            self._check(content)
            found["body"] = content["body"]
        return 200, self._shown(found), {}

    def _check(self, content: Any) -> None:
        if len(content["body"]) > MOST_CHARACTERS:
            raise _Refusal(422, "Validation Failed: body is too long (maximum is 65536 characters)")

    def _shown(self, comment: dict[str, Any]) -> dict[str, Any]:
        pull, identity = comment["pull"], comment["id"]
        return {
            "id": identity,
            "body": comment["body"],
            "user": self._user(comment["login"], comment["type"]),
            "url": self._url(f"/issues/comments/{identity}"),
            "html_url": f"{self.github.url}/{self.github.state.repository}/pull/{pull}#issuecomment-{identity}",
        }

    def _user(self, login: str, kind: str) -> dict[str, str]:
        return {"login": login, "type": kind, "url": f"{self._top()}/users/{login}"}

    def _url(self, below: str) -> str:
        return f"{self._top()}/repos/{self.github.state.repository}{below}"

    def _top(self) -> str:
        """The address of the API as this request has it."""
        return self.github.url + (ENTERPRISE if self.path.startswith(f"{ENTERPRISE}/") else "")

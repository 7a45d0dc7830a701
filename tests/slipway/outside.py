"""What the documentation's commands talk to: an S3, a GitHub, and a cluster, as far as this machine can have them.

The S3 is a real server (SeaweedFS), which checks who asks. GitHub's command line is the real one; what it talks to is a
stand-in, which refuses what GitHub would refuse, and what would do nothing here: a secret or variable that no workflow
reads, an input that a workflow does not take, an event that starts none. `kubectl` is a stand-in as a whole: it applies
what Kustomize renders, and finds what was applied and nothing else.
"""

import base64
import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import s3fs
import trustme
import yaml
from botocore.exceptions import EndpointConnectionError

from tests.slipway.conftest import ROOT

REPOSITORY = "team/houses"
BUCKET = "your-bucket"
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
SAID = {name: yaml.safe_load(text) for name, text in WORKFLOWS.items()}


def ports(number: int) -> list[int]:
    """That are free now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return found


@dataclass(frozen=True)
class Store:
    """An S3 with one bucket, and somebody who may write to it."""

    url: str
    key: str = "key-of-the-team"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def variables(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=self.key, secret=self.secret, endpoint_url=self.url, client_kwargs={"region_name": "eu-central-1"}
        )


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """The server, with all that it writes in a folder."""
    free = ports(8)
    store = Store(f"http://127.0.0.1:{free[0]}")
    credentials = [{"accessKey": store.key, "secretKey": store.secret}]
    config = {
        "identities": [{"name": "team", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}]
    }
    (folder / "s3.json").write_text(json.dumps(config))
    (folder / "files").mkdir()
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc")
    names += ("volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [str(Path(sys.executable).with_name("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={folder / 'files'}", "-volume.max=20", "-master.volumeSizeLimitMB=64", "-filer", "-s3"]
    command += [f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}={port}" for name, port in zip(names, free, strict=True)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _until_it_has_the_bucket(store, server, folder / "log")
        yield store
    finally:
        server.kill()  # asked to stop, it goes on
        server.wait()


def _until_it_has_the_bucket(store: Store, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            store.files().mkdir(BUCKET)
        except (OSError, EndpointConnectionError) as error:
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:]) from error
            time.sleep(0.3)
        else:
            return


@dataclass
class Forge:
    """Where `gh` is sent to, over HTTPS. `taken` has what it asked to change, by method and path."""

    folder: Path
    url: str = ""
    taken: list[tuple[str, str]] = field(default_factory=list)

    def variables(self) -> dict[str, str]:
        host = self.url.removeprefix("https://")
        return {
            "GH_HOST": host,
            "GH_REPO": f"{host}/{REPOSITORY}",
            "GH_ENTERPRISE_TOKEN": "token-of-an-owner",
            "GH_CONFIG_DIR": str(self.folder / "gh"),
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_TELEMETRY": "false",
            "SSL_CERT_FILE": str(self.folder / "ca.pem"),
        }


@contextmanager
def forge(folder: Path) -> Iterator[Forge]:
    made, authority = Forge(folder), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"forge": made}))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    forge: Forge
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = json.loads(self.rfile.read(length) or "null")
        path = self.path.split("?")[0].removeprefix("/api/v3")
        status, document = answer(self.command, path.removeprefix(f"/repos/{REPOSITORY}"), content)
        if status < 300 and self.command != "GET" and path != "/api/graphql":
            self.forge.taken.append((self.command, path))
        body = b"" if status == 204 else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 (the names that http.server calls)


def answer(method: str, path: str, content: Any) -> tuple[int, Any]:  # noqa: PLR0911
    """What GitHub says of a request: a status and a document."""
    if path == "/meta":
        return 200, {"installed_version": "3.19.0"}
    if path == "/api/graphql":  # which branch is the default one
        known = {"name": "houses", "owner": {"login": "team"}, "defaultBranchRef": {"name": "main"}}
        return 200, {"data": {"repository": {"id": "1", "viewerPermission": "ADMIN", **known}}}
    if path == "/actions/secrets/public-key":
        return 200, {"key_id": "1", "key": base64.b64encode(bytes(range(32))).decode()}
    if match := re.fullmatch(r"/actions/workflows/([\w.-]+\.yml)", path):
        return _workflow(match[1])
    if match := re.fullmatch(r"/actions/workflows/(\d+)/dispatches", path):
        return _start(sorted(SAID)[int(match[1])], content.get("inputs") or {})
    takes = {
        ("POST", "/rulesets"): _is_a_ruleset,
        ("POST", "/labels"): lambda body: body["name"] == "ship-anyway" and len(body["description"]) <= 100,
        ("POST", "/dispatches"): lambda body: _starts(body["event_type"]),
        ("POST", "/actions/variables"): lambda body: _is_read("vars", body["name"]) and body["value"],
    }
    if match := re.fullmatch(r"/actions/secrets/(\w+)", path):
        return (201, {}) if method == "PUT" and _is_read("secrets", match[1]) else (404, {"message": "Nobody reads it"})
    wanted = takes.get((method, path))
    if wanted is None:
        return 404, {"message": "Not Found"}
    return (201, {}) if wanted(content) else (422, {"message": "Validation Failed"})


def _workflow(name: str) -> tuple[int, Any]:
    if name not in SAID:
        return 404, {"message": "Not Found"}
    number = sorted(SAID).index(name)
    return 200, {"id": number, "name": SAID[name]["name"], "path": f".github/workflows/{name}", "state": "active"}


def _start(name: str, given: dict[str, Any]) -> tuple[int, Any]:
    events = SAID[name][True]  # YAML takes `on` for true
    if "workflow_dispatch" not in events:
        return 422, {"message": "Workflow does not have 'workflow_dispatch' trigger"}
    inputs = (events["workflow_dispatch"] or {}).get("inputs", {})
    missing = [key for key, told in inputs.items() if told.get("required") and key not in given]
    wrong = [key for key, value in given.items() if value not in inputs.get(key, {}).get("options", [value])]
    if missing or wrong or not given.keys() <= inputs.keys():
        return 422, {"message": "Unexpected inputs provided"}
    return 204, None


def _is_read(kind: str, name: str) -> bool:
    return any(re.search(rf"\b{kind}\.{name}\b", text) for text in WORKFLOWS.values())


def _is_a_ruleset(body: Any) -> bool:
    checks = [each for rule in body["rules"] for each in rule.get("parameters", {}).get("required_status_checks", ())]
    jobs = SAID["pull-request.yml"]["jobs"]
    return {each["context"] for each in checks} == {"pass"} <= jobs.keys() and body["target"] == "branch"


def _starts(event: str) -> bool:
    return any(event in (said[True].get("repository_dispatch") or {}).get("types", ()) for said in SAID.values())


KUBECTL = '''#!{python}
"""A stand-in for kubectl: it applies what Kustomize renders, and finds what was applied."""

import json, re, subprocess, sys
from pathlib import Path

import yaml

applied, (verb, *rest) = Path({applied!r}), sys.argv[1:]
there = json.loads(applied.read_text()) if applied.is_file() else []


def rendered(folder):
    return subprocess.run([{kustomize!r}, "build", folder], check=True, capture_output=True, text=True).stdout


match verb, rest:
    case "kustomize", [folder]:
        sys.stdout.write(rendered(folder))
    case "apply", ["--kustomize", folder]:
        for each in yaml.safe_load_all(rendered(folder)):
            kind = re.sub("y$", "ie", each["kind"].lower()) + "s." + each["apiVersion"].rpartition("/")[0]
            there.append([kind, each["metadata"]["namespace"], each["metadata"]["name"]])
        applied.write_text(json.dumps(there))
    case "get", [kind, "--namespace", namespace, *names] if names:
        missing = [name for name in names if [kind, namespace, name] not in there]
        sys.exit(f"not found: {{missing}}" if missing else 0)
    case _:
        sys.exit(f"kubectl here does not know {{sys.argv[1:]}}")
'''


def kubectl(folder: Path, kustomize: str) -> None:
    """Put the stand-in into a folder, which PATH then names."""
    program = folder / "kubectl"
    applied = str(folder / "applied.json")
    program.write_text(KUBECTL.format(python=sys.executable, applied=applied, kustomize=kustomize))
    program.chmod(0o755)

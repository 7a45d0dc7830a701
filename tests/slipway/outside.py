"""The servers that the documentation's commands talk to: S3, GitHub, and a cluster.

S3 is a real server (SeaweedFS), which checks credentials. `gh` is real, and talks to the fake of GitHub in demo/fakes.
`kubectl` is a fake: it applies what Kustomize renders, and finds only what was applied.
"""

import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3fs
from botocore.exceptions import EndpointConnectionError

from demo.fakes.github_actions_api import triggers
from demo.fakes.github_server import GitHub, State
from demo.fakes.github_state import Token
from slipway.integrations.ports import free_port
from slipway.review.event import LABEL
from tests.slipway.conftest import ROOT

BUCKET = "your-bucket"
OWNER = "token-of-an-owner"
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
ACTIONS = [path.read_text() for path in (ROOT / ".github/actions").glob("*/action.yml")]


def ports(number: int) -> list[int]:
    """Return ports that are free now."""
    found: set[int] = set()
    while len(found) < number:
        found.add(free_port())
    return list(found)


@dataclass(frozen=True)
class Store:
    """An S3 server with one bucket, and the key of a user who may write to it."""

    url: str
    key: str = "key-of-the-team"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    ports: tuple[int, ...] = ()

    def variables(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=self.key, secret=self.secret, endpoint_url=self.url, client_kwargs={"region_name": "eu-central-1"}
        )


@contextmanager
def s3(folder: Path, again: Store | None = None) -> Iterator[Store]:
    """Run the server. It writes to `folder` only. `again` is the store of an earlier run on the same folder."""
    # fsspec keeps clients, with the credentials that an earlier test had.
    s3fs.S3FileSystem.clear_instance_cache()
    free = again.ports if again else tuple(ports(8))
    store = again or Store(f"http://127.0.0.1:{free[0]}", ports=free)
    credentials = [{"accessKey": store.key, "secretKey": store.secret}]
    config = {
        "identities": [{"name": "team", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}]
    }
    (folder / "s3.json").write_text(json.dumps(config))
    (folder / "files").mkdir(exist_ok=True)
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc")
    names += ("volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [str(Path(sys.executable).with_name("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={folder / 'files'}", "-volume.max=20", "-master.volumeSizeLimitMB=64", "-filer", "-s3"]
    # The default is 1% of the disk, and then each PUT waits: 2.5 GB of a disk of 250 GB.
    command += ["-volume.minFreeSpace=64MiB"]
    command += [f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}={port}" for name, port in zip(names, free, strict=True)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _create_bucket(store, server, folder / "log")
        yield store
    finally:
        server.kill()  # it ignores SIGTERM
        server.wait()


def _create_bucket(store: Store, server: subprocess.Popen[bytes], log: Path) -> None:
    """Create the bucket as soon as the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if not store.files().exists(BUCKET):
                store.files().mkdir(BUCKET)
        except (OSError, EndpointConnectionError) as error:
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:]) from error
            time.sleep(0.3)
        else:
            return


class OwnersGitHub(GitHub):
    """GitHub as `gh` sees it with the token of an owner."""

    def __init__(self, folder: Path) -> None:
        super().__init__(State(workflows=WORKFLOWS, tokens={OWNER: Token("ada", "User")}), folder)
        self.folder = folder

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Method and path of each request that changed something."""
        return self.state.changes

    def variables(self) -> dict[str, str]:
        """Return the environment variables that lead `gh` here."""
        host = self.url.removeprefix("https://")
        return {
            "GH_HOST": host,
            "GH_REPO": f"{host}/{self.state.repository}",
            "GH_ENTERPRISE_TOKEN": OWNER,
            "GH_CONFIG_DIR": str(self.folder / "gh"),
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_TELEMETRY": "false",
            "SSL_CERT_FILE": str(self.authority),
        }


@contextmanager
def github(folder: Path) -> Iterator[OwnersGitHub]:
    """Serve GitHub. Fails if a setting was changed that no workflow reads."""
    with OwnersGitHub(folder).serving() as server:
        assert isinstance(server, OwnersGitHub)
        yield server
        assert without_effect(server.state) == []


def without_effect(state: State) -> list[str]:
    """List the settings and events that GitHub accepted, and that no workflow reads."""
    changes = [each for each in state.requests if each["method"] != "GET"]
    asked = [(each["path"].removeprefix(f"/repos/{state.repository}"), each["body"] or {}) for each in changes]
    return [path for path, body in asked if not _has_effect(path, body)]


def _has_effect(path: str, body: dict[str, Any]) -> bool:
    match path.split("/")[1:]:
        case ["actions", "secrets", name]:
            return _is_read("secrets", name)
        case ["actions", "variables"]:
            return _is_read("vars", body["name"])
        case ["dispatches"]:
            return any(body["event_type"] in _types(text) for text in WORKFLOWS.values())
        case ["labels"]:
            return bool(body["name"] == LABEL)
        case ["rulesets"]:
            return _contexts(body) == {"pass"}
    return True


def _is_read(kind: str, name: str) -> bool:
    read = rf"\b({kind}|fromJSON\(inputs\.variables\))\.{name}\b"
    return any(re.search(read, text) for text in (*WORKFLOWS.values(), *ACTIONS))


def _types(workflow: str) -> Iterable[str]:
    """Return the types of repository_dispatch that start a workflow."""
    types: list[str] = triggers(workflow).get("repository_dispatch", {}).get("types", [])
    return types


def _contexts(ruleset: dict[str, Any]) -> set[str]:
    """Return the checks that a ruleset requires."""
    checks = [each.get("parameters", {}).get("required_status_checks", ()) for each in ruleset["rules"]]
    return {each["context"] for several in checks for each in several}


KUBECTL = '''#!{python}
"""A fake of kubectl: it applies what Kustomize renders, and finds what was applied."""

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
            there.append([kind, each["metadata"].get("namespace"), each["metadata"]["name"]])
        applied.write_text(json.dumps(there))
    case "get", [kind, "--namespace", namespace, *names] if names:
        missing = [name for name in names if [kind, namespace, name] not in there]
        sys.exit(f"not found: {{missing}}" if missing else 0)
    case _:
        sys.exit(f"the fake of kubectl does not take {{sys.argv[1:]}}")
'''


def kubectl(folder: Path, kustomize: str) -> None:
    """Write the fake of kubectl to a folder. PATH has to name it."""
    program = folder / "kubectl"
    applied = str(folder / "applied.json")
    program.write_text(KUBECTL.format(python=sys.executable, applied=applied, kustomize=kustomize))
    program.chmod(0o755)

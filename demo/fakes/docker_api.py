"""A container engine and its registry without containers: an image is a folder, a container a process.

It answers the part of Docker's API by which Slipway builds, pushes and tries images, so that a machine without Docker
can play a release. What a Dockerfile copies is all that it makes, and nothing is isolated: it says so (`/info`).
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from slipway.provenance import LABELS

Answer = tuple[int, Any]
API = "1.44"


@dataclass(frozen=True)
class Image:
    """`folder` has what the build was given: src/, bundle/, provenance.json."""

    digest: str
    folder: Path
    labels: dict[str, str]

    @property
    def bundle(self) -> str:
        """The hash of the bundle in it."""
        return self.labels[LABELS["bundle"]]

    def start(self, variables: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """The server of the image as a process, by the code that is in it, and with nothing else in its environment."""
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(self.folder / "src"),
            "SLIPWAY_PROVENANCE": str(self.folder / "provenance.json"),
            **variables,
        }
        command = [sys.executable, "-P", "-m", "slipway.serving", str(self.folder / "bundle")]
        with log.open("ab") as said:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=said, stderr=said, start_new_session=True
            )


class Engine:
    """The images in `folder`, by name and by digest, and the processes of those that run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.images: dict[str, Image] = {}
        self.containers: dict[str, _Container] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"engine": self}))
        self._server.daemon_threads = True
        self.host = f"tcp://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Generator["Engine", None, None]:
        """Answer at `host`, which DOCKER_HOST then names, until the block ends; no container outlives it."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            for container in self.containers.values():
                container.end()

    def build(self, context: bytes, name: str, labels: dict[str, str]) -> Image:
        """Unpack a context, and know it by a name and by the hash of what it is made of."""
        digest = hashlib.sha256(context + json.dumps(labels, sort_keys=True).encode()).hexdigest()
        folder = self.folder / digest[:12]
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(context)) as packed:
                _unpack(packed, folder)
        self.images[name] = self.images[f"sha256:{digest}"] = image = Image(f"sha256:{digest}", folder, labels)
        return image

    def find(self, name: str) -> Image:
        """By its name, by what follows the @ in it, or by the hash alone; raises KeyError."""
        name = name.partition("@")[2] or name
        return self.images[name if name in self.images else f"sha256:{name}"]


class _Container:
    def __init__(self, identity: str, image: Image, variables: dict[str, str]) -> None:
        self.image, self.variables = image, variables
        self.log = image.folder / f"{identity}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> str:
        if self.process is None:
            return "created"
        return "running" if self.process.poll() is None else "exited"

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def _unpack(packed: tarfile.TarFile, folder: Path) -> None:
    """Only files, and none outside of the folder."""
    for entry in packed:
        file = (folder / entry.name).resolve()
        content = packed.extractfile(entry) if entry.isfile() else None
        if content and file.is_relative_to(folder.resolve()):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as to:
                shutil.copyfileobj(content, to)


class _Answers(BaseHTTPRequestHandler):
    engine: Engine
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+", "", unquote(url.path))
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.sent = self._body()
        status, document = 404, {"message": f"No such route: {self.command} {path}"}
        for pattern, obey in ROUTES.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                try:
                    status, document = obey(self, *match.groups())
                except KeyError as error:
                    status, document = 404, {"message": f"No such image or container: {error}"}
        body = document if isinstance(document, bytes) else json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/x-tar" if isinstance(document, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def version(self) -> Answer:
        return 200, {"ApiVersion": API, "MinAPIVersion": "1.24", "Version": "demo"}

    def info(self) -> Answer:
        return 200, {"Name": "demo", "Isolation": "process"}

    def build(self) -> Answer:
        image = self.engine.build(self.sent, self.query["t"], json.loads(self.query["labels"]))
        return 200, {"stream": f"Successfully built {image.digest.removeprefix('sha256:')}\n"}

    def image(self, name: str) -> Answer:
        image = self.engine.find(name)
        user = re.findall(r"^USER (\S+)", (image.folder / "Dockerfile").read_text(), re.MULTILINE)
        size = sum(file.stat().st_size for file in image.folder.rglob("*") if file.is_file())
        config = {"Labels": image.labels, "User": user[-1], "Entrypoint": ["python3", "/app/bundle"]}
        return 200, {"Id": image.digest, "Size": size, "Config": config}

    def push(self, name: str) -> Answer:
        image = self.engine.find(f"{name}:{self.query['tag']}")
        return 200, {"status": f"{self.query['tag']}: digest: {image.digest} size: 1"}

    def pull(self) -> Answer:
        self.engine.find(self.query["tag"])
        return 200, {"status": "It is here."}

    def create(self) -> Answer:
        told = json.loads(self.sent)
        identity = f"{len(self.engine.containers):064x}"
        variables = dict(each.split("=", 1) for each in told["Env"])
        self.engine.containers[identity] = _Container(identity, self.engine.find(told["Image"]), variables)
        return 201, {"Id": identity}

    def start(self, identity: str) -> Answer:
        container = self.engine.containers[identity]
        container.process = container.image.start(container.variables, container.log)
        return 204, b""

    def state(self, identity: str) -> Answer:
        container = self.engine.containers[identity]
        return 200, {"Id": identity, "Image": container.image.digest, "State": {"Status": container.state}}

    def kill(self, identity: str) -> Answer:
        process = self.engine.containers[identity].process
        if process:
            process.terminate()
        return 204, b""

    def wait(self, identity: str) -> Answer:
        process = self.engine.containers[identity].process
        return 200, {"StatusCode": process.wait() if process else 0}

    def logs(self, identity: str) -> Answer:
        return 200, self.engine.containers[identity].log.read_bytes()

    def archive(self, identity: str) -> Answer:
        packed = io.BytesIO()
        file = self.engine.containers[identity].image.folder / self.query["path"].removeprefix("/app/")
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(file, file.name)
        return 200, packed.getvalue()

    def remove(self, identity: str) -> Answer:
        self.engine.containers.pop(identity).end()
        return 204, b""


ROUTES: dict[str, Callable[..., Answer]] = {
    r"GET /version": _Answers.version,
    r"(?:GET|HEAD) /_ping": lambda _: (200, "OK"),
    r"GET /info": _Answers.info,
    r"POST /build": _Answers.build,
    r"POST /images/create": _Answers.pull,
    r"GET /images/(.+)/json": _Answers.image,
    r"POST /images/(.+)/push": _Answers.push,
    r"POST /containers/create": _Answers.create,
    r"POST /containers/(\w+)/start": _Answers.start,
    r"GET /containers/(\w+)/json": _Answers.state,
    r"POST /containers/(\w+)/kill": _Answers.kill,
    r"POST /containers/(\w+)/wait": _Answers.wait,
    r"GET /containers/(\w+)/logs": _Answers.logs,
    r"GET /containers/(\w+)/archive": _Answers.archive,
    r"DELETE /containers/(\w+)": _Answers.remove,
}

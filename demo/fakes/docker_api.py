"""Provide a fake container engine and registry. An image is a folder, and a container is a process.

The fake answers the Docker API calls with which Slipway builds, pushes and tests images, so a release also runs on a
machine without Docker. A build only unpacks the build context. Containers are not isolated, as `/info` reports.
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
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from demo.fakes.http_server import listen, served
from slipway.provenance import LABELS

API = "1.44"


@dataclass(frozen=True)
class Image:
    """An image. `folder` contains its build context: src/, bundle/ and provenance.json."""

    digest: str
    folder: Path
    labels: dict[str, str]

    @property
    def bundle(self) -> str:
        """The hash of the bundle in the image."""
        return self.labels[LABELS["bundle"]]

    def start(self, variables: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """Start the server of the image as a process. It runs the image's code, and gets only `variables`."""
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(self.folder / "src"),
            "SLIPWAY_PROVENANCE": str(self.folder / "provenance.json"),
            **variables,
        }
        command = [sys.executable, "-P", "-m", "slipway.serving", str(self.folder / "bundle")]
        with log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )


class Container:
    """A container. `process` is set when the container starts."""

    def __init__(self, identity: str, image: Image, variables: dict[str, str]) -> None:
        self.image, self.variables = image, variables
        self.log = image.folder / f"{identity}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> str:
        """The status that Docker would show."""
        if self.process is None:
            return "created"
        return "running" if self.process.poll() is None else "exited"

    def end(self) -> None:
        """Kill the process if the container was started."""
        if self.process:
            self.process.kill()
            self.process.wait()


class Engine:
    """The state of the fake: the images in `folder`, by name and by digest, and the containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.images: dict[str, Image] = {}
        self.containers: dict[str, Container] = {}
        self._listener = listen()
        self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def serving(self) -> Generator["Engine", None, None]:
        """Answer requests until the block ends, and then end all containers. Clients must set DOCKER_HOST to `host`."""
        routes = [Route(path, _endpoint(self, answer), methods=[method]) for method, path, answer in ROUTES]
        application = Starlette(routes=[Mount("/v{version}", routes=routes), *routes])
        try:
            with served(application, self._listener):
                yield self
        finally:
            for container in self.containers.values():
                container.end()

    def build(self, context: bytes, name: str, labels: dict[str, str]) -> Image:
        """Make an image from a build context. Its digest is the hash of the context and the labels."""
        digest = hashlib.sha256(context + json.dumps(labels, sort_keys=True).encode()).hexdigest()
        folder = self.folder / digest[:12]
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(context)) as packed:
                _unpack(packed, folder)
        self.images[name] = self.images[f"sha256:{digest}"] = image = Image(f"sha256:{digest}", folder, labels)
        return image

    def find(self, name: str) -> Image:
        """Find an image by its name, by NAME@DIGEST, or by its hash alone. Raises KeyError if it is not found."""
        name = name.partition("@")[2] or name
        return self.images[name if name in self.images else f"sha256:{name}"]


def _unpack(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpack the regular files of an archive, except those with a path outside of the folder."""
    for entry in packed:
        file = (folder / entry.name).resolve()
        content = packed.extractfile(entry) if entry.isfile() else None
        if content and file.is_relative_to(folder.resolve()):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as to:
                shutil.copyfileobj(content, to)


@dataclass(frozen=True)
class Call:
    """A request. `name` is the image or container in its path, and `sent` is its body."""

    engine: Engine
    name: str
    query: dict[str, str]
    sent: bytes

    @property
    def container(self) -> Container:
        """The container that the path names. Raises KeyError if it does not exist."""
        return self.engine.containers[self.name]


Answer = Callable[[Call], Response]


def _endpoint(engine: Engine, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        call = Call(engine, request.path_params.get("name", ""), dict(request.query_params), await request.body())
        try:
            return answer(call)
        except KeyError as error:
            return JSONResponse({"message": f"No such image or container: {error}"}, 404)

    return endpoint


def _stream(*documents: dict[str, Any]) -> Response:
    """Answer with lines of JSON in chunks, as Docker streams its progress."""
    return StreamingResponse((json.dumps(each) + "\n" for each in documents), media_type="application/json")


def version(_: Call) -> Response:
    return JSONResponse({"ApiVersion": API, "MinAPIVersion": "1.24", "Version": "demo"})


def ping(_: Call) -> Response:
    return PlainTextResponse("OK")


def info(_: Call) -> Response:
    return JSONResponse({"Name": "demo", "Isolation": "process"})


def build_image(call: Call) -> Response:
    image = call.engine.build(call.sent, call.query["t"], json.loads(call.query["labels"]))
    return _stream({"stream": f"Successfully built {image.digest.removeprefix('sha256:')}\n"})


def inspect_image(call: Call) -> Response:
    image = call.engine.find(call.name)
    user = re.findall(r"^USER (\S+)", (image.folder / "Dockerfile").read_text(), re.MULTILINE)
    size = sum(file.stat().st_size for file in image.folder.rglob("*") if file.is_file())
    config = {"Labels": image.labels, "User": user[-1], "Entrypoint": ["python3", "/app/bundle"]}
    return JSONResponse({"Id": image.digest, "Size": size, "Config": config})


def push_image(call: Call) -> Response:
    tag = call.query["tag"]
    digest = call.engine.find(f"{call.name}:{tag}").digest
    return _stream({"status": f"{tag}: digest: {digest} size: 1"}, {"aux": {"Digest": digest}})


def pull_image(call: Call) -> Response:
    call.engine.find(call.query["tag"])
    return _stream({"status": "Image is up to date"})


def create_container(call: Call) -> Response:
    told = json.loads(call.sent)
    identity = f"{len(call.engine.containers):064x}"
    variables = dict(each.split("=", 1) for each in told["Env"])
    call.engine.containers[identity] = Container(identity, call.engine.find(told["Image"]), variables)
    return JSONResponse({"Id": identity}, 201)


def start_container(call: Call) -> Response:
    container = call.container
    container.process = container.image.start(container.variables, container.log)
    return Response(status_code=204)


def inspect_container(call: Call) -> Response:
    container = call.container
    return JSONResponse({"Id": call.name, "Image": container.image.digest, "State": {"Status": container.state}})


def kill_container(call: Call) -> Response:
    if process := call.container.process:
        process.terminate()
    return Response(status_code=204)


def wait_for_container(call: Call) -> Response:
    process = call.container.process
    return JSONResponse({"StatusCode": process.wait() if process else 0})


def read_logs(call: Call) -> Response:
    return Response(call.container.log.read_bytes(), media_type="application/octet-stream")


def read_archive(call: Call) -> Response:
    packed = io.BytesIO()
    file = call.container.image.folder / call.query["path"].removeprefix("/app/")
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(file, file.name)
    return Response(packed.getvalue(), media_type="application/x-tar")


def remove_container(call: Call) -> Response:
    call.engine.containers.pop(call.name).end()
    return Response(status_code=204)


ROUTES: list[tuple[str, str, Answer]] = [
    ("GET", "/version", version),
    ("GET", "/_ping", ping),
    ("GET", "/info", info),
    ("POST", "/build", build_image),
    ("POST", "/images/create", pull_image),
    ("GET", "/images/{name:path}/json", inspect_image),
    ("POST", "/images/{name:path}/push", push_image),
    ("POST", "/containers/create", create_container),
    ("POST", "/containers/{name}/start", start_container),
    ("GET", "/containers/{name}/json", inspect_container),
    ("POST", "/containers/{name}/kill", kill_container),
    ("POST", "/containers/{name}/wait", wait_for_container),
    ("GET", "/containers/{name}/logs", read_logs),
    ("GET", "/containers/{name}/archive", read_archive),
    ("DELETE", "/containers/{name}", remove_container),
]

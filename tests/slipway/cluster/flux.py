"""Flux in the cluster. It follows a repository that this process serves over HTTP."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from slipway.fork.identity import TEMPLATE
from slipway.release.component import Image
from tests.slipway.cluster.kubectl import Production, reference, wait, write_release
from tests.slipway.conftest import edit

HOST = "SLIPWAY_FLUX_HOST"
"""Variable with the address of this machine to which Flux in the cluster can connect."""
NAMESPACE = "flux-system"
GIT_REPOSITORY = "gitrepositories.source.toolkit.fluxcd.io"
KUSTOMIZATION = "kustomizations.kustomize.toolkit.fluxcd.io"
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


@dataclass(frozen=True)
class Flux:
    """The objects of kustomize/agents/flux, and the repository that they follow."""

    production: Production
    repository: Path

    @property
    def agents(self) -> Path:
        return self.repository / "kustomize/agents/flux"

    def push(self, image: Image) -> None:
        """Commit a release to production, and notify Flux as a webhook does."""
        write_release(self.production.overlay, image)
        commit(self.repository, f"Release {image.tag}")
        self.notify(GIT_REPOSITORY)

    def notify(self, kind: str) -> None:
        """Let Flux reconcile all objects of a kind now. An annotation is what a Receiver of Flux sets."""
        now = f"reconcile.fluxcd.io/requestedAt={time.time()}"
        self.production.cluster.must("annotate", kind, "--all", f"--namespace={NAMESPACE}", "--overwrite", now)

    def wait_for(self, image: Image) -> float:
        """Return the seconds until the Deployment has the image."""
        began = time.monotonic()
        wanted = reference(image)
        wait(lambda: container(self.production)["image"] == wanted, f"Flux does not apply {wanted}")
        return time.monotonic() - began

    def leave(self) -> None:
        """Delete the objects of kustomize/agents/flux, and wait until they are gone."""
        self.production.cluster.must("delete", "--ignore-not-found", f"--kustomize={self.agents}")


def container(production: Production) -> dict[str, Any]:
    (found,) = production.read("deployment", "model")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@contextmanager
def following(production: Production, host: str) -> Iterator[Flux]:
    """Serve a repository with the manifests of a copy of kustomize/, and let Flux follow it until the block ends."""
    flux = Flux(production, production.overlay.parents[2])
    write_release(production.overlay.with_name("staging"), production.images["A"])
    write_release(production.overlay, production.images["A"])
    with serve(flux.repository, host) as url:
        edit(flux.agents / "source.yaml", f"url: {TEMPLATE.repository}\n", f"url: {url}\n")
        git(flux.repository, "init", "--quiet", "--initial-branch=main")
        commit(flux.repository, "First")
        production.cluster.must("apply", f"--kustomize={flux.agents}")
        try:
            wait(lambda: flux_owns(production), "Flux does not apply the overlay of production")
            production.settle()
            yield flux
        finally:
            flux.leave()


def flux_owns(production: Production) -> bool:
    labels = production.read("deployment", "model")["metadata"]["labels"]
    return labels.get("kustomize.toolkit.fluxcd.io/namespace") == NAMESPACE


def commit(repository: Path, message: str) -> None:
    git(repository, "add", "--all")
    git(repository, *AUTHOR, "commit", "--quiet", f"--message={message}")


def git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def serve(repository: Path, host: str) -> Iterator[str]:
    """Serve a repository by `git http-backend`, read only. Yield its URL."""
    fixed = {"GIT_PROJECT_ROOT": str(repository), "GIT_HTTP_EXPORT_ALL": "1", "PATH": os.environ["PATH"]}

    def answer(environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        variables = {name: value for name, value in environ.items() if name.isupper() and isinstance(value, str)}
        variables["GIT_PROTOCOL"] = environ.get("HTTP_GIT_PROTOCOL", "")
        done = subprocess.run(
            ["git", "http-backend"],
            env=variables | fixed,
            input=environ["wsgi.input"].read(length),
            capture_output=True,
            check=True,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        start(headers.pop("Status", "200 OK"), list(headers.items()))
        return [body]

    with make_server(host, 0, answer, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}/.git"
        finally:
            server.shutdown()
            thread.join()

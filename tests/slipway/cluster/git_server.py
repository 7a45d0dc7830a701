"""A repository with an overlay, which agents in the cluster fetch over HTTP."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


def create(repository: Path) -> None:
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, "First")


def commit(repository: Path, message: str) -> None:
    """Commit all changes. Without changes, make an empty commit."""
    git(repository, "add", "--all")
    git(repository, *AUTHOR, "commit", "--quiet", "--allow-empty", f"--message={message}")


def head(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD").strip()


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout


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
        top, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in top.decode().splitlines())
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

"""`slipway image pin` asks a real registry for the digests of the base images, and one that requires a token."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.fakes.http_server import listen, served
from slipway.errors import InputError
from slipway.integrations import image_registry
from slipway.integrations.image_registry import TYPES, ImageName, digest_of, host_of
from slipway.release.base_images import Base, base_images
from tests.slipway.conftest import ROOT, Result

Run = Callable[..., Result]
PINNED = f"sha256:{1:064x}"
DOCKERFILE = """\
FROM --platform=linux/amd64 {0} AS build
FROM {1} as server
COPY --from=build /layer /
FROM build AS batch-build
from {0}@{2}
FROM scratch
FROM $ANY
# FROM here
"""


@pytest.fixture
def base(images: str, request: pytest.FixtureRequest) -> str:
    """The name of a repository of images in the registry."""
    return f"{images}/bases/{request.node.name.replace('_', '-')}"


def offer(base: str, tag: str, note: str) -> str:
    """Push an image index under a tag. Return its digest."""
    index = json.dumps({"schemaVersion": 2, "mediaType": TYPES[0], "manifests": [], "annotations": {"note": note}})
    host, _, repository = base.partition("/")
    headers = {"Content-Type": TYPES[0]}
    url = f"http://{host}/v2/{repository}/manifests/{tag}"
    requests.put(url, index, headers=headers, timeout=10).raise_for_status()
    return f"sha256:{sha256(index.encode()).hexdigest()}"


def test_every_base_image_is_pinned_and_can_be_pinned_again(
    base: str, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, dockerfile = (f"{base}:3.13", f"{base}:debug"), tmp_path / "Dockerfile"
    dockerfile.write_text(DOCKERFILE.format(*names, PINNED))
    for note in ("first", "rebuilt"):
        digests = [offer(base, name.rpartition(":")[2], note + name) for name in names]
        result = slipway("image", "pin")
        assert result.code == 0, result.err
        text = dockerfile.read_text()
        pinned = [f"{name}@{digest}" for name, digest in zip(names, digests, strict=True)]
        assert text == DOCKERFILE.format(*pinned, "").replace("@\n", "\n")
        assert base_images() == [Base(name, digest) for name, digest in zip(names, digests, strict=True)]
        assert all(digest in result.out for digest in digests)


def test_nothing_is_pinned_if_one_registry_does_not_answer(
    base: str, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    offer(base, "1", "")
    text = DOCKERFILE.format(f"{base}:1", "localhost:1/team/base:1", PINNED)
    (tmp_path / "Dockerfile").write_text(text)
    result = slipway("image", "pin")
    assert (result.code, (tmp_path / "Dockerfile").read_text()) == (2, text)
    assert "localhost:1 does not answer (ConnectionError)" in result.err
    assert "run this again" in result.err


def test_an_image_that_is_not_in_the_registry_is_an_error(base: str) -> None:
    with pytest.raises(InputError, match=r"has no digest for .*:none \(status 404\); correct the name, or log in"):
        digest_of(f"{base}:none")


def test_the_base_images_of_this_repository_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have literal names. Dependabot does not update the digest of a name with a variable."""
    monkeypatch.chdir(ROOT)
    assert [host_of(base.name) for base in base_images()] == ["docker.io", "gcr.io"]
    assert "$" not in "".join(line for line in Path("Dockerfile").read_text().splitlines() if line.startswith("FROM"))


def test_a_missing_dockerfile_is_an_error(slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = slipway("image", "pin")
    assert (result.code, "git checkout Dockerfile" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("python", ("docker.io", "library/python", "latest")),
        ("python:3.13", ("docker.io", "library/python", "3.13")),
        ("docker.io/team/base:1", ("docker.io", "team/base", "1")),
        ("localhost:5000/a/b", ("localhost:5000", "a/b", "latest")),
        ("gcr.io/distroless/python3:nonroot", ("gcr.io", "distroless/python3", "nonroot")),
    ],
)
def test_names_are_read_as_the_engine_reads_them(name: str, parts: tuple[str, str, str]) -> None:
    assert ImageName.parse(name) == ImageName(*parts)


@dataclass
class Guarded:
    """A registry that requires a token or a login, and the requests that it got."""

    host: str = ""
    scheme: str = "Bearer"
    got: list[str] = field(default_factory=list)

    async def manifest(self, request: Request) -> Response:
        given = request.headers.get("Authorization", "")
        self.got.append(given)
        if given in ("Bearer once", "Basic dGVhbTpzZWNyZXQ="):
            return Response(headers={"Docker-Content-Digest": PINNED})
        wants = f'{self.scheme} realm="http://{self.host}/token",service="images",scope="repository:team/base:pull"'
        return Response(status_code=401, headers={"WWW-Authenticate": wants})

    async def token(self, request: Request) -> JSONResponse:
        self.got.append(f"{request.url.query} {request.headers.get('Authorization', '')}".strip())
        return JSONResponse({"token": "once"})


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    registry, listener = Guarded(), listen()
    registry.host = f"127.0.0.1:{listener.getsockname()[1]}"
    routes = [Route("/v2/team/base/manifests/1", registry.manifest), Route("/token", registry.token)]
    with served(Starlette(routes=routes), listener):
        yield registry


ASKED = "service=images&scope=repository%3Ateam%2Fbase%3Apull"
LOGIN = "Basic dGVhbTpzZWNyZXQ="


@pytest.mark.parametrize(
    ("scheme", "logged_in", "got"),
    [
        ("Bearer", False, ["", ASKED, "Bearer once"]),
        ("Bearer", True, ["", f"{ASKED} {LOGIN}", "Bearer once"]),
        ("Basic", True, ["", LOGIN]),
    ],
)
def test_a_registry_gets_a_token_or_the_login_of_the_engine(
    guarded: Guarded, tmp_path: Path, scheme: str, logged_in: bool, got: list[str]
) -> None:
    guarded.scheme = scheme
    if logged_in:
        login = {"auths": {guarded.host: {"auth": LOGIN.removeprefix("Basic ")}}}
        (tmp_path / "config.json").write_text(json.dumps(login))
    assert digest_of(f"{guarded.host}/team/base:1") == PINNED
    assert guarded.got == got


def test_a_registry_that_requires_a_login_is_an_error_without_one(guarded: Guarded) -> None:
    guarded.scheme = "Basic"
    with pytest.raises(InputError, match=r"status 401\); correct the name, or log in with `docker login 127"):
        digest_of(f"{guarded.host}/team/base:1")


def test_no_login_is_sent_without_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = requests.Response()
    refusal.status_code = 401
    refusal.headers["WWW-Authenticate"] = 'Bearer realm="http://images.example/token"'
    monkeypatch.setattr(image_registry, "_head", lambda *_: refusal)
    with pytest.raises(InputError, match=r"images\.example does not answer \(ValueError\)"):
        digest_of("images.example/team/base:1")

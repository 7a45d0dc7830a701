"""Query an image registry for the digest of a tag, with the stored logins of the container engine.

API: https://github.com/opencontainers/distribution-spec, and for tokens https://distribution.github.io/distribution/spec/auth/token/.
"""

import re
from dataclasses import dataclass

import docker
import requests
from requests import PreparedRequest, Response
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import parse_dict_header

from slipway.errors import InputError

SECONDS = 30
TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Accepted manifest types.

The index of a multi-platform image comes first, because its digest is valid for every platform.
"""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HUB = "docker.io"
HUB_LOGIN = "https://index.docker.io/v1/"
"""The name under which a container engine stores the login for Docker Hub."""


@dataclass(frozen=True)
class ImageName:
    """The parts of an image name NAME:TAG. Without a tag, the tag is `latest`, as in the container engine."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, name: str) -> "ImageName":
        """Parse an image name that has no digest."""
        host = host_of(name)
        path, colon, tag = name.removeprefix(f"{host}/").partition(":")
        repository = f"library/{path}" if host == HUB and "/" not in path else path
        return cls(host, repository, tag if colon else "latest")


def host_of(name: str) -> str:
    """Return the registry in the name of an image. A name without a registry belongs to Docker Hub."""
    first = name.partition("/")[0] if "/" in name else ""
    return first if first == "localhost" or re.search(r"[.:]", first) else HUB


def api_of(host: str) -> str:
    """Return the URL of a registry's API.

    The URL has http:// for a registry on this machine, which often lacks a certificate.
    """
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    return f"{scheme}://{'registry-1.docker.io' if host == HUB else host}/v2/"


def digest_of(name: str) -> str:
    """Return the digest that the registry has for NAME:TAG.

    Raise InputError if the registry does not return a digest.
    """
    image = ImageName.parse(name)
    url = f"{api_of(image.host)}{image.repository}/manifests/{image.tag}"
    try:
        answer = _head(url, None)
        if answer.status_code == requests.codes.unauthorized:
            answer = _head(url, _credentials(answer, image.host))
    except (requests.RequestException, ValueError, KeyError) as error:
        words = f"{image.host} does not answer ({type(error).__name__})"
        raise InputError(f"{words}, so {name} has no digest yet; run this again.") from None
    digest = answer.headers.get("Docker-Content-Digest", "")
    if answer.status_code != requests.codes.ok or not DIGEST.fullmatch(digest):
        words = f"{image.host} has no digest for {name} (status {answer.status_code})"
        raise InputError(f"{words}; correct the name, or log in with `docker login {image.host}`.")
    return digest


def _head(url: str, credentials: AuthBase | None) -> Response:
    return requests.head(url, headers={"Accept": ", ".join(TYPES)}, auth=credentials, timeout=SECONDS)


@dataclass(frozen=True)
class _Bearer(AuthBase):
    token: str

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _credentials(refusal: Response, host: str) -> AuthBase | None:
    """Return the credentials that a registry requires: a token, or the stored login.

    The registry issues a token for a public image even without a login. Raises ValueError if the login would be sent
    without encryption.
    """
    scheme, _, details = refusal.headers["WWW-Authenticate"].partition(" ")
    login = _login(host)
    if scheme.lower() != "bearer":
        return login
    parameters = {name: value or "" for name, value in parse_dict_header(details).items()}
    realm = parameters.pop("realm")
    if api_of(host).startswith("https:") and not realm.startswith("https:"):
        raise ValueError(realm)
    answer = requests.get(realm, parameters, auth=login, timeout=SECONDS)
    answer.raise_for_status()
    found = answer.json()
    return _Bearer(found.get("token") or found["access_token"])


def _login(host: str) -> HTTPBasicAuth | None:
    known = docker.auth.load_config().resolve_authconfig(HUB_LOGIN if host == HUB else host)
    return HTTPBasicAuth(known["username"], known["password"]) if known and known.get("password") else None

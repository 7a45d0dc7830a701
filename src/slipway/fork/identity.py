"""Define the names and addresses of a project, and the lines of its files that contain them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from slipway.config import IMAGE, has_secret
from slipway.errors import InputError
from slipway.integrations import process

MAX_NAME = 54
"""Maximum length of a name. The name with `-staging` is a Kubernetes namespace, which has at most 63 characters."""
LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
REMOTE = re.compile(
    r"(?:https://(?:[^@/]+@)?(?P<host>[\w.-]+(?::\d+)?)/"
    r"|ssh://(?:[^@/]+@)?(?P<ssh>[\w.-]+)(?::\d+)?/"  # without the port, which is only for SSH
    r"|(?:[^@/]+@)(?P<scp>[\w.-]+):/?)(?P<path>.+?)(?:\.git)?/?"
)
SSH_OVER_HTTPS = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}
LINE = re.compile(r"(?P<start> *(?:- )?)(?P<key>[\w./-]+: )?(?P<value>.*?)(?P<end>\s+#.*|\s*)")
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}

Place = tuple[str, str]
"""The key and the value of a line in a YAML file. The key is an empty text for an item of a list."""


@dataclass(frozen=True)
class Identity:
    """The name of a project and its addresses. `staging` and `production` are host names."""

    name: str
    repository: str
    image: str
    staging: str
    production: str


TEMPLATE = Identity(
    name="house-prices",
    repository="https://github.com/your-team/house-prices",
    image="ghcr.io/your-team/house-prices",
    staging="house-prices-staging.example.com",
    production="house-prices.example.com",
)


def origin() -> str | None:
    """Return the web address of the git remote `origin`. Return None if it is missing or a local directory."""
    try:
        url = process.run("git", "remote", "get-url", "origin")
    except InputError:
        return None
    found = REMOTE.fullmatch(url)
    if found is None:
        return None
    host = found["host"] or found["ssh"] or found["scp"]
    return f"https://{SSH_OVER_HTTPS.get(host, host)}/{found['path']}"


def propose(present: Identity, name: str | None, repository: str | None) -> Identity:
    """Derive an identity from a name and a repository. Keep the parts of `present` that differ from the template's."""
    repository = repository or (present.repository if present.repository != TEMPLATE.repository else origin() or "")
    last = re.sub(r"[^a-z0-9]+", "-", repository.rpartition("/")[2].lower()).strip("-")[:MAX_NAME]
    name = name or (present.name if present.name != TEMPLATE.name else last)
    owner = (re.search(r"([^/:]+)/[^/]+$", repository) or ["", "your-team"])[1].lower()
    fresh = Identity(name, repository, f"ghcr.io/{owner}/{name}", f"{name}-staging.example.com", f"{name}.example.com")
    chosen = {part: value for part, value in asdict(present).items() if value != asdict(TEMPLATE)[part]}
    return Identity(**asdict(fresh) | chosen | {"name": name, "repository": repository})


def check(identity: Identity) -> None:
    """Raise InputError for the first invalid part of an identity."""
    if not identity.repository:
        raise InputError(
            "The remote `origin` has no web address, so the agents cannot follow it; pass another address with "
            "--repository, like https://github.com/your-team/wine."
        )
    if not re.fullmatch(LABEL, identity.name) or len(identity.name) > MAX_NAME:
        raise InputError(
            f"--name: {identity.name!r} cannot be a Kubernetes namespace; use at most {MAX_NAME} lowercase letters, "
            "digits and hyphens, with a letter or a digit at both ends."
        )
    if has_secret(identity.repository):
        raise InputError(
            "--repository: the address contains a user or a password, which the manifests would publish; leave it out."
        )
    if not re.fullmatch(r"(?:https|ssh)://[^\s/?#]+/[^\s?#]+/[^\s/?#]+", identity.repository):
        raise InputError(
            f"--repository: {identity.repository!r} is not the address of a repository; write it like "
            "https://github.com/your-team/wine."
        )
    if not re.fullmatch(IMAGE, identity.image):
        raise InputError(
            f"--image: {identity.image!r} is not the address of an image; write a registry and a lowercase name "
            "without a tag, like ghcr.io/your-team/wine."
        )
    for part, host in (("staging", identity.staging), ("production", identity.production)):
        labels = host.split(".")
        if len(host) > 253 or not all(re.fullmatch(LABEL, each) and len(each) < 64 for each in labels):
            raise InputError(
                f"--{part}-host: {host!r} is not a host name (RFC 1123); write lowercase letters, digits, hyphens and "
                "dots, like wine.example.com."
            )
    if identity.staging == identity.production:
        raise InputError(f"--staging-host: {identity.staging} is the host of production; choose another one.")


def places(of: Identity) -> dict[str, list[Place]]:
    """Return, for each file, the lines with a part of an identity.

    The order of the lines is the same for every identity.
    """
    found = {
        "params.yaml": [
            ("experiment: ", of.name),
            ("image: ", "null" if of == TEMPLATE else of.image),
        ],
        "kustomize/agents/argocd/project.yaml": [
            ("name: ", of.name),
            ("description: ", f"The {of.name} model"),
            ("", of.repository),
            ("namespace: ", f"{of.name}-staging"),
            ("namespace: ", of.name),
        ],
        "kustomize/agents/flux/source.yaml": [("name: ", of.name), ("url: ", of.repository)],
        "kustomize/runner/scale-set.yaml": [
            ("githubConfigUrl: ", of.repository),
            ("image: ", f"{of.image}-runner:1"),
        ],
    }
    for environment, namespace, host in (
        ("staging", f"{of.name}-staging", of.staging),
        ("production", of.name, of.production),
    ):
        overlay = f"kustomize/overlays/{environment}"
        found |= {
            f"{overlay}/host.yaml": [("", host)],
            f"{overlay}/namespace.yaml": [("name: ", namespace)],
            f"{overlay}/kustomization.yaml": [
                ("namespace: ", namespace),
                ("app.kubernetes.io/part-of: ", of.name),
            ],
            f"kustomize/agents/argocd/{environment}.yaml": [
                ("name: ", namespace),
                ("project: ", of.name),
                ("repoURL: ", of.repository),
                ("namespace: ", namespace),
            ],
            f"kustomize/agents/flux/{environment}.yaml": [("name: ", namespace), ("name: ", of.name)],
        }
    return found


def replacements(file: str, former: Iterable[Identity], new: Identity) -> dict[Place, str]:
    """Return the new value for each line of `file` that contains a part of a former identity."""
    return {
        old: value
        for identity in former
        for old, (_, value) in zip(places(identity)[file], places(new)[file], strict=True)
    }


def rewrite(text: str, changes: Mapping[Place, str]) -> str:
    """Replace values in the lines of a YAML file, without changes to indentation, comments and line endings."""
    return "".join(_rewrite_line(line, changes) for line in text.splitlines(keepends=True))


def holds(text: str, place: Place) -> bool:
    """Return whether a YAML file has a line with the key and the value in `place`."""
    return any(_place(LINE.fullmatch(line)) == place for line in text.splitlines())


def _rewrite_line(line: str, changes: Mapping[Place, str]) -> str:
    content = line.rstrip("\r\n")
    found = LINE.fullmatch(content)
    place = _place(found)
    if found is None or changes.get(place, place[1]) == place[1]:
        return line
    return found["start"] + place[0] + _scalar(changes[place]) + found["end"] + line.removeprefix(content)


def _place(line: re.Match[str] | None) -> Place:
    if line is None:
        return "", ""
    value = line["value"]
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return line["key"] or "", value[1:-1] if quoted else value


def _scalar(value: str) -> str:
    """Return a value as YAML. Quote it if YAML would otherwise read it as a number, a boolean or null."""
    return json.dumps(value) if value in {"", *YAML_WORDS} or value[0].isdigit() else value

"""From the template to a project: its name where the sample's is, and nothing of the sample but the code that learns.

All edits are planned and checked before the first is made, and only what git has can be changed. Whether the sample is
still here is told by what data.dvc tracks, and that changes last; so an adoption that was killed goes on when it is run
again, and one that is done finds nothing to do.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import md5
from pathlib import Path

from slipway import artifacts, atomic
from slipway.config import IMAGE, SAMPLE_SOURCE
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.yaml_in_place import Document
from slipway.yaml_in_place import Path as Keys

OBJECTS = Path("sample/remote/files/md5")
OLDEST = "1993H1.csv"
"""The delivery by which the sample is known, whatever was taken in after it."""
DASHBOARD = Path("kustomize/components/monitoring/compiled/grafana/dashboard.yaml")
OWNERS, OWNER = Path(".github/CODEOWNERS"), "@YOUR-ORGANISATION/"
NOTICE = """\
Say here where the data of this project comes from, under which licence, what was changed, and which faults are known.
"""
LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"


@dataclass(frozen=True)
class Identity:
    """What a project is called, and where. `staging` and `production` are host names."""

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


def present() -> Identity:
    """The identity that the files have now; raises InputError where one of them cannot be read."""
    found = asdict(TEMPLATE)
    for file, keys, value, part in places(TEMPLATE):
        if value == found[part] == asdict(TEMPLATE)[part] and Path(file).is_file():
            found[part] = _text(Document(Path(file).read_bytes(), file), keys) or found[part]
    return Identity(**found)


def origin() -> str | None:
    """The address of the remote `origin` for a browser, or None."""
    try:
        url = process.run("git", "remote", "get-url", "origin")
    except InputError:
        return None
    found = re.fullmatch(r"(?:https://(?:[^@/]+@)?|ssh://git@|git@)([\w.-]+)[:/](.+?)(?:\.git)?/?", url)
    return f"https://{found[1]}/{found[2]}" if found else None


def proposed(here: Identity, name: str | None, repository: str | None) -> Identity:
    """What to offer for what the template still says, by the name and the address of the repository."""
    repository = repository or (here.repository if here.repository != TEMPLATE.repository else origin() or "")
    last = re.sub(r"[^a-z0-9]+", "-", repository.rpartition("/")[2].lower()).strip("-")[:54]
    name = name or (here.name if here.name != TEMPLATE.name else last)
    owner = (re.search(r"([^/:]+)/[^/]+$", repository) or ["", "your-team"])[1].lower()
    fresh = Identity(name, repository, f"ghcr.io/{owner}/{name}", f"{name}-staging.example.com", f"{name}.example.com")
    kept = {part: told for part, told in asdict(here).items() if told != asdict(TEMPLATE)[part]}
    return Identity(**asdict(fresh) | kept | {"name": name, "repository": repository})


def check(new: Identity) -> None:
    """Raise InputError for the first part of an identity that cannot be."""
    if not new.repository:
        raise InputError(
            "The remote `origin` is on no host, so nothing says what agents follow; say it with --repository, like "
            "https://github.com/your-team/wine."
        )
    if not re.fullmatch(LABEL, new.name) or len(new.name) > 54:
        raise InputError(
            f"--name: {new.name!r} cannot name a namespace of Kubernetes; use at most 54 small letters, digits and "
            "hyphens, with a letter or a digit at both ends."
        )
    if not re.fullmatch(r"(?:https|ssh)://[^\s/?#]+/[^\s?#]+/[^\s/?#]+", new.repository):
        raise InputError(
            f"--repository: {new.repository!r} is no address of a repository; write it like "
            "https://github.com/your-team/wine."
        )
    if not re.fullmatch(IMAGE, new.image):
        raise InputError(
            f"--image: {new.image!r} is not where an image can be pushed; write a registry and a name in small letters "
            "without a tag, like ghcr.io/your-team/wine."
        )
    for part, host in (("staging", new.staging), ("production", new.production)):
        labels = host.split(".")
        if len(host) > 253 or not all(re.fullmatch(LABEL, each) and len(each) < 64 for each in labels):
            raise InputError(
                f"--{part}-host: {host!r} is no host name (RFC 1123); write small letters, digits, hyphens and dots, "
                "like wine.example.com."
            )
    if new.staging == new.production:
        raise InputError(f"--staging-host: {new.staging} is production's; name another one.")


def places(of: Identity) -> Iterator[tuple[str, Keys, str, str]]:
    """Each value that follows from an identity: its file, where it stands there, what it is, and of which part."""
    yield "params.yaml", ("record", "experiment"), of.name, "name"
    yield "params.yaml", ("release", "image"), of.image, "image"
    for environment, space, host in (
        ("staging", f"{of.name}-staging", of.staging),
        ("production", of.name, of.production),
    ):
        folder = f"kustomize/overlays/{environment}"
        yield f"{folder}/host.yaml", ("spec", "hostnames", 0), host, environment
        yield f"{folder}/kustomization.yaml", ("namespace",), space, "name"
        yield f"{folder}/kustomization.yaml", ("labels", 0, "pairs", "app.kubernetes.io/part-of"), of.name, "name"
        yield f"{folder}/namespace.yaml", ("metadata", "name"), space, "name"
        file = f"kustomize/agents/argocd/{environment}.yaml"
        yield file, ("metadata", "name"), space, "name"
        yield file, ("spec", "project"), of.name, "name"
        yield file, ("spec", "source", "repoURL"), of.repository, "repository"
        yield file, ("spec", "destination", "namespace"), space, "name"
        file = f"kustomize/agents/flux/{environment}.yaml"
        yield file, ("metadata", "name"), space, "name"
        yield file, ("spec", "sourceRef", "name"), of.name, "name"
    file = "kustomize/agents/argocd/project.yaml"
    yield file, ("metadata", "name"), of.name, "name"
    yield file, ("spec", "description"), f"The {of.name} model, as its repository says", "name"
    yield file, ("spec", "sourceRepos", 0), of.repository, "repository"
    yield file, ("spec", "destinations", 0, "namespace"), f"{of.name}-staging", "name"
    yield file, ("spec", "destinations", 1, "namespace"), of.name, "name"
    yield "kustomize/agents/flux/source.yaml", ("metadata", "name"), of.name, "name"
    yield "kustomize/agents/flux/source.yaml", ("spec", "url"), of.repository, "repository"


def plan(new: Identity, told: frozenset[str]) -> dict[Path, bytes | None]:
    """The files to write, and those to remove (None), in that order; none where all is as it should be.

    A value that a person has changed stays, unless its part of the identity is `told`, on the command line. Raises
    CheckFailed where git could not bring back what would change, or where data/ has more than the sample.
    """
    sample = _sample()
    whole = {**_identified(new, told, sample is not None), **(_emptied(sample) if sample else {})}
    planned = {path: content for path, content in whole.items() if _content(path) != content}
    if planned and (dirty := process.run("git", "status", "--porcelain", "-z", "--", *map(str, planned))):
        path = dirty.split("\0")[0].split(maxsplit=1)[1]
        raise CheckFailed(
            f"{path} is not as in the last commit; commit or restore it, so that git has all that changes."
        )
    return planned


def apply(planned: Mapping[Path, bytes | None]) -> None:
    """Write and remove, each file whole or not at all."""
    if planned.get(artifacts.DATA_DVC):
        for folder in (artifacts.DATA, artifacts.CHAMPION):
            with atomic.replacing(folder) as fresh:
                fresh.mkdir()
    for path, content in planned.items():
        if content is not None:
            with atomic.replacing(path) as fresh:
                fresh.write_bytes(content)
            continue
        path.unlink(missing_ok=True)
        for parent in path.parents[:-1]:
            if any(parent.iterdir()):
                break
            parent.rmdir()


def _identified(new: Identity, told: frozenset[str], sample: bool) -> dict[Path, bytes]:
    documents = {file: Document(Path(file).read_bytes(), file) for file, *_ in places(new) if Path(file).is_file()}
    former = present()
    for (file, keys, template, _), (_, _, value, part) in zip(places(TEMPLATE), places(new), strict=True):
        if file in documents:
            found = _text(documents[file], keys)
            unsaid = file == str(artifacts.PARAMS) and not found
            if unsaid or found == template or (found and part in told):
                documents[file].set_text(keys, value)
    params = documents[str(artifacts.PARAMS)]
    if sample and _text(params, ("ingest", "source")) == SAMPLE_SOURCE:
        params.set_text(("ingest", "source"), "")
    # What is found by the name that params.yaml has comes before it.
    edited: dict[Path, bytes] = {}
    for path, old, fresh in (
        (DASHBOARD, f"slipway-{former.name}", f"slipway-{new.name}"),
        (DASHBOARD, f'"title": "{former.name}"', f'"title": "{new.name}"'),
        (OWNERS, OWNER, f"@{new.repository.split('/')[-2]}/"),
    ):
        if path.is_file():
            edited[path] = (edited.get(path) or path.read_bytes()).replace(old.encode(), fresh.encode())
    return edited | {Path(file): document.content for file, document in documents.items()}


def _text(document: Document, keys: Keys) -> str:
    try:
        return document.text(keys)
    except InputError:  # a person has taken it out, or wrote what is no text
        return ""


def _sample() -> dict[str, str] | None:
    """The files of the sample that data.dvc tracks, each with its hash; None where it tracks other data."""
    listed = _content(_object(artifacts.data_hash() or artifacts.EMPTY))
    files = {each["relpath"]: each["md5"] for each in json.loads(listed or b"[]")}
    return files if OLDEST in files else None


def _emptied(tracked: Mapping[str, str]) -> dict[Path, bytes | None]:
    """Without data, champion, and what was told of them. That which tells of the sample comes last."""
    more = [path for path in artifacts.DATA.rglob("*") if path.is_file() and not _is(path, tracked)]
    if more:
        raise CheckFailed(
            f"{more[0]} is none of the sample's, whose folder is emptied; move it away, and back afterwards."
        )
    objects = sorted(path for path in OBJECTS.rglob("*") if path.is_file())
    deliveries = sorted(path for path in Path(SAMPLE_SOURCE).rglob("*") if path.is_file())
    empty, last = _object(artifacts.EMPTY), _object(str(artifacts.data_hash()))
    return {
        empty: b"[]",
        Path("NOTICE"): NOTICE.encode(),
        artifacts.LOCK: b"schema: '2.0'\nstages: {}\n",
        artifacts.RELEASE: b'{"champion": null}\n',
        artifacts.EVALUATION: None,
        artifacts.VERDICT: None,
        **dict.fromkeys(path for path in (*deliveries, *objects) if path not in (empty, last)),
        artifacts.CHAMPION_DVC: _empty(artifacts.CHAMPION),
        artifacts.DATA_DVC: _empty(artifacts.DATA),
        last: None,
    }


def _object(folder: str) -> Path:
    """Where the embedded remote says what a folder has."""
    return OBJECTS / folder[:2] / f"{folder[2:]}.dir"


def _is(path: Path, tracked: Mapping[str, str]) -> bool:
    known = tracked.get(path.relative_to(artifacts.DATA).as_posix())
    return known is not None and md5(path.read_bytes(), usedforsecurity=False).hexdigest() == known


def _empty(folder: Path) -> bytes:
    return f"outs:\n- md5: {artifacts.EMPTY}.dir\n  size: 0\n  nfiles: 0\n  hash: md5\n  path: {folder}\n".encode()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None

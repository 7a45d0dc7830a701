"""From the overlay on `main` to answers: applying it, where no agent does, and waiting until the new model answers."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pygit2
from ruamel.yaml import YAML

from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.git import Snapshot, tip
from slipway.release import registry
from slipway.release.history import OVERLAYS, PRODUCTION, STAGING, Deployed, images_file, live
from slipway.release.version_probe import ask

WORKLOAD = "deployment/model"
ALIASES = {STAGING: "challenger", PRODUCTION: "champion"}
"""What the registry calls the version that is healthy in an environment."""
IN_A_ROW = 10
"""Good answers, each on a connection of its own: while pods are replaced, the old ones answer too."""
PAUSE = 0.1
"""Seconds between two questions."""


def deploy(environment: str, params: Params, environ: Mapping[str, str]) -> Iterator[str]:
    """Have an environment run what `main` says, as params.yaml says how; yields what was done.

    Raises CheckFailed where it does not answer with that within `release.timeout_seconds` seconds.
    """
    now = tip(environ)
    wanted = live(now, environment)
    if wanted is None:
        raise CheckFailed(f"Nothing has been released to {environment} yet.")
    if params.release.deploy == "kubectl":
        yield _apply(now, environment, params.release.timeout_seconds, environ)
    if url := params.release.urls.get(environment):
        yield _wait(url, wanted, params.release.timeout_seconds)
    elif params.release.deploy == "agent":
        yield f"the agent rolls it out; params.yaml has no release.urls.{environment}, so nothing is asked"
    alias = ALIASES.get(environment)
    if alias and wanted.origin.version and registry.is_configured(environ):
        registry.point(params, alias, wanted.origin.version)
        yield f"version {wanted.origin.version} of {params.record.experiment} is the {alias}"


def _wait(url: str, wanted: Deployed, timeout: int) -> str:
    """Ask until it answers with the bundle and the commit that are wanted, again and again."""
    began, right, last = time.monotonic(), 0, "nothing was asked"
    while time.monotonic() - began < timeout:
        try:
            told = ask(url)
            good = (told.bundle, told.commit) == (wanted.origin.bundle, wanted.origin.commit)
            last = f"it answers with bundle {told.bundle[:32]} of commit {told.commit}"
        except InputError as error:
            good, last = False, str(error)
        right = right + 1 if good else 0
        if right == IN_A_ROW:
            return f"{url} answers with bundle {wanted.origin.bundle}, {time.monotonic() - began:.0f} s later"
        time.sleep(PAUSE)
    raise CheckFailed(f"{url} does not answer with bundle {wanted.origin.bundle} after {timeout} s: {last}.")


def _apply(now: Snapshot, environment: str, timeout: int, environ: Mapping[str, str]) -> str:
    """`kubectl apply -k` of the overlay as it is on `main`, to the cluster of KUBE_CONFIG, or of KUBECONFIG."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifests(now, Path(folder))
        overlay = Path(folder, OVERLAYS, environment)
        namespace = namespace_of(environment, Path(folder))
        where = ("--namespace", namespace) if namespace else ()
        variables = _credentials(Path(folder), environ)
        process.run("kubectl", "apply", "--kustomize", str(overlay), variables=variables)
        try:
            status = ("kubectl", "rollout", "status", WORKLOAD, f"--timeout={timeout}s", *where)
            process.run(*status, variables=variables)
        except InputError as error:
            raise CheckFailed(f"{environment} does not become healthy: {error}") from None
    return f"applied to {namespace or 'the namespace of the context'}, and rolled out"


def write_manifests(now: Snapshot, folder: Path) -> None:
    """Write kustomize/ as it is in a commit, into a folder."""
    _write(now.commit.tree["kustomize"].peel(pygit2.Tree), folder / "kustomize")


def namespace_of(environment: str, folder: Path) -> str | None:
    """The namespace of an overlay among the manifests in a folder; None where it names none."""
    namespace = YAML(typ="safe").load((folder / images_file(environment)).read_text("utf-8")).get("namespace")
    return str(namespace) if namespace else None


def _write(tree: pygit2.Tree, to: Path) -> None:
    to.mkdir()
    for each in tree:
        if isinstance(each, pygit2.Tree):
            _write(each, to / str(each.name))
        elif isinstance(each, pygit2.Blob):
            (to / str(each.name)).write_bytes(each.data)


def _credentials(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """A secret holds the content of a file; kubectl wants its name."""
    if not environ.get("KUBE_CONFIG"):
        return {}
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(environ["KUBE_CONFIG"], encoding="utf-8")
    return {"KUBECONFIG": str(file)}

"""Roll out the release on `main`: wait until the new model answers. Without an agent, apply the manifests first."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pygit2

from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.git import Snapshot, tip
from slipway.release import registry
from slipway.release.component import Deployed
from slipway.release.history import OVERLAYS, PRODUCTION, STAGING, live, overlay
from slipway.release.version_probe import ask

WORKLOAD = "deployment/model"
ALIASES = {STAGING: "challenger", PRODUCTION: "champion"}
"""For each environment, the alias in the model registry of the version that the environment runs."""
IN_A_ROW = 50
"""A rollout is complete after this number of consecutive answers from the new model, each on a new connection.

One answer is not enough, because old pods also answer while they are being replaced. During the second pause of a
canary, up to two thirds of the pods have the new model. During this pause, a sequence of ten answers from the new
model is likely, but a sequence of fifty is not.
"""
PAUSE = 0.05
"""Seconds between two requests."""


def deploy(environment: str, params: Params, environ: Mapping[str, str]) -> Iterator[str]:
    """Roll out the release on `main` to an environment. Yield a line for each step.

    The section `release` of params.yaml defines how manifests are applied, and which address is checked. Raises
    CheckFailed if the new model does not answer within `release.timeout_seconds`.
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
        yield f"the agent rolls it out; not checked, because params.yaml has no release.urls.{environment}"
    alias, version = ALIASES.get(environment), wanted.registry_version
    if alias and version and registry.is_configured(environ):
        registry.point(params, alias, version)
        yield f"version {version} of {params.record.experiment} has the alias {alias}"


def _wait(url: str, wanted: Deployed, timeout: int) -> str:
    """Send requests until IN_A_ROW consecutive answers come from the released bundle and commit."""
    bundle, commit = wanted.provenance.bundle, wanted.provenance.commit
    began, right, last = time.monotonic(), 0, "no request was sent"
    while time.monotonic() - began < timeout:
        try:
            served = ask(url)
            good = (served.bundle, served.commit) == (bundle, commit)
            last = f"it answers with bundle {served.bundle[:32]} of commit {served.commit}"
        except InputError as error:
            good, last = False, str(error)
        right = right + 1 if good else 0
        if right == IN_A_ROW:
            return f"{url} answers with bundle {bundle}, {time.monotonic() - began:.0f} s later"
        time.sleep(PAUSE)
    raise CheckFailed(f"{url} does not answer with bundle {bundle} after {timeout} s: {last}.")


def _apply(now: Snapshot, environment: str, timeout: int, environ: Mapping[str, str]) -> str:
    """Apply the overlay of a commit with `kubectl apply -k`, to the cluster in KUBE_CONFIG or KUBECONFIG."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifests(now, Path(folder))
        namespace = namespace_of(now, environment)
        where = ("--namespace", namespace) if namespace else ()
        variables = _credentials(Path(folder), environ)
        process.run("kubectl", "apply", "--kustomize", f"{folder}/{OVERLAYS}/{environment}", variables=variables)
        try:
            status = ("kubectl", "rollout", "status", WORKLOAD, f"--timeout={timeout}s", *where)
            process.run(*status, variables=variables)
        except InputError as error:
            raise CheckFailed(f"{environment} does not become healthy: {error}") from None
    return f"applied to {namespace or 'the namespace of the context'}, and rolled out"


def write_manifests(now: Snapshot, folder: Path) -> None:
    """Write the files below kustomize/ from a commit to a folder."""
    _write(now.commit.tree["kustomize"].peel(pygit2.Tree), folder / "kustomize")


def namespace_of(now: Snapshot, environment: str) -> str | None:
    """Return the namespace in the overlay of an environment, or None if the overlay sets no namespace."""
    namespace = overlay(now, environment).get("namespace")
    return str(namespace) if namespace else None


def _write(tree: pygit2.Tree, to: Path) -> None:
    to.mkdir()
    for each in tree:
        if isinstance(each, pygit2.Tree):
            _write(each, to / str(each.name))
        elif isinstance(each, pygit2.Blob):
            (to / str(each.name)).write_bytes(each.data)


def _credentials(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Write the content of the variable KUBE_CONFIG to a file.

    Return the environment variable KUBECONFIG with the path of the file, for kubectl.
    """
    if not environ.get("KUBE_CONFIG"):
        return {}
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(environ["KUBE_CONFIG"], encoding="utf-8")
    return {"KUBECONFIG": str(file)}

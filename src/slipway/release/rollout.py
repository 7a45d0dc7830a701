"""Roll out the release on `main`: wait until the new model answers. Without an agent, apply the manifests first."""

import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pygit2

from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.git import Snapshot, tip
from slipway.release import canary, registry
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

    The section `release` of params.yaml defines how manifests are applied, and which address is checked. If the overlay
    has a canary and the cluster is known, wait until Argo Rollouts has promoted it. Raises CheckFailed if the canary is
    aborted, or if the new model does not answer within `release.timeout_seconds`.
    """
    now = tip(environ)
    wanted = live(now, environment)
    if wanted is None:
        raise CheckFailed(f"Nothing has been released to {environment} yet.")
    by_kubectl, seen = params.release.deploy == "kubectl", False
    if by_kubectl or environ.get("KUBE_CONFIG"):
        for step in _in_cluster(now, environment, wanted, params.release.timeout_seconds, environ, by_kubectl):
            seen = True
            yield step
    if url := params.release.urls.get(environment):
        yield _wait(url, wanted, params.release.timeout_seconds)
    elif not seen:
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


def _in_cluster(
    now: Snapshot, environment: str, wanted: Deployed, timeout: int, environ: Mapping[str, str], by_kubectl: bool
) -> Iterator[str]:
    """Apply the overlay of a commit with kubectl, or let an agent apply it, and wait for the rollout.

    The cluster is that of KUBE_CONFIG or KUBECONFIG. If an agent applies the overlay, wait only for a canary.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_manifests(now, Path(folder))
        path = f"{folder}/{OVERLAYS}/{environment}"
        namespace = namespace_of(now, environment)
        where = ("--namespace", namespace) if namespace else ()
        variables = _credentials(Path(folder), environ)

        def kubectl(*arguments: str) -> str:
            return process.run("kubectl", *arguments, variables=variables)

        def read(name: str) -> dict[str, Any]:
            return dict(json.loads(kubectl("get", name, "--output=json", *where)))

        if by_kubectl:
            kubectl("apply", "--kustomize", path)
            yield f"applied to {namespace or 'the namespace of the context'}"
        if re.search("^kind: Rollout$", kubectl("kustomize", path), re.MULTILINE):
            yield canary.follow(read, WORKLOAD, wanted.image, timeout)
        elif by_kubectl:
            try:
                kubectl("rollout", "status", WORKLOAD, f"--timeout={timeout}s", *where)
            except InputError as error:
                raise CheckFailed(f"{environment} does not become healthy: {error}") from None
            yield "rolled out"


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

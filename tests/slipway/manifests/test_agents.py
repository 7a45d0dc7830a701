"""An agent that is applied once follows every overlay of this repository, and has no further rights."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import AGENTS, COMPONENTS, OVERLAYS, Manifest, agent, changed, of

Checks = Iterator[tuple[str, bool]]
WAITING = ("timeout", "healthChecks", "healthCheckExprs")
"""Fields of a Kustomization by which Flux waits for one commit to become healthy before it fetches the next."""
PATHS = [f"kustomize/overlays/{name}" for name in OVERLAYS]


def argocd(objects: list[Manifest]) -> Checks:
    (project,) = [each for each in objects if each["kind"] == "AppProject"]
    may = project["spec"]
    kinds = [
        (each["group"], each["kind"]) for kind in ("cluster", "namespace") for each in may[f"{kind}ResourceWhitelist"]
    ]
    specs = [each["spec"] for each in objects if each["kind"] == "Application"]
    yield "follows every overlay", sorted(spec["source"]["path"] for spec in specs) == PATHS
    for spec in specs:
        overlay = of(spec["source"]["path"].rsplit("/")[-1], tuple(COMPONENTS))
        needed = [(each["apiVersion"].rpartition("/")[0], each["kind"]) for each in overlay.values()]
        yield "may create all kinds of the overlay", set(needed) <= set(kinds)
        yield "may read the repository", spec["source"]["repoURL"] in may["sourceRepos"]
        yield "may write to the namespace", spec["destination"] in may["destinations"]
        yield "belongs to the project", spec["project"] == project["metadata"]["name"]
        yield (
            "goes to the overlay's namespace",
            spec["destination"]["namespace"] == overlay["Namespace"]["metadata"]["name"],
        )
        yield "follows main", spec["source"]["targetRevision"] == "main"
        yield "corrects by itself", spec["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}


def flux(objects: list[Manifest]) -> Checks:
    (source,) = [each for each in objects if each["kind"] == "GitRepository"]
    specs = [each["spec"] for each in objects if each["kind"] == "Kustomization"]
    yield "follows every overlay", sorted(spec["path"] for spec in specs) == [f"./{path}" for path in PATHS]
    yield "follows main", source["spec"]["ref"] == {"branch": "main"}
    yield "has the manifests", "!/kustomize" in source["spec"]["ignore"].splitlines()
    yield "fetches a rollback in time", source["spec"]["interval"] == "20s"
    for spec in specs:
        yield "reads the source", spec["sourceRef"] == {"kind": "GitRepository", "name": source["metadata"]["name"]}
        yield "corrects by itself", spec["prune"] is True
        yield "applies a rollback at once", spec["wait"] is False and not {*WAITING} & {*spec}


CHECKS = {"argocd": argocd, "flux": flux}


def broken(name: str, objects: list[Manifest]) -> list[str]:
    return [what for what, holds in CHECKS[name](objects) if not holds]


@pytest.mark.parametrize("name", AGENTS)
def test_agent_follows_this_repository(name: str) -> None:
    assert broken(name, agent(name)) == []
    assert [path for path in PATHS if not (ROOT / path / "kustomization.yaml").is_file()] == []


@pytest.mark.parametrize(
    ("name", "kind", "path", "value", "what"),
    [
        ("argocd", "Application", "spec.source.path", "kustomize/overlays/production", "follows every overlay"),
        ("argocd", "Application", "spec.source.targetRevision", "HEAD", "follows main"),
        ("argocd", "Application", "spec.source.repoURL", "https://localhost/", "may read the repository"),
        ("argocd", "Application", "spec.destination.namespace", "default", "may write to the namespace"),
        ("argocd", "Application", "spec.destination.namespace", "default", "goes to the overlay's namespace"),
        ("argocd", "Application", "spec.project", "default", "belongs to the project"),
        ("argocd", "Application", "spec.syncPolicy.automated", {"prune": True}, "corrects by itself"),
        ("argocd", "AppProject", "spec.namespaceResourceWhitelist", [], "may create all kinds of the overlay"),
        ("flux", "Kustomization", "spec.path", "./kustomize/base", "follows every overlay"),
        ("flux", "Kustomization", "spec.sourceRef.name", "flux-system", "reads the source"),
        ("flux", "Kustomization", "spec.prune", False, "corrects by itself"),
        ("flux", "Kustomization", "spec.wait", True, "applies a rollback at once"),
        ("flux", "Kustomization", "spec.timeout", "10m", "applies a rollback at once"),
        ("flux", "Kustomization", "spec.healthCheckExprs", [], "applies a rollback at once"),
        ("flux", "GitRepository", "spec.ref", {"branch": "dev"}, "follows main"),
        ("flux", "GitRepository", "spec.ignore", "/*", "has the manifests"),
        ("flux", "GitRepository", "spec.interval", "1m", "fetches a rollback in time"),
    ],
)
def test_each_check_fails(name: str, kind: str, path: str, value: Any, what: str) -> None:
    wrong = [changed(each, path, value) if each["kind"] == kind else each for each in agent(name)]
    assert what in broken(name, wrong)


def test_each_agent_has_checks() -> None:
    assert set(AGENTS) == set(CHECKS)

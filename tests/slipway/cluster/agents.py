"""Flux and Argo CD in the cluster. Each follows a repository that this process serves over HTTP."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.fork.identity import TEMPLATE
from slipway.release.component import Image
from tests.slipway.cluster import git_server
from tests.slipway.cluster.kubectl import Production, reference, wait, write_release


@dataclass(frozen=True)
class Agent:
    """A program in the cluster that applies the commits of a repository.

    Args:
        folder: of its objects in kustomize/agents
        host: variable with the address of this machine to which the agent can connect
        fetches: kind of the objects that fetch the repository
        applies: kind of the objects that apply an overlay
        request: annotation by which a webhook lets such an object do so at once
        webhook: whether the agent needs a webhook to fetch a commit in time
        applied: returns the last applied commit from the status of such an object
    """

    name: str
    folder: str
    host: str
    namespace: str
    fetches: str
    applies: str
    request: str
    webhook: bool
    applied: Callable[[dict[str, Any]], str]


def applied_by_flux(status: dict[str, Any]) -> str:
    return str(status.get("lastAppliedRevision", "")).removeprefix("main@sha1:")


def applied_by_argocd(status: dict[str, Any]) -> str:
    sync = status.get("sync", {})
    return str(sync["revision"]) if sync.get("status") == "Synced" else ""


FLUX = Agent(
    name="Flux",
    folder="flux",
    host="SLIPWAY_FLUX_HOST",
    namespace="flux-system",
    fetches="gitrepositories.source.toolkit.fluxcd.io",
    applies="kustomizations.kustomize.toolkit.fluxcd.io",
    request="reconcile.fluxcd.io/requestedAt={now}",
    webhook=False,
    applied=applied_by_flux,
)
ARGOCD = Agent(
    name="Argo CD",
    folder="argocd",
    host="SLIPWAY_ARGOCD_HOST",
    namespace="argocd",
    fetches="applications.argoproj.io",
    applies="applications.argoproj.io",
    request="argocd.argoproj.io/refresh=normal",
    webhook=True,
    applied=applied_by_argocd,
)
BOUND = 30
"""Seconds from a push within which an agent must apply the commit."""
AGENTS = [agent for agent in (FLUX, ARGOCD) if os.environ.get(agent.host)]
"""The agents in this cluster."""


@dataclass(frozen=True)
class Followed:
    """A repository with the overlays, and the agent that follows it."""

    agent: Agent
    production: Production

    @property
    def repository(self) -> Path:
        return self.production.overlay.parents[2]

    @property
    def objects(self) -> Path:
        return self.repository / "kustomize/agents" / self.agent.folder

    def push(self, image: Image, environment: Production) -> None:
        """Commit a release to an environment. Notify the agent as a webhook does, if it needs one."""
        write_release(environment.overlay, image)
        git_server.commit(self.repository, f"Release {image.tag}")
        if self.agent.webhook:
            self.notify(self.agent.fetches)

    def notify(self, kind: str) -> None:
        """Let all objects of a kind fetch or apply at once."""
        request = self.agent.request.format(now=time.time())
        self._must("annotate", kind, "--all", "--overwrite", request)

    def wait_for(self, image: Image, environment: Production) -> float:
        """Return the seconds until the Deployment has the image."""
        began = time.monotonic()
        wanted = reference(image)
        wait(lambda: container(environment)["image"] == wanted, f"{self.agent.name} does not apply {wanted}")
        return time.monotonic() - began

    def is_applied(self) -> bool:
        """Return whether the last commit is applied to every environment."""
        found = self.production.cluster.read(self.agent.applies, f"--namespace={self.agent.namespace}")["items"]
        commits = {self.agent.applied(each.get("status", {})) for each in found}
        return commits == {git_server.head(self.repository)}

    def replace(self, old: str, new: str) -> None:
        """Replace the address of the repository in the objects of the agent."""
        for file in self.objects.glob("*.yaml"):
            file.write_text(file.read_text().replace(old, new))

    def follow(self) -> None:
        """Apply the objects of the agent, and wait until they have applied the last commit."""
        self.production.cluster.must("apply", f"--kustomize={self.objects}")
        wait(self.is_applied, f"{self.agent.name} does not apply the overlays")
        self.production.settle()

    def leave(self) -> None:
        """Delete the objects of the agent, and wait until they are gone."""
        self.production.cluster.must("delete", "--ignore-not-found", f"--kustomize={self.objects}")

    def _must(self, *arguments: str) -> None:
        self.production.cluster.must(*arguments, f"--namespace={self.agent.namespace}")


def container(environment: Production) -> dict[str, Any]:
    (found,) = environment.read("deployment", "model")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@contextmanager
def following(agent: Agent, production: Production) -> Iterator[Followed]:
    """Serve the copy of kustomize/ as a repository in which all environments run image A, until the block ends."""
    followed = Followed(agent, production)
    for environment in ("staging", "production"):
        write_release(production.overlay.with_name(environment), production.images["A"])
    with git_server.serve(followed.repository, os.environ[agent.host]) as url:
        followed.replace(TEMPLATE.repository, url)
        git_server.create(followed.repository)
        try:
            followed.follow()
            yield followed
        finally:
            followed.leave()
            followed.replace(url, TEMPLATE.repository)

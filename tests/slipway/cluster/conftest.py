"""Production in the cluster of `make cluster`. Without a cluster, no test of this folder is collected."""

import os
import shutil
from collections.abc import Iterator

import pytest
import yaml

from tests.slipway.cluster.agents import AGENTS, Followed, following
from tests.slipway.cluster.kubectl import CLIENTS, NAMED, Cluster, Load, Production, image
from tests.slipway.conftest import ROOT, edit

KUSTOMIZE = ROOT / "kustomize"
OVERLAYS = ("staging", "production")

collect_ignore_glob = [] if os.environ.get(NAMED) else ["test_*.py"]
if os.environ.get("SLIPWAY_WITHOUT_METRICS"):
    collect_ignore_glob.append("test_spike.py")
if not os.environ.get("SLIPWAY_KWOK"):
    collect_ignore_glob.append("test_to_300_replicas.py")
if not os.environ.get("SLIPWAY_ROLLOUTS_HOST"):
    collect_ignore_glob += ["test_canary.py", "test_agents_during_canary.py"]
if not AGENTS:
    collect_ignore_glob += ["test_agents.py", "test_agents_during_canary.py"]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(os.environ[NAMED])


@pytest.fixture(scope="session")
def namespaces(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The namespaces of the overlays, created here and deleted at the end. An existing one is refused."""
    files = {name: KUSTOMIZE / "overlays" / name / "namespace.yaml" for name in OVERLAYS}
    names = {name: str(yaml.safe_load(file.read_text())["metadata"]["name"]) for name, file in files.items()}
    found = cluster.must("get", "namespaces", "--output=name").split()
    there = [name for name in names.values() if f"namespace/{name}" in found]
    assert not there, (
        f"The cluster already has the namespaces {there}; use another cluster, or delete them if a test left them."
    )
    try:
        for file in files.values():
            cluster.must("apply", f"--filename={file}")
        yield names
    finally:
        cluster.must("delete", "namespace", "--ignore-not-found", *names.values())


@pytest.fixture(scope="session")
def production(cluster: Cluster, namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Production:
    """Production with image A. SLIPWAY_CPU_REQUEST lowers the request of a replica for a small cluster."""
    copy = tmp_path_factory.mktemp("production") / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    if asked := os.environ.get("SLIPWAY_CPU_REQUEST"):
        edit(copy / "base/deployment.yaml", "cpu: 250m", f"cpu: {asked}")
    images = {name: image(f"SLIPWAY_IMAGE_{name}") for name in ("A", "B")}
    made = Production(cluster, namespaces["production"], copy / "overlays/production", images)
    made.release("A")
    return made


@pytest.fixture(scope="module", params=AGENTS, ids=lambda agent: agent.folder)
def followed(request: pytest.FixtureRequest, production: Production) -> Iterator[Followed]:
    """An agent, and the repository that it follows. All environments run image A."""
    with following(request.param, production) as found:
        yield found


@pytest.fixture(scope="session")
def load(production: Production) -> Iterator[Load]:
    """Constant load, far below the capacity of the replicas."""
    with production.load("load", clients=CLIENTS, pause=0.05, records=1) as running:
        yield running

"""The demo with `--cluster`: clusters that are not local are refused. In a local one, releases run under load.

`kubectl`, `docker` and `kind` are fakes. A pod is a process of the demo's engine: it starts if its image was built and
loaded, answers through a forwarded port, and serves for twenty seconds after SIGTERM, as with `preStop`. The manifests
run in a real cluster in tests/slipway/cluster.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.fakes import cluster
from demo.fakes.agent import Agent
from demo.fakes.docker_api import Engine, Image
from slipway.bundle import GOLDEN, Golden
from slipway.errors import InputError
from slipway.provenance import LABELS, Provenance
from slipway.release.component import Deployed, render
from slipway.release.component import Image as Released
from slipway.release.history import PRODUCTION, release_file
from slipway.release.load_client import LoadClient
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.end_to_end.test_demo import processes_in
from tests.slipway.tools import require

PROGRAM = '''#!{python}
"""A fake of kubectl, docker and kind. Their state is in one folder."""

import contextlib, json, os, signal, subprocess, sys, time
from pathlib import Path

import yaml

sys.path.insert(0, {top!r})

from demo.fakes.docker_api import Image
from slipway.integrations.ports import free_port
from slipway.release.load_client import is_ready

state = Path({state!r})
command = [Path(sys.argv[0]).name, *sys.argv[1:]]
with (state / "asked").open("a") as asked:
    print(*command, file=asked)


def read(name):
    file = state / name
    return json.loads(file.read_text()) if file.is_file() else {{}}


def write(name, content):
    (state / name).write_text(json.dumps(content))


def start(namespace, image):
    folder, ports = Path(read("loaded")[image]), []
    for _ in range(2):
        ports.append(free_port())
        variables = {{"SLIPWAY_PORT": str(ports[-1]), "SLIPWAY_GRACE": "20"}}
        process = Image("", folder, {{}}).start(variables, state / "pods.log")
        pods[f"pod-{{ports[-1]}}"] = [namespace, ports[-1], process.pid]
    while not all(map(is_ready, ports)):
        time.sleep(0.1)


pods, spaces = read("pods"), read("namespaces")
match command:
    case ["docker", "build", "--quiet", "--tag", name, folder]:
        write("built", read("built") | {{name: folder}})
    case ["kind", "load", "docker-image", "--name", "slipway", name]:
        write("loaded", read("loaded") | {{name: read("built")[name]}})
    case ["kubectl", "config", "current-context"]:
        print((state / "current").read_text())
    case ["kubectl", "--context", "kind-slipway", *rest]:
        match rest:
            case ["config", "view", "--minify", "--output=json"]:
                print(json.dumps({{"clusters": [{{"cluster": {{"server": (state / "server").read_text()}}}}]}}))
            case ["version", *_]:
                pass
            case ["kustomize", folder]:
                sys.exit(subprocess.run([{kustomize!r}, "build", folder]).returncode)
            case ["create", "--filename", file]:
                made = yaml.safe_load(Path(file).read_text())["metadata"]
                if made["name"] in spaces:
                    sys.exit(f'namespaces "{{made["name"]}}" already exists')
                write("namespaces", spaces | {{made["name"]: made["labels"]}})
            case ["apply", "--filename", file]:
                told = yaml.safe_load_all(Path(file).read_text())
                [deployment] = [each for each in told if each["kind"] == "Deployment"]
                [container], old = deployment["spec"]["template"]["spec"]["containers"], list(pods)
                start(deployment["metadata"]["namespace"], container["image"])
                write("pods", pods)
                time.sleep(1)
                for pod in old:
                    os.kill(pods[pod][2], signal.SIGTERM)
            case ["get", "endpointslices", "--namespace", space, "--selector", _, "--output=json"]:
                items = [
                    {{"conditions": {{"ready": is_ready(port)}}, "targetRef": {{"name": name}}}}
                    for name, (there, port, _) in pods.items()
                    if there == space
                ]
                print(json.dumps({{"items": [{{"endpoints": items}}]}}))
            case ["port-forward", "--namespace", _, pod, ":8080"]:
                port = pods[pod.removeprefix("pod/")][1]
                print(f"Forwarding from 127.0.0.1:{{port}} -> 8080", flush=True)
                time.sleep(600)
            case ["delete", "namespaces", "--selector", selector]:
                name, _, value = selector.partition("=")
                gone = [space for space, labels in spaces.items() if labels.get(name) == value]
                write("namespaces", {{space: labels for space, labels in spaces.items() if space not in gone}})
                for there, _, process in pods.values():
                    with contextlib.suppress(ProcessLookupError):
                        if there in gone: os.kill(process, signal.SIGKILL)
            case _:
                sys.exit(f"kubectl here does not know {{rest}}")
    case _:
        sys.exit(f"nothing here knows {{command}}")
'''


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up the fakes with a kind cluster, which is the current one. Return the folder of their state."""
    kustomize = require("kustomize")
    folder = tmp_path / "cluster"
    programs = folder / "programs"
    programs.mkdir(parents=True)
    for name in ("kubectl", "docker", "kind"):
        (programs / name).write_text(
            PROGRAM.format(python=sys.executable, top=str(ROOT), state=str(folder), kustomize=kustomize)
        )
        (programs / name).chmod(0o755)
    (folder / "current").write_text("kind-slipway")
    (folder / "server").write_text("https://127.0.0.1:6443")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return folder


def asked(state: Path) -> list[str]:
    return (state / "asked").read_text().splitlines() if (state / "asked").exists() else []


@pytest.mark.parametrize(
    ("context", "server"),
    [
        ("production", "https://127.0.0.1:6443"),  # not the name of a local cluster
        ("arn:aws:eks:eu-central-1:1:cluster/kind-slipway", "https://1.eks.amazonaws.com"),
        ("kind-slipway", "https://203.0.113.9:6443"),  # a local name for a remote server
        ("kind-slipway", "https://api.team.example"),
    ],
)
@pytest.mark.parametrize("current", [True, False])
def test_no_other_cluster_is_touched(state: Path, context: str, server: str, current: bool) -> None:
    (state / "server").write_text(server)
    if current:
        (state / "current").write_text(context)
    with pytest.raises(InputError, match="the demo touches no other cluster"):
        cluster.find("1" if current else context)
    assert all("config" in line for line in asked(state))


@pytest.mark.usefixtures("state")
def test_a_missing_cluster_or_kubectl_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"kubectl --context minikube config view .* failed"):
        cluster.find("minikube")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="program kubectl is not on the PATH"):
        cluster.find("1")


@pytest.mark.usefixtures("state")
def test_a_cluster_is_found_by_its_name_or_as_the_current_one() -> None:
    assert cluster.find("1").context == cluster.find("kind-slipway").context == "kind-slipway"


@pytest.fixture
def work(origin: Repository, tmp_path: Path) -> Repository:
    repository = origin.clone(tmp_path / "work")
    repository.must("dvc", "pull", "--quiet", "champion.dvc")
    return repository


def another(engine: Engine, image: Image) -> Image:
    """Copy an image under another digest."""
    folder = Path(shutil.copytree(image.folder, image.folder.with_name("another")))
    made = Image(f"sha256:{'a' * 64}", folder, image.labels)
    engine.images[made.digest] = made
    return made


def release(work: Repository, image: Image) -> None:
    """Commit an image to the overlay of production."""
    deployed = Deployed(Released("registry.demo/x", "t", image.digest), Provenance(bundle=image.bundle), None)
    (work.path / release_file(PRODUCTION)).write_bytes(render(deployed))
    work.commit("Release")


def wait(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_no_request_fails_during_releases_in_a_cluster(state: Path, work: Repository, tmp_path: Path) -> None:
    """Each image is built, loaded, applied and answers. No request fails, and nothing is left at the end."""
    here = cluster.find("1")
    with Engine(tmp_path / "engine").serving() as engine:
        work.must("slipway", "image", "build", "--tag", "first", DOCKER_HOST=engine.host)
        first = engine.images["slipway:first"]
        second = another(engine, first)
        release(work, first)
        agent = Agent(PRODUCTION, work.path / ".git", engine, lambda to: cluster.ClusterWorkload(PRODUCTION, here, to))
        with agent.following():
            wait(lambda: len(agent.balancer.ports) == 2 or agent.error)
            assert agent.error is None
            before = agent.balancer.ports
            rows = Golden.model_validate_json((second.folder / "bundle" / GOLDEN).read_bytes()).rows
            bodies = [json.dumps(each).encode() for each in rows]
            with LoadClient(agent.balancer.port, bodies, pause=0.05).sending() as load:
                release(work, second)
                wait(lambda: not set(agent.balancer.ports) & set(before) or agent.error)
                time.sleep(1)
        assert agent.error is None
        assert [each.bundle for each in agent.rollouts] == [first.bundle, second.bundle]
    assert load.failures == []
    assert len(load.outcomes) > 50
    assert (state / "namespaces").read_text() == "{}"
    assert processes_in(tmp_path) == []
    assert all("--context kind-slipway" in line for line in asked(state)[1:] if line.startswith("kubectl"))


def test_a_namespace_that_exists_is_neither_used_nor_deleted(state: Path, work: Repository, tmp_path: Path) -> None:
    (state / "namespaces").write_text('{"house-prices": {}}')
    with Engine(tmp_path / "engine").serving() as engine:
        image = Image(f"sha256:{'a' * 64}", tmp_path, {LABELS["bundle"]: "b" * 32})
        engine.images[image.digest] = image
        release(work, image)
        here = cluster.find("1")
        agent = Agent(PRODUCTION, work.path / ".git", engine, lambda to: cluster.ClusterWorkload(PRODUCTION, here, to))
        with agent.following():
            wait(lambda: agent.error)
    assert "The demo cannot create the namespace house-prices in kind-slipway" in str(agent.error)
    assert "already exists" in str(agent.error)
    assert (state / "namespaces").read_text() == '{"house-prices": {}}'
    assert not any(" apply " in line for line in asked(state))

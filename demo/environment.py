"""Where the demo plays: a forge, an engine, two environments that follow it, and clients, all below one folder."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo import fork_server
from demo.fakes import cluster
from demo.fakes.agent import Agent, Workload
from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Engine
from demo.fakes.github_repo import Forge
from demo.fakes.github_server import GitHub, State
from demo.fakes.replicas import Replicas
from demo.load import Load
from slipway import artifacts
from slipway.bundle import GOLDEN, Golden
from slipway.errors import InputError
from slipway.integrations import process
from slipway.release.history import PRODUCTION, STAGING

IMAGE = "registry.demo/team/house-prices"
REPLICAS = {STAGING: 1, PRODUCTION: 2}
TESTS = "echo 'The tests take minutes; this scratch repository has its linter look.'\nexec .venv/bin/ruff check src\n"
PATIENCE, PATIENCE_OF_A_CLUSTER = 60, 600
AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")


@dataclass(frozen=True)
class Stage:
    """`clock` is when it was set, in the time of `time.monotonic`. Deliveries arrive in the folder `source`."""

    folder: Path
    source: Path
    forge: Forge
    engine: Engine
    agents: dict[str, Agent]
    programs: Path
    clock: float
    cluster: str | None
    """The context of kubectl where models run; None where they are processes."""

    @property
    def timeout(self) -> int:
        """Seconds until a model that was released has to answer."""
        return PATIENCE_OF_A_CLUSTER if self.cluster else PATIENCE

    def now(self) -> float:
        return time.monotonic() - self.clock

    def run(self, *command: str, at: Path) -> str:
        """Run a program of this environment as a workflow would."""
        variables = self.forge.github.variables() | self.forge.settings | {"COLUMNS": "160"}
        return process.run(str(self.programs / command[0]), *command[1:], at=at, variables=variables)


@contextmanager
def set_up(
    folder: Path, told: Callable[[str, str], None], cold: bool, named: cluster.Cluster | None
) -> Generator[Stage, None, None]:
    """Make it from the last commit of this repository, in `folder`, which is emptied; nothing of it outlives the block.

    `told` hears of each step of a workflow as it begins. Models run in the cluster that was named, or as processes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("source", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    with ExitStack() as stack:
        private = _private(folder)
        stack.enter_context(_variables(private))
        warming = None if cold else stack.enter_context(fork_server.environment(folder / "venv"))
        engine = stack.enter_context(Engine(folder / "engine").serving())
        github = stack.enter_context(GitHub(State(), folder).serving())
        programs = Path(sys.prefix) if cold else folder / "venv"
        settings = private | {"DOCKER_HOST": engine.host, "FORGE_VENV": str(programs)}
        agents = {name: Agent(name, folder / "origin.git", engine, _workload(name, named)) for name in REPLICAS}
        start = _start(folder, {name: agent.balancer.url for name, agent in agents.items()})
        forge = Forge(folder, start, github, told, **settings)
        forge.secrets = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        for agent in agents.values():
            stack.enter_context(agent.following())
        if warming:
            warming()
        context = named.context if named else None
        yield Stage(folder, folder / "source", forge, engine, agents, programs / "bin", time.monotonic(), context)


def _workload(environment: str, named: cluster.Cluster | None) -> Callable[[Balancer], Workload]:
    if named:
        return lambda balancer: cluster.Workload(environment, named, balancer)
    return lambda balancer: Replicas(REPLICAS[environment], balancer)


def _private(folder: Path) -> dict[str, str]:
    """Variables with which programs leave nothing outside of the folder, and mind nobody's settings."""
    (folder / "home/dvc").mkdir()
    (folder / "home/dvc/config").write_text("[core]\n    check_update = false\n    analytics = false\n")
    return {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "home/cache"),
        "XDG_CONFIG_HOME": str(folder / "home/config"),
        "MPLCONFIGDIR": str(folder / "home/matplotlib"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "home/dvc"),
        "DVC_SITE_CACHE_DIR": str(folder / "home/dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "OPENBLAS_NUM_THREADS": "1",
    }


@contextmanager
def _variables(more: dict[str, str]) -> Generator[None, None, None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start(folder: Path, urls: dict[str, str]) -> Path:
    """A clone of the last commit that says what a team says: where images go, who answers, where deliveries arrive."""
    start = folder / "start"
    process.run("git", "clone", "--quiet", "--no-hardlinks", ".", str(start))
    process.run("git", "checkout", "--quiet", "-B", "main", at=start)
    addresses = ", ".join(f"{name}: {url!r}" for name, url in urls.items())
    for old, new in {
        "image: null": f"image: {IMAGE}",
        "urls: {}": f"urls: {{{addresses}}}",
        "source: sample/source": f"source: file://{folder}/source",
    }.items():
        replace(start / artifacts.PARAMS, old, new)
    (start / ".ci/run").write_text(TESTS, encoding="utf-8")
    process.run("git", *AUTHOR, "commit", "--quiet", "--all", "--message", "Say where images and data are", at=start)
    return start


def replace(file: Path, old: str, new: str) -> None:
    """Edit a file of the sample; raises InputError where that is not the sample any more."""
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise InputError(f"The demo plays with the template's own sample, and {file.name} has no {old!r} any more.")
    file.write_text(text.replace(old, new), encoding="utf-8")


def clients(stage: Stage) -> Load:
    """Clients of production, that ask for what its model says of real rows."""
    golden = next(iter(stage.engine.images.values())).folder / "bundle" / GOLDEN
    rows = Golden.model_validate_json(golden.read_bytes()).rows
    return Load(stage.agents[PRODUCTION].balancer.port, rows, stage.clock)

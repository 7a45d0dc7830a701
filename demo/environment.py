"""Set up the demo: a repository on a fake GitHub, a fake container engine, and two environments."""

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
from demo.fakes.github_repo import GitHubRepo
from demo.fakes.github_server import GitHub, State
from demo.fakes.replicas import Replicas
from demo.fakes.workflow_run import OnStep
from demo.logged_requests import LoggedRequests, mark_columns, request_bodies
from slipway import artifacts
from slipway.bundle import SCHEMA, Schema
from slipway.errors import InputError
from slipway.integrations import process
from slipway.release.history import PRODUCTION, STAGING
from slipway.release.load_client import LoadClient

IMAGE = "registry.demo/team/house-prices"
REPLICAS = {STAGING: 1, PRODUCTION: 2}
TESTS = "echo 'The tests take minutes. Here only the linter runs.'\nexec .venv/bin/ruff check src\n"
TIMEOUT_SECONDS, TIMEOUT_SECONDS_IN_A_CLUSTER = 60, 600
AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
PAUSE = 0.1
"""Seconds between an answer and the next request of a client."""
REQUESTS_PER_CONNECTION = 40
"""Number of requests after which a client opens a new connection, as real clients do from time to time."""


@dataclass(frozen=True)
class DemoEnvironment:
    """The services of the demo. All their files are below `folder`. Deliveries are put into the folder `source`.

    `clock` is the value of time.monotonic() when the environment was ready. `cluster` is the kubectl context in which
    models run, or None if models are local processes. In a cluster, requests are not logged.
    """

    folder: Path
    source: Path
    repo: GitHubRepo
    engine: Engine
    agents: dict[str, Agent]
    programs: Path
    clock: float
    cluster: str | None
    logged: LoggedRequests | None

    @property
    def timeout(self) -> int:
        """Time limit in seconds until a released model must answer."""
        return TIMEOUT_SECONDS_IN_A_CLUSTER if self.cluster else TIMEOUT_SECONDS

    def now(self) -> float:
        """Return the seconds since the environment was ready."""
        return time.monotonic() - self.clock

    def run(self, *command: str, at: Path) -> str:
        """Run a program with the environment variables that a workflow has."""
        variables = self.repo.github.variables() | self.repo.settings | {"COLUMNS": "160"}
        return process.run(str(self.programs / command[0]), *command[1:], at=at, variables=variables)

    def clients(self, delivery: Path) -> LoadClient:
        """Create clients that request predictions from production, for the newest sales in a delivery."""
        bundle = next(iter(self.engine.images.values())).folder / "bundle"
        bodies = request_bodies(delivery, Schema.model_validate_json((bundle / SCHEMA).read_bytes()))
        port = self.agents[PRODUCTION].balancer.port
        return LoadClient(port, bodies, PAUSE, REQUESTS_PER_CONNECTION, self.clock)


@contextmanager
def set_up(
    folder: Path, on_step: OnStep, cold: bool, local_cluster: cluster.Cluster | None
) -> Generator[DemoEnvironment, None, None]:
    """Empty `folder`, and set up the environment there from the last commit of this repository.

    At the end of the `with` block, everything is stopped. If `local_cluster` is given, models run in it, and otherwise
    as processes. With `cold`, each program is a new process.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("source", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    with ExitStack() as stack:
        private = _private_variables(folder)
        stack.enter_context(_environment_variables(private))
        fork_server_ready = None if cold else stack.enter_context(fork_server.environment(folder / "venv"))
        engine = stack.enter_context(Engine(folder / "engine").serving())
        github = stack.enter_context(GitHub(State(), folder).serving())
        programs = Path(sys.prefix) if cold else folder / "venv"
        settings = private | {"DOCKER_HOST": engine.host, "FAKE_VENV": str(programs)}
        logged = None if local_cluster else LoggedRequests(folder / "log")
        agents = {
            name: Agent(name, folder / "origin.git", engine, _workload(name, local_cluster, logged))
            for name in REPLICAS
        }
        start = _start(folder, {name: agent.balancer.url for name, agent in agents.items()}, logged)
        repo = GitHubRepo(folder, start, github, on_step, settings)
        repo.secrets["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        repo.variables["SLIPWAY_SCHEDULES"] = "true"
        repo.install_app()
        for agent in agents.values():
            stack.enter_context(agent.following())
        if fork_server_ready:
            fork_server_ready()
        context = local_cluster.context if local_cluster else None
        clock = time.monotonic()
        yield DemoEnvironment(folder, folder / "source", repo, engine, agents, programs / "bin", clock, context, logged)


def _workload(
    environment: str, local_cluster: cluster.Cluster | None, logged: LoggedRequests | None
) -> Callable[[Balancer], Workload]:
    if local_cluster:
        return lambda balancer: cluster.ClusterWorkload(environment, local_cluster, balancer)
    log = logged if environment == PRODUCTION else None
    return lambda balancer: Replicas(REPLICAS[environment], balancer, log)


def _private_variables(folder: Path) -> dict[str, str]:
    """Return environment variables that make programs write files and read settings only below the folder."""
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
def _environment_variables(more: dict[str, str]) -> Generator[None, None, None]:
    """Set environment variables until the `with` block ends."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start(folder: Path, urls: dict[str, str], logged: LoggedRequests | None) -> Path:
    """Clone the last commit, and configure the image, the addresses, the source and the replay, as a team would do."""
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
    if logged:
        mark_columns(start)
        with (start / artifacts.PARAMS).open("a", encoding="utf-8") as params:
            params.write(f"\nreplay:\n  log: file://{logged.joined}\n  feedback: none\n")
    (start / ".ci/run").write_text(TESTS, encoding="utf-8")
    process.run("git", "add", "--all", at=start)
    process.run("git", *AUTHOR, "commit", "--quiet", "--message", "Name the image, the source and the log", at=start)
    return start


def replace(file: Path, old: str, new: str) -> None:
    """Replace a text in a file. Raises InputError if the file does not contain the text exactly once."""
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise InputError(
            f"The demo needs the template's own sample, and {file.name} does not contain {old!r} exactly once."
        )
    file.write_text(text.replace(old, new), encoding="utf-8")

"""Shared fixtures: the command line in this process, a folder to run stages in, and scratch repositories."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import hypothesis
import pandas as pd
import pytest

from demo import fork_server
from slipway import artifacts, cli
from slipway.config import Validate, load_params
from tests.slipway import tools

hypothesis.settings.register_profile("slipway", deadline=None)  # a busy machine must not fail a test
hypothesis.settings.load_profile("slipway")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
ROOT = Path(__file__).parents[2]
TODAY = date(2000, 1, 1)
RULES = Validate(max_invalid_share=0.1)


FOR_CLUSTER_TESTS = {
    f"SLIPWAY_{name}"
    for name in (
        "ARGOCD_HOST",
        "CLUSTER",
        "CPU_REQUEST",
        "FLUX_HOST",
        "IMAGE_A",
        "IMAGE_B",
        "KWOK",
        "ROLLOUTS_HOST",
        "WITHOUT_METRICS",
    )
}


def forget_surroundings() -> None:
    """Remove the variables of a GitHub job and of Slipway, which the tested programs would read."""
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "RUNNER_", "ACTIONS_", "SLIPWAY_")) and name not in FOR_CLUSTER_TESTS:
            del os.environ[name]


def let_idle_threads_sleep() -> None:
    """Let the threads of scikit-learn sleep when they wait for each other, because the workers share the processors.

    By default they wait in a loop, in which a test spends up to half of its time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when scikit-learn is imported


def failed_if_skipped(report: Report) -> Report:
    """Report a skipped test as failed in CI: `make tools` should have installed what it needs."""
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
    return report


def pytest_configure() -> None:
    forget_surroundings()
    let_idle_threads_sleep()
    tools.search()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the missing programs and the number of skipped tests, after pytest's own summary."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if reporter and not hasattr(config, "workerinput"):
        for line in tools.summary(reporter.stats.get("skipped", [])):
            reporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Report a skipped module as failed in CI."""
    return failed_if_skipped((yield))


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def slipway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a verb in this process, like `slipway VERB`."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["slipway", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return Result(int(stop.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def sales() -> pd.DataFrame:
    """A thousand real sales of 1997H2, all accepted by the schema, as text."""
    rows = pd.read_csv(ROOT / "sample/source/1997H2.csv", dtype=str)
    return rows[rows["year_built"].astype(int) < 1997].head(1000).reset_index(drop=True)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sales: pd.DataFrame) -> Path:
    """A folder to run stages in, with faster settings in params.yaml, two small deliveries, and no champion."""
    write_workplace(tmp_path, sales)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_workplace(folder: Path, sales: pd.DataFrame) -> None:
    params = folder / "params.yaml"
    shutil.copy(ROOT / "params.yaml", params)
    for old, new in {
        "max_iter: 200": "max_iter: 30",
        "days: 60": "days: 20",
        "minimum_rows: 300": "minimum_rows: 50",
    }.items():
        edit(params, old, new)
    for each in ("data", "champion", "metrics"):
        (folder / each).mkdir()
    (folder / "metrics/release.json").write_text('{"champion": null}')
    sales.iloc[:600].to_csv(folder / "data/1997A.csv", index=False)
    later = sales.iloc[600:]
    later[later["sale_date"] > sales["sale_date"][599]].to_csv(folder / "data/1997B.csv", index=False)


@pytest.fixture(scope="session")
def trained_workplace(sales: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `workplace`, in which the model was trained. Tests must not change it."""
    import model
    from slipway.pipeline import split, train, validate

    folder = tmp_path_factory.mktemp("trained")
    write_workplace(folder, sales)
    with contextlib.chdir(folder):
        params = load_params(artifacts.PARAMS)
        validate.run(params, model, TODAY)
        split.run(params, model)
        train.run(params, model)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that occurs exactly once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


class Repository:
    """A scratch copy of this repository, with commands that run its own code."""

    programs = COLD = Path(sys.executable).parent
    """The folder of `slipway` and `dvc`. The fixture `warm_environment` replaces it, so that they start faster."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = os.environ | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(path / "src"),
            "DVC_NO_ANALYTICS": "1",
            "COLUMNS": "200",
        }

    @property
    def cold(self) -> dict[str, str]:
        """The environment for starting each program as a new process, as a user does."""
        return self.environment | {"PATH": f"{self.COLD}{os.pathsep}{self.environment['PATH']}"}

    def run(self, *command: str, **variables: str) -> Result:
        done = subprocess.run(
            command, cwd=self.path, env=self.environment | variables, capture_output=True, text=True, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def must(self, *command: str, **variables: str) -> str:
        result = self.run(*command, **variables)
        assert result.code == 0, f"{command}: {result.out}\n{result.err}"
        return result.out

    def edit(self, file: str, old: str, new: str) -> None:
        edit(self.path / file, old, new)

    def commit(self, message: str) -> None:
        self.must("git", "add", "--all")
        self.must("git", "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", message)

    def clone(self, path: Path) -> "Repository":
        self.must("git", "clone", "--quiet", "--no-hardlinks", str(self.path), str(path))
        return Repository(path)


class Origin(Repository):
    """A repository that does not change. Its clones are copies of a first clone, which is faster than `git clone`."""

    def clone(self, path: Path) -> Repository:
        first = self.path.with_name("clone")
        if not first.exists():
            cloned = super().clone(first)
            # Otherwise git would read each copied file again, because the copy has another inode.
            cloned.must("git", "config", "core.checkStat", "minimal")
            cloned.must("git", "config", "core.trustCtime", "false")
        self.must("cp", "-a", str(first), str(path))
        return Repository(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that only one process at a time runs the block."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def warm_environment(of_all_workers: Path) -> Iterator[Path]:
    """Programs that start at once, as in the demo: forks of a process that has imported the libraries.

    One worker starts this process for all, and ends it when no other worker uses it.
    """
    folder = of_all_workers / "warm"
    with (
        folder.with_suffix(".users").open("w") as users,
        contextlib.ExitStack() as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        fcntl.flock(users, fcntl.LOCK_SH)
        with locked(folder.with_suffix(".lock")):
            if not folder.exists():
                started = stack.enter_context(fork_server.environment(folder))
                stack.callback(fcntl.flock, users, fcntl.LOCK_EX)  # waits for the other workers
                started()
        patch.setattr(Repository, "programs", folder / "bin")
        yield folder


@pytest.fixture
def warmly(warm_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs that this process starts by `sys.executable` start at once, too."""
    monkeypatch.setattr(sys, "executable", str(warm_environment / "bin/python"))


@pytest.fixture(scope="session")
def origin(warm_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Origin:  # noqa: ARG001
    """The working tree, with uncommitted changes, as a repository with one commit."""
    path = tmp_path_factory.mktemp("origin") / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    repository = Origin(path)
    repository.must("git", "init", "--quiet", "--initial-branch=main")
    repository.commit("Start")
    return repository


@pytest.fixture(scope="session")
def empty_registry(of_all_workers: Path) -> Path:
    """The database of a registry of MLflow without entries. To create its tables takes seconds, so tests copy it."""
    made = of_all_workers / "registry.db"
    with locked(made.with_suffix(".lock")):
        if not made.exists():
            import mlflow

            mlflow.MlflowClient(f"sqlite:///{made.with_suffix('.part')}").search_experiments()
            made.with_suffix(".part").rename(made)
    return made


@pytest.fixture(scope="session")
def delivered(origin: Repository, of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone in which the delivery 1997H2 was ingested and judged. Tests must not change it.

    One worker creates it, because that takes long, and each worker has a copy.
    """
    made = of_all_workers / "delivered"
    with locked(made.with_suffix(".lock")):
        if not made.exists():
            repository = origin.clone(made.with_suffix(".part"))
            repository.must("dvc", "pull", "--quiet")
            repository.must("slipway", "ingest")
            repository.must("dvc", "repro")
            repository.path.rename(made)
    return Repository(Path(shutil.copytree(made, tmp_path_factory.mktemp("delivered") / "repository", symlinks=True)))


@pytest.fixture
def judged(origin: Origin, tmp_path: Path, delivered: Repository) -> Callable[[str], Repository]:
    """Make a clone in which 1997H2 is ingested and judged, including the DVC cache."""

    def make(name: str) -> Repository:
        repository = origin.clone(tmp_path / name)
        cache = Path(".dvc/cache")
        repository.must("cp", "-r", str(delivered.path / cache), str(repository.path / cache))
        for file in ("data.dvc", "dvc.lock", "metrics/evaluation.json", "metrics/verdict.json"):
            repository.must("cp", str(delivered.path / file), file)
        repository.must("dvc", "checkout", "--quiet")
        return repository

    return make


@pytest.fixture
def clone(origin: Repository, tmp_path: Path) -> Callable[[str], Repository]:
    """Make a fresh clone with a given name and its own DVC cache."""
    return lambda name: origin.clone(tmp_path / name)

"""Time a pull request from the start of the job to the report: `python -m benchmarks.pull_request`.

The benchmark reads the steps of the job `model` from .github/workflows/pull-request.yml and runs them in fresh clones
of the last commit, for a pull request that adds the delivery 1997H2. The first job runs every stage. The second job
restores the model, because a DVC remote contains the run-cache of the first job.

Caches are warm, as on a machine that has run the job before: the Python environment consists of hard links to the
current environment. On GitHub, a runner unpacks the environment from an archive instead. The time for unpacking is
printed separately and is not included in the totals.

Required on two cores: at most 45 seconds, and at most 15 seconds if the model is restored.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.table import Table

from benchmarks.scratch import BIN, REPOSITORY, clone, console, exit_with, require
from slipway.errors import SlipwayError
from slipway.integrations import process

WORKFLOW = REPOSITORY / ".github/workflows/pull-request.yml"
LAST = "slipway report"
MOST_SECONDS = {"a new delivery": 45, "the same delivery, restored": 15}
ARCHIVE = ("tar", "--use-compress-program=zstd -T0", "-cf")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        origin, remote = _pull_request(scratch), scratch / "remote"
        first = _job(origin, scratch / "first", None)
        _push_runs(scratch / "first", remote)
        restored = _job(origin, scratch / "restored", remote)
        unpacking = _unpacking(scratch)
    jobs = dict(zip(MOST_SECONDS, (first, restored), strict=True))
    console.print(_table(jobs))
    console.print(
        f"Unpacking the environment from an archive, as GitHub's runners do, would take {unpacking:.1f} s more."
    )
    totals = {name: sum(steps.values()) for name, steps in jobs.items()}
    return require(
        {f"{name}: at most {most} s ({totals[name]:.1f})": totals[name] <= most for name, most in MOST_SECONDS.items()}
    )


def _pull_request(scratch: Path) -> Path:
    """Create a repository whose branch `delivery` adds 1997H2. Its DVC remote has the data, but no stage results."""
    origin = clone(scratch / "origin", "data.dvc", "champion.dvc")
    process.run("git", "checkout", "--quiet", "-b", "delivery", at=origin)
    process.run("slipway", "ingest", at=origin)
    process.run("dvc", "push", "--quiet", "data.dvc", at=origin)
    process.run("git", "add", "--all", at=origin)
    process.run(
        *("git", "-c", "user.name=B", "-c", "user.email=b@localhost", "commit", "--quiet", "-m", "Ingest 1997H2"),
        at=origin,
    )
    return origin


def _job(origin: Path, place: Path, remote: Path | None) -> dict[str, float]:
    """Run the steps of the job up to the report. Return the seconds that each step took."""
    took = {"checkout": _seconds(["git", "clone", "--quiet", "--no-hardlinks", str(origin), str(place)], place.parent)}
    took["the environment"] = _seconds(["cp", "-al", sys.prefix, str(place / ".venv")], place)
    if remote:
        process.run("dvc", "remote", "add", "--quiet", "--local", "--default", "runs", str(remote), at=place)
    for step in yaml.safe_load(WORKFLOW.read_text())["jobs"]["model"]["steps"]:
        if "run" in step:
            took[step["run"]] = _seconds(step["run"].split(), place)
            if step["run"] == LAST:
                return took
    raise SlipwayError(f"{WORKFLOW.name}: the job `model` has no step `{LAST}`; correct this benchmark.")


def _seconds(command: list[str], at: Path) -> float:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "PYTHONPATH": "src", "DVC_NO_ANALYTICS": "1"}
    start = time.monotonic()
    done = subprocess.run(command, cwd=at, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlipwayError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def _push_runs(repository: Path, remote: Path) -> None:
    """Push the stage results and the base branch's data, as `make push` does with a configured remote."""
    process.run("dvc", "remote", "add", "--quiet", "--local", "--default", "runs", str(remote), at=repository)
    process.run("dvc", "push", "--quiet", "--run-cache", at=repository)
    process.run("git", "checkout", "--quiet", "origin/main", "--", "data.dvc", at=repository)
    process.run("dvc", "pull", "--quiet", "--remote", "sample", "data.dvc", at=repository)
    process.run("dvc", "push", "--quiet", "data.dvc", at=repository)


def _unpacking(scratch: Path) -> float:
    archive, place = scratch / "environment.tar.zst", scratch / "unpacked"
    place.mkdir()
    subprocess.run([*ARCHIVE, str(archive), "-C", sys.prefix, "."], check=True)
    took = _seconds([*ARCHIVE[:2], "-xf", str(archive), "-C", str(place)], scratch)
    shutil.rmtree(place)
    return took


def _table(jobs: dict[str, dict[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), caption="Seconds.", caption_justify="left")
    table.add_column("")
    for name in jobs:
        table.add_column(name, justify="right")
    for step in next(iter(jobs.values())):
        table.add_row(step, *(f"{took[step]:.1f}" for took in jobs.values()))
    table.add_row("in all", *(f"{sum(took.values()):.1f}" for took in jobs.values()), style="bold")
    return table


if __name__ == "__main__":
    exit_with(main)

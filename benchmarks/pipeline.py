"""Measure the time of the pipeline: `python -m benchmarks.pipeline`.

There are three cases: without earlier results, with nothing to do, and restored from the run-cache of another clone.
The pipeline runs in scratch clones of the last commit. A wrapper around `slipway` records which stages ran and for how
long, so the numbers do not depend on the output of DVC.

Required on two cores: at most 30 seconds without earlier results, 3 seconds with nothing to do, and 8 seconds if
restored. A restored run must not run `train`.

For the restored run, one clone ingests a delivery, runs the pipeline, and pushes its runs with `dvc push --run-cache`.
The push follows directly after the run, because it includes only the outputs that the current dvc.lock contains. A
second clone of the same commit has only the data and the champion. It ingests the same delivery and runs `dvc repro
--pull`. The second clone's dvc.lock does not contain the results of the first clone, so they come from the run-cache.
`evaluate` and `gate` run again, because their metrics are tracked by git instead of DVC.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.scratch import BIN, clone, console, environment, exit_with, require
from slipway.errors import SlipwayError
from slipway.integrations import process

STAGES = ("validate", "split", "train", "evaluate", "gate")
TRACKED = ("data.dvc", "champion.dvc")
REMOTE = "runs"
MOST_SECONDS = {"clean": 30, "nothing to do": 3, "restored": 8}

WRAPPER = """#!{python}
import json, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(["{slipway}", *sys.argv[1:]])
with open("{log}", "a") as log:
    log.write(json.dumps([sys.argv[1], time.monotonic() - start]) + chr(10))
sys.exit(code)
"""


@dataclass(frozen=True)
class Run:
    """The time of one `dvc repro`, and the stages that it ran, each with its time in seconds."""

    seconds: float
    stages: tuple[tuple[str, float], ...]

    def times(self, stage: str) -> int:
        """Return how often a stage ran."""
        return sum(name == stage for name, _ in self.stages)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        remote = scratch / "remote"
        first = clone(scratch / "first", *TRACKED)
        runs = {
            # Without `--force`, the gate would not run, because its inputs would equal those of the commit.
            "clean": repro(first, "--force"),
            "nothing to do": repro(first),
        }
        _ingest_delivery(first, remote)
        runs["a new delivery"] = repro(first)
        process.run("dvc", "push", "--quiet", "--run-cache", at=first)

        second = clone(scratch / "second", *TRACKED, of=first)
        _ingest_delivery(second, remote)
        runs["restored"] = repro(second, "--pull")
    console.print(_table(runs))
    requirements = {
        f"{name}: at most {most} seconds ({runs[name].seconds:.1f})": runs[name].seconds <= most
        for name, most in MOST_SECONDS.items()
    }
    requirements["nothing to do: no stage ran"] = not runs["nothing to do"].stages
    trained = runs["restored"].times("train")
    requirements[f"restored: train ran 0 times ({trained}), after running once in the first clone"] = (
        trained == 0 and runs["a new delivery"].times("train") == 1
    )
    return require(requirements)


def repro(repository: Path, *options: str) -> Run:
    """Run `dvc repro` with a wrapper around `slipway` that records each stage.

    Raises SlipwayError with the whole output if the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        log, wrapper = Path(folder) / "log", Path(folder) / "slipway"
        log.touch()
        wrapper.write_text(WRAPPER.format(python=sys.executable, slipway=BIN / "slipway", log=log), encoding="utf-8")
        wrapper.chmod(0o755)
        start = time.monotonic()
        done = subprocess.run(
            [BIN / "dvc", "repro", *options],
            cwd=repository,
            env=environment(repository, Path(folder)),
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
        if done.returncode:
            raise SlipwayError(f"`dvc repro {' '.join(options)}` failed:\n{done.stdout}{done.stderr}")
        lines = log.read_text(encoding="utf-8").splitlines()
    return Run(seconds, tuple((name, float(took)) for name, took in map(json.loads, lines)))


def _ingest_delivery(repository: Path, remote: Path) -> None:
    """Ingest the next delivery, and make `remote` the default remote, because `dvc repro --pull` reads no other."""
    process.run("slipway", "ingest", at=repository)
    process.run("dvc", "remote", "add", "--quiet", "--local", "--default", REMOTE, str(remote), at=repository)


def _table(runs: dict[str, Run]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), caption="Seconds. A dash: did not run.", caption_justify="left")
    table.add_column("dvc repro")
    for title in ("in all", *STAGES, "DVC itself"):
        table.add_column(title, justify="right")
    for name, run in runs.items():
        took = dict(run.stages)
        parts = [f"{took[stage]:.1f}" if stage in took else "-" for stage in STAGES]
        table.add_row(name, f"{run.seconds:.1f}", *parts, f"{run.seconds - sum(took.values()):.1f}")
    return table


if __name__ == "__main__":
    exit_with(main)

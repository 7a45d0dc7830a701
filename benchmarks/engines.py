"""Measure each engine of `compute`: `python -m benchmarks.engines`.

`slipway validate` checks about 500 deliveries with 1 million rows in total. `slipway evaluate` evaluates two models on
the newest 700 days of these rows. `slipway score` scores eight Parquet files with 250,000 rows each. Each verb runs
with one process, with two processes, and with a Dask cluster of two workers on this machine. All engines must write the
same bytes. The times include the start of Python.

Required: two processes and two workers need less time than one process. The machine needs two idle cores.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from subprocess import DEVNULL, Popen

from ruamel.yaml import YAML

from benchmarks.growth import allow_faults, move_real_rows, write_deliveries
from benchmarks.scoring import write_rows
from benchmarks.scratch import BIN, clone, console, environment, exit_with, require, run_measured
from slipway import artifacts

PARTS = 8
DAYS = 700
"""The holdout in days. It has to be larger than a part that one process scores."""
ADDRESS = "tcp://127.0.0.1:28786"
ENGINES = {
    "one process": {"engine": "local"},
    "two processes": {"engine": "local", "processes": 2},
    "two Dask workers": {"engine": "dask", "address": ADDRESS},
}
OUTPUTS = {
    "validate": (artifacts.VALIDATED, artifacts.QUARANTINE, artifacts.VALIDATION),
    "evaluate": (artifacts.EVALUATION, artifacts.SCORES),
    "score": (Path("build/scored"),),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="Rows of all deliveries.")
    parser.add_argument("--scored-rows", type=int, default=250_000, help="Rows of each file to score.")
    options = parser.parse_args()
    requirements = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = clone(folder / "repository", "data.dvc", "champion.dvc")
        _write_input(repository, folder, options.rows, options.scored_rows)
        rows = {"validate": options.rows, "score": PARTS * options.scored_rows}
        with _cluster(repository):
            for verb in OUTPUTS:
                if verb == "evaluate":
                    run_measured(repository, BIN / "slipway", "split")
                    run_measured(repository, BIN / "slipway", "train")
                    rows[verb] = _held_out(repository)
                requirements |= _compare(repository, folder, verb, rows[verb])
    return require(requirements)


def _write_input(repository: Path, folder: Path, rows: int, scored_rows: int) -> None:
    """Write the deliveries and the files to score. Other processes write them, so that their memory is freed."""
    _in_child(write_rows, repository, folder, scored_rows)
    (folder / "in").mkdir()
    for part in range(PARTS):
        shutil.copy(folder / "rows.parquet", folder / f"in/{part}.parquet")
    real = move_real_rows(repository, folder / "real")
    allow_faults(repository / "params.yaml")
    _set(repository, "split", days=DAYS)
    _in_child(write_deliveries, real, repository / "data", rows)


def _in_child(work: object, *arguments: object) -> None:
    child = get_context("spawn").Process(target=work, args=arguments)  # type: ignore[arg-type]
    child.start()
    child.join()


def _held_out(repository: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(repository / artifacts.HOLDOUT).num_rows)


def _compare(repository: Path, folder: Path, verb: str, rows: int) -> dict[str, bool]:
    """Run a verb with each engine, and print the times. Return the requirements, and whether they hold."""
    seconds, written = {}, []
    arguments = (folder / "in", "build/scored") if verb == "score" else ()
    for engine, settings in ENGINES.items():
        _set(repository, "compute", **settings)
        for kept in (artifacts.CHECKED, Path("build/scored")):
            shutil.rmtree(repository / kept, ignore_errors=True)
        seconds[engine] = run_measured(repository, BIN / "slipway", verb, *arguments).seconds
        written.append({str(path): _hash(repository / path) for path in OUTPUTS[verb]})
    one = seconds["one process"]
    for engine, time in seconds.items():
        console.print(
            f"{verb}, {engine}: {time:.1f} s, {rows / time:,.0f} rows per second, {one / time:.2f} times as fast"
        )
    return {f"{verb}: all engines write the same bytes": written[1:] == written[:-1]} | {
        f"{verb}: {engine} are faster than one process": seconds[engine] < one for engine in [*ENGINES][1:]
    }


def _set(repository: Path, section: str, **values: object) -> None:
    """Set values in a section of params.yaml."""
    tree = YAML().load(repository / "params.yaml")
    tree[section] = {**tree.get(section, {}), **values} if section != "compute" else values
    YAML().dump(tree, repository / "params.yaml")


@contextmanager
def _cluster(repository: Path) -> Iterator[None]:
    """Run a Dask scheduler and two workers."""
    import distributed

    options = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    worker = ("worker", ADDRESS, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", ADDRESS.rpartition(":")[2])
    with ExitStack() as stack:
        for command in (scheduler, worker, worker):
            process = Popen(
                [sys.executable, "-m", "dask", *command, *options],
                cwd=repository,
                env=environment(repository),
                stdout=DEVNULL,
                stderr=DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        with distributed.Client(ADDRESS, timeout=60) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(2, timeout=60)
        yield


def _hash(path: Path) -> str:
    """Return a hash of a file, or of all files in a folder."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return sha256(b"".join(each.name.encode() + each.read_bytes() for each in files)).hexdigest()


if __name__ == "__main__":
    exit_with(main)

"""Measure `slipway score` with each engine of `compute`: `python -m benchmarks.engines`.

Eight Parquet files with 250,000 rows each repeat the real rows that the server accepts. The files are scored by one
process, by two processes, and by a Dask cluster with two workers on this machine. All engines must write the same
bytes. The times include the start of Python.

Required: two processes and two workers need less time than one process. The machine needs two idle cores.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from subprocess import DEVNULL, Popen

from benchmarks.scoring import write_rows
from benchmarks.scratch import BIN, clone, console, environment, exit_with, require, run_measured

PARTS = 8
ADDRESS = "tcp://127.0.0.1:28786"
ENGINES = {
    "one process": "{engine: local}",
    "two processes": "{engine: local, processes: 2}",
    "two Dask workers": f"{{engine: dask, address: '{ADDRESS}'}}",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000, help="Rows of each file.")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = clone(folder / "repository", "data.dvc", "champion.dvc")
        child = get_context("spawn").Process(target=write_rows, args=(repository, folder, rows))
        child.start()
        child.join()
        (folder / "in").mkdir()
        for part in range(PARTS):
            shutil.copy(folder / "rows.parquet", folder / f"in/{part}.parquet")
        settings = (repository / "params.yaml").read_text()
        seconds = {}
        with _cluster(repository):
            for engine, compute in ENGINES.items():
                (repository / "params.yaml").write_text(f"{settings}\ncompute: {compute}\n")
                output = folder / engine.replace(" ", "-")
                seconds[engine] = run_measured(repository, BIN / "slipway", "score", folder / "in", output).seconds
        written = [_files(folder / engine.replace(" ", "-")) for engine in ENGINES]
    one = seconds["one process"]
    for engine, time in seconds.items():
        console.print(
            f"{engine}: {time:.1f} s, {PARTS * rows / time:,.0f} rows per second, {one / time:.2f} times as fast"
        )
    return require(
        {"all engines write the same bytes": written[1:] == written[:-1]}
        | {f"{engine} are faster than one": seconds[engine] < one for engine in list(ENGINES)[1:]}
    )


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


def _files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


if __name__ == "__main__":
    exit_with(main)

"""Measure how time and memory of the pipeline grow with the data: `python -m benchmarks.growth`.

Every stage runs with 25 thousand, 250 thousand, 1 million and 10 million rows. The rows are drawn with replacement from
the real rows, including invalid ones. Lot size, frontage and position are changed a little, so that keys differ. The
rows are split by time into deliveries of the usual size, so more rows mean more deliveries. The holdout consists of the
newest days and grows with the data.

Required: the CPU time grows no faster than the number of rows. Because the start of Python takes seconds at any size,
the benchmark compares the CPU time per additional row between two sizes. From 25 to 250 thousand rows, this time is
measured. From 250 thousand to 1 million rows, and from there to 10 million rows, it may be at most 25% higher. The 25%
allow for noise from clocks and caches. CPU time is compared, because other programs on the machine affect it less than
the time on the clock. The limit applies to the whole pipeline, and to each stage that takes at least a tenth of the
total CPU time.

No stage may need more than 3 GB at 1 million rows. The stages `validate`, `split` and `evaluate` read the rows in
parts, and may need at most 1.5 GB at 10 million rows. `train` has all rows in memory, so its limit depends on the
model.

The time of `validate` must depend on the number of rows rather than on the number of deliveries. It may take 20 seconds
for 1 million rows in about 500 deliveries, 10 seconds for 1,000 deliveries with 25 rows each, and 3 seconds after one
more such delivery.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from ruamel.yaml import YAML

from benchmarks.scratch import BIN, clone, console, exit_with, require, run_measured
from slipway.errors import SlipwayError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from slipway.contract import Model

STAGES = ("validate", "split", "train", "evaluate", "gate")
SIZES = (25_000, 250_000, 1_000_000, 10_000_000)
IN_PARTS = ("validate", "split", "evaluate")
IN_ALL = "in all"
MOST_GROWTH = 1.25
LEAST_SHARE = 0.1  # share of the whole time. Shorter stages are mostly start-up, and their growth is mostly noise.
MOST_GIGABYTES, MOST_GIGABYTES_IN_PARTS = 3.0, 1.5
MOST_SECONDS, MOST_SECONDS_DAILY, MOST_SECONDS_ONE_MORE = 20.0, 10.0, 3.0
DAYS, DAILY_ROWS = 1_000, 25
MOST_ROWS_IN_MEMORY = 10_000_000
"""The most rows that are generated at a time. More rows are generated period by period."""


@dataclass(frozen=True)
class Cost:
    """The time on the clock, the CPU time and the peak memory of a stage at one size."""

    seconds: float
    cpu_seconds: float
    gigabytes: float


def main() -> int:
    costs: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc", "champion.dvc")
        real = move_real_rows(repository, Path(folder) / "real")
        allow_faults(repository / "params.yaml")
        for size in SIZES:
            generate(real, repository / "data", size)
            for stage in STAGES:
                costs[stage, size] = run(stage, repository)
                console.print(f"[dim]{size:,} rows: {_took(stage, costs[stage, size])}[/]")
        daily, one_more = _daily(real, repository)
    for size in SIZES:
        parts = [costs[stage, size] for stage in STAGES]
        costs[IN_ALL, size] = Cost(
            sum(part.seconds for part in parts),
            sum(part.cpu_seconds for part in parts),
            max(part.gigabytes for part in parts),
        )
    console.print()
    console.print(_table(costs))
    return require({**_requirements(costs), **_validation_requirements(costs, daily, one_more)})


def move_real_rows(repository: Path, to: Path) -> Path:
    """Move the deliveries of a repository to a new folder, together with those that it has not ingested."""
    (repository / "data").rename(to)
    for file in (repository / "sample/source").glob("*.csv"):
        shutil.copyfile(file, to / file.name)
    return to


def allow_faults(params: Path) -> None:
    """Allow any share of invalid rows.

    Deliveries cover few days here, so some contain mostly copies of days with bad rows.
    """
    tree = YAML().load(params)
    tree["validate"]["max_invalid_share"] = 0.99
    YAML().dump(tree, params)


def _daily(real: Path, repository: Path) -> tuple[Cost, Cost]:
    """Measure `validate` on many small deliveries, and then again after one more delivery."""
    generate(real, repository / "data", (DAYS + 1) * DAILY_ROWS, DAILY_ROWS)
    newest = max((repository / "data").iterdir())
    later = newest.rename(repository / newest.name)
    shutil.rmtree(repository / "build/deliveries")
    daily = run("validate", repository)
    later.rename(newest)
    return daily, run("validate", repository)


def generate(real: Path, to: Path, rows: int, size: int | None = None) -> None:
    """Write deliveries in another process, because on Linux a child starts with the peak memory of its parent."""
    maker = get_context("spawn").Process(target=write_deliveries, args=(real, to, rows, size))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SlipwayError(f"Generating {rows:,} rows failed; see above.")


def write_deliveries(real: Path, to: Path, rows: int, size: int | None = None) -> None:
    """Write deliveries of `size` rows, by default the usual size, into the folder `to`, with `rows` rows in total."""
    import numpy as np
    import pandas as pd

    from slipway.contract import load_model

    model = load_model()
    random = np.random.default_rng(rows)
    files = sorted(real.glob("*.csv"))
    sales = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    sales = sales.sort_values(str(model.TIME), kind="stable", ignore_index=True)
    usual = size or len(sales) // len(files)
    periods = -(-rows // MOST_ROWS_IN_MEMORY)
    starts = _starts_of_days(sales[str(model.TIME)].to_numpy(), periods)
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    number = 0
    for period in range(periods):
        wanted = rows * (period + 1) // periods - rows * period // periods
        drawn = _draw(sales.iloc[starts[period] : starts[period + 1]], wanted, model, random)
        for start in range(0, wanted, usual):
            drawn.iloc[start : start + usual].to_csv(to / f"{number:05}.csv", index=False)
            number += 1


def _starts_of_days(days: np.ndarray, periods: int) -> list[int]:
    """Return where each period starts in sorted `days`, and their end. A day is never split."""
    import numpy as np

    cuts = [days[len(days) * period // periods] for period in range(periods)]
    return [*np.searchsorted(days, cuts).tolist(), len(days)]


def _draw(sales: pd.DataFrame, rows: int, model: Model, random: np.random.Generator) -> pd.DataFrame:
    """Draw `rows` rows with unique keys, in the order of their time. Raises SlipwayError if too few keys differ."""
    drawn = sales.iloc[random.integers(0, len(sales), rows + rows // 20)].reset_index(drop=True)
    for name, step, decimals in (
        ("lot_size_sqft", 200, 0),
        ("frontage_ft", 2, 0),
        ("latitude", 0.005, 3),
        ("longitude", 0.005, 3),
    ):
        bounds = model.SCHEMA.columns[name].checks[0].statistics
        moved = (drawn[name] + random.uniform(-step, step, len(drawn))).round(decimals)
        drawn[name] = moved.clip(bounds["min_value"], bounds["max_value"]).astype(drawn[name].dtype)
    drawn = drawn.drop_duplicates(list(model.KEY)).iloc[:rows].sort_values(str(model.TIME), kind="stable")
    if len(drawn) < rows:
        raise SlipwayError(f"Only {len(drawn):,} of {rows:,} rows have unique keys; change the rows more.")
    return drawn


def run(stage: str, repository: Path) -> Cost:
    """Run one stage and wait for it. Raises SlipwayError with its output if it fails."""
    usage = run_measured(repository, BIN / "slipway", stage)
    return Cost(usage.seconds, usage.cpu_seconds, usage.memory / 1e9)


def _took(stage: str, cost: Cost) -> str:
    return f"{stage} took {cost.seconds:.1f} seconds, and {cost.cpu_seconds:.1f} seconds of CPU time"


def _further_row(costs: dict[tuple[str, int], Cost], stage: str, low: int, high: int) -> float:
    """Return the CPU time for each additional row between `low` and `high` rows, in microseconds."""
    return (costs[stage, high].cpu_seconds - costs[stage, low].cpu_seconds) / (high - low) * 1e6


def _table(costs: dict[tuple[str, int], Cost]) -> Table:
    others = SIZES[1:]
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        caption="s: seconds of CPU time; GB: peak resident memory",
        caption_justify="left",
    )
    table.add_column("slipway")
    for size in SIZES:
        table.add_column(f"{size:,}\nrows, s", justify="right")
        table.add_column("\nGB", justify="right", style="dim")
    for number, size in enumerate(others):
        table.add_column(f"{'' if number else 'CPU µs per additional row,'}\nto {size:,}", justify="right")
    for stage in (*STAGES, IN_ALL):
        cells = [
            text
            for size in SIZES
            for text in (f"{costs[stage, size].cpu_seconds:.1f}", f"{costs[stage, size].gigabytes:.2f}")
        ]
        prices = [_further_row(costs, stage, low, high) for low, high in itertools.pairwise(SIZES)]
        table.add_row(stage, *cells, *(f"{price:.1f}" for price in prices))
    return table


def _requirements(costs: dict[tuple[str, int], Cost]) -> dict[str, bool]:
    small, middle, large, largest = SIZES
    requirements = {}
    for low, high in ((middle, large), (large, largest)):
        for stage in (IN_ALL, *STAGES):
            if costs[stage, high].cpu_seconds < LEAST_SHARE * costs[IN_ALL, high].cpu_seconds:
                continue
            rise = _further_row(costs, stage, low, high) / _further_row(costs, stage, small, middle)
            requirements[
                f"{stage} to {high:,} rows: a row takes at most {MOST_GROWTH:g} times the CPU time ({rise:.2f})"
            ] = rise <= MOST_GROWTH
    most = costs[IN_ALL, large].gigabytes
    requirements[f"at most {MOST_GIGABYTES:g} GB at {large:,} rows ({most:.2f})"] = most <= MOST_GIGABYTES
    for stage in IN_PARTS:
        most = costs[stage, largest].gigabytes
        requirements[f"{stage}: at most {MOST_GIGABYTES_IN_PARTS:g} GB at {largest:,} rows ({most:.2f})"] = (
            most <= MOST_GIGABYTES_IN_PARTS
        )
    return requirements


def _validation_requirements(costs: dict[tuple[str, int], Cost], daily: Cost, one_more: Cost) -> dict[str, bool]:
    whole = costs["validate", SIZES[2]].seconds
    bounds = (
        (f"{SIZES[2]:,} rows in deliveries of the usual size", whole, MOST_SECONDS),
        (f"{DAYS:,} deliveries of {DAILY_ROWS} rows", daily.seconds, MOST_SECONDS_DAILY),
        ("one more delivery of that size", one_more.seconds, MOST_SECONDS_ONE_MORE),
    )
    return {
        f"validate: {what} in at most {most:g} s ({seconds:.1f})": seconds <= most for what, seconds, most in bounds
    }


if __name__ == "__main__":
    exit_with(main)

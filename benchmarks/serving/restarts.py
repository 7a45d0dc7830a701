"""Count the requests that a rolling restart loses: `python -m benchmarks.serving.restarts`, on Linux, with HAProxy.

Two instances of the server run behind HAProxy. Clients post single records at random times, 500 per second over 50
keep-alive connections. They do not retry, so that each lost request is counted. Meanwhile, the instances are restarted
in turn, 20 times. A restart sends SIGTERM, waits for the exit code, and starts the server again. Then it waits until
the server is ready and HAProxy sends connections to it.

HAProxy is configured to behave like a Kubernetes Service and to hide no failure:

- TCP mode: it forwards bytes without parsing requests, so it cannot retry a request. A connection stays with its
instance until the server (`Connection: close`) or the client closes it. - It checks /readyz every 200 ms. One failure
removes an instance, and one success adds it again. New connections go only to ready instances, and existing connections
stay. - `retries 0` and no redispatch: a connection that an instance does not accept is not sent to another.

The grace period is as long as ten checks, so that an instance serves until HAProxy has removed it. With `--grace 0`,
requests are lost as expected, because new connections arrive after the server has stopped listening.
"""

import argparse
import asyncio
import csv
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop
from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.open_loop import Clients, Outcome, post
from benchmarks.serving.processes import Server, exchange, start_slipway, take_load_core
from benchmarks.serving.records import encode, read_records
from slipway.errors import SlipwayError
from slipway.integrations.ports import free_port

RATE = 500.0
CONNECTIONS = 50
RESTARTS = 20
GRACE = 2.0  # seconds
CONFIGURATION = """
global
    nbthread 1
    stats socket {control} mode 600 level user
defaults
    mode tcp
    retries 0
    no option redispatch
    timeout connect 1s
    timeout client 60s
    timeout server 60s
listen model
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 200ms fall 1 rise 1
    server first 127.0.0.1:{first}
    server second 127.0.0.1:{second}
"""


def main() -> int:
    arguments = _arguments()
    take_load_core()
    wires = [post("/predict", encode(record)) for record in read_records(256)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        instances = Instances(Path(folder), arguments.python, arguments.grace)
        stack.callback(instances.stop)
        balancer = stack.enter_context(haproxy(Path(folder), [each.port for each in instances.running]))
        outcome = uvloop.run(_restart_under_load(balancer, instances, wires, arguments.restarts))
    console.print(_table(outcome))
    restarts = len(instances.exit_codes)
    console.print(
        f"\n{restarts} restarts in {outcome.seconds:.0f} s; exit codes: {sorted(set(instances.exit_codes))}. "
        f"From SIGTERM to ready again: {sum(instances.seconds) / restarts:.1f} s on average."
    )
    others = {status: count for status, count in outcome.statuses.items() if status != 200}
    return require(
        {
            f"every request is answered (failures: {_words(outcome.failures)})": not outcome.failures,
            f"every answer is 200 (others: {_words(others)})": not others,
            f"every exit code is 0, in {restarts} restarts": set(instances.exit_codes) == {0},
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=RESTARTS, help="number of restarts")
    parser.add_argument("--grace", type=float, default=GRACE, help="SLIPWAY_GRACE of the servers, in seconds")
    parser.add_argument("--python", default=sys.executable, help="Python interpreter that runs the servers")
    return parser.parse_args()


class Instances:
    """The two running servers, and the exit codes and durations of all restarts."""

    def __init__(self, folder: Path, python: str, grace: float) -> None:
        self._folder = folder
        self._grace = grace
        self._python = python
        self.exit_codes: list[int] = []
        self.seconds: list[float] = []
        self.running: list[Server] = []
        for _ in range(2):
            self.running.append(self._start(free_port()))

    def restart(self, place: int, balancer: "Balancer") -> None:
        """Stop a server as Kubernetes does, and start it again on its port."""
        began = time.monotonic()
        leaving = self.running[place]
        self.exit_codes.append(leaving.stop())
        self.running[place] = self._start(leaving.port)
        self.seconds.append(time.monotonic() - began)
        balancer.wait_until_all_are_in()

    def stop(self) -> None:
        for each in self.running:
            each.process.kill()  # the load has ended, so no graceful stop is needed
            each.stop()

    def _start(self, port: int) -> Server:
        return start_slipway(self._folder, port, self._python, grace=self._grace)


class Balancer:
    """A running HAProxy."""

    def __init__(self, port: int, control: Path) -> None:
        self.port = port
        self._control = control

    def wait_until_all_are_in(self) -> None:
        for _ in range(100):
            if all(state == "UP" for state in self._states()):
                return
            time.sleep(0.05)
        raise SlipwayError("HAProxy did not send connections to a restarted instance within 5 seconds.")

    def _states(self) -> list[str]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._control))
            connection.sendall(b"show stat\n")
            answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        rows = csv.DictReader(answer.removeprefix("# ").splitlines())
        return [row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]


@contextmanager
def haproxy(folder: Path, ports: list[int]) -> Iterator[Balancer]:
    """Run HAProxy in front of the instances until the end of the block."""
    if shutil.which("haproxy") is None:
        raise SlipwayError("haproxy is missing; install it (the package `haproxy` of Debian, Ubuntu, Homebrew).")
    port, control, configuration = free_port(), folder / "haproxy.sock", folder / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(port=port, control=control, first=ports[0], second=ports[1]))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", configuration], stdout=log, stderr=log)
    try:
        while exchange(port, "/readyz", None)[0] != 200:
            if process.poll() is not None:
                raise SlipwayError(f"HAProxy did not start: {(folder / 'haproxy.log').read_text()}")
            time.sleep(0.05)
        yield Balancer(port, control)
    finally:
        process.terminate()
        process.wait()


async def _restart_under_load(balancer: Balancer, instances: Instances, wires: list[bytes], restarts: int) -> Outcome:
    clients = Clients(balancer.port, wires, CONNECTIONS)
    load = asyncio.create_task(clients.offer(RATE, lambda _: finished))
    finished = False
    try:
        for number in range(restarts):
            await asyncio.to_thread(instances.restart, number % 2, balancer)
            console.print(f"[dim]restart {number + 1} of {restarts}[/]")
        await asyncio.sleep(1)
    finally:
        finished = True
        outcome = await load
    await clients.settle(10)
    await clients.close()
    if clients.unexpected:
        outcome.failures["answers without a request"] += clients.unexpected
    return outcome


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (
        "requests",
        "per second",
        "answers by status",
        "without an answer",
        "p50, ms",
        "p99, ms",
        "at most, ms",
    ):
        table.add_column(title, justify="right")
    answers = list(outcome.statuses)
    table.add_row(
        f"{outcome.arrivals:,}",
        f"{outcome.arrivals / outcome.seconds:,.0f}",
        _words(outcome.statuses),
        f"{sum(outcome.failures.values()):,}",
        *(f"{outcome.milliseconds(percentile, answers, since_due=True):.1f}" for percentile in (50, 99, 100)),
    )
    return table


def _words(counts: dict[str, int] | dict[int, int]) -> str:
    return ", ".join(f"{kind}: {count:,}" for kind, count in counts.items()) or "none"


if __name__ == "__main__":
    exit_with(main)

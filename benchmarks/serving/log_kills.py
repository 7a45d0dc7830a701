"""Check the account of the prediction log under failures: `python -m benchmarks.serving.log_kills`, on Linux.

A server logs the requests of one client, and a shipper copies the log to a real S3 server (SeaweedFS). In each round,
the server and the shipper are killed (SIGKILL) at random moments, and started again. Also at random moments:

- The clock of the server steps by up to two days, in both directions.
- The disk of the server is full: it cannot write files with more than `SMALL` bytes.
- The S3 server is killed, and started again after a second.

At the end, the server is stopped with SIGTERM, and the rest of the log is shipped. The log in the bucket is then
compared with the requests of the client. Rows that a killed server had not written yet are lost, as documented.
"""

import argparse
import http.client
import io
import os
import random
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.prediction_log import marked_bundle
from benchmarks.serving.processes import status_of
from benchmarks.serving.records import encode, read_records
from slipway.errors import SlipwayError
from slipway.integrations.log_store import LogStore
from slipway.integrations.ports import free_port
from slipway.monitoring.ship_log import ship
from slipway.serving.log_segments import Header, header_in
from slipway.serving.server import serve
from slipway.serving.settings import Settings

FORK = get_context("fork")  # the packages are loaded once, so that a restart takes little time
ROUNDS = 50
LONGEST = 0.4
"""Maximum time in seconds between two kills."""
SMALL = 1_000
DAYS = 2
STORED = "s3://your-bucket/logs"


@dataclass
class Client:
    """A client that sends single records, one after the other, with increasing request ids."""

    port: int
    bodies: list[bytes]
    sent: int = 0
    answered: list[int] = field(default_factory=list)
    """The numbers of the requests with status 200."""
    others: Counter[int] = field(default_factory=Counter)
    """Other statuses. Requests without an answer do not count."""
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.ended.wait(0.002):
            number, self.sent = self.sent, self.sent + 1
            headers = {"Content-Type": "application/json", "x-request-id": f"r-{number}"}
            try:
                connection.request("POST", "/predict", self.bodies[number % len(self.bodies)], headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            if answer.status == 200:
                self.answered.append(number)
            else:
                self.others[answer.status] += 1


class Processes:
    """The server and the shipper, which can be killed and started again."""

    def __init__(self, bundle: Path, scratch: Path, port: int) -> None:
        self.folder = scratch / "log"
        self._scratch, self._bundle, self._port = scratch, bundle, port
        self.server, self.shipper = self._start_server(), self._start_shipper()

    def restart_server(self) -> None:
        _kill(self.server)
        self.server = self._start_server()

    def restart_shipper(self) -> None:
        _kill(self.shipper)
        self.shipper = self._start_shipper()

    def _start_server(self) -> BaseProcess:
        process = FORK.Process(
            target=_serve, args=(self._bundle, self._port, self.folder, self._scratch / "server.log")
        )
        process.start()
        while status_of(self._port, "/readyz", None) != 200:
            if not process.is_alive():
                raise SlipwayError(f"The server did not start: {(self._scratch / 'server.log').read_text()[-2000:]}")
            time.sleep(0.02)
        return process

    def _start_shipper(self) -> BaseProcess:
        process = FORK.Process(target=_ship, args=(self.folder, self._scratch / "shipper.log"))
        process.start()
        return process


def _serve(bundle: Path, port: int, folder: Path, log: Path) -> None:
    _write_output_to(log)
    true, offset = time.time, [0.0]
    signal.signal(signal.SIGUSR1, lambda *_: offset.__setitem__(0, random.uniform(-DAYS, DAYS) * 86_400))
    time.time = lambda: true() + offset[0]
    serve(bundle, Settings(port=port, prediction_log=folder, prediction_log_seconds=0.1, grace=0))


def _ship(folder: Path, log: Path) -> None:
    from slipway.cli.prediction_log import ship_log

    _write_output_to(log)
    ship_log(folder, STORED, every=0.1, keep_days=None)


def _write_output_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for each in (1, 2):
        os.dup2(descriptor, each)


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of kills of the server, and of the shipper")
    rounds = parser.parse_args().rounds
    bodies = [encode(record) for record in read_records(256)]
    from tests.slipway.outside import s3  # the tests are only needed here

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        bundle = marked_bundle(scratch / "bundle")
        storage = stack.enter_context(ExitStack())
        (scratch / "s3").mkdir()
        store = storage.enter_context(s3(scratch / "s3"))
        os.environ |= store.variables() | {"AWS_ENDPOINT_URL": store.url, "AWS_DEFAULT_REGION": "eu-central-1"}
        client = Client(free_port(), bodies)
        processes = Processes(bundle, scratch, client.port)
        stack.callback(lambda: [_kill(each) for each in (processes.server, processes.shipper)])
        thread = threading.Thread(target=client.run, daemon=True)
        thread.start()
        last = 0
        for number in range(rounds):
            _wait()
            _step_clock(processes.server)
            if number % 5 == 2:
                _fill_disk(processes.server)
            if number % 10 == 5:
                storage.close()
                time.sleep(1)
                storage.enter_context(s3(scratch / "s3", store))
            _wait()
            processes.restart_shipper()
            _wait()
            processes.restart_server()
            last = client.sent
            console.print(f"[dim]round {number + 1} of {rounds}[/]")
        time.sleep(1)
        client.ended.set()
        thread.join()
        processes.server.terminate()
        processes.server.join()
        _kill(processes.shipper)
        stored = LogStore(STORED)
        ship(processes.folder, stored, lambda text: console.print(text))
        left = [path.name for path in processes.folder.iterdir()]
        return require(_requirements(client, stored, left, last, rounds))


def _wait() -> None:
    time.sleep(random.uniform(0, LONGEST))


def _step_clock(server: BaseProcess) -> None:
    with suppress(ProcessLookupError):
        os.kill(server.pid or 0, signal.SIGUSR1)


def _fill_disk(server: BaseProcess) -> None:
    before = resource.prlimit(server.pid or 0, resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
    _wait()
    resource.prlimit(server.pid or 0, resource.RLIMIT_FSIZE, before)


def _requirements(client: Client, stored: LogStore, left: list[str], last: int, rounds: int) -> dict[str, bool]:
    headers, ids = _read(stored)
    newest: dict[str, Header] = {}
    rows: Counter[str] = Counter()
    for header in sorted(headers, key=lambda each: each.number):
        newest[header.instance] = header
        rows[header.instance] += header.rows
    sent = {f"r-{number}" for number in range(client.sent)}
    answered = {f"r-{number}" for number in client.answered}
    lost = answered - ids.keys()
    dropped = sum(each.account.dropped for each in newest.values())
    console.print(
        f"\n{rounds} kills of the server and of the shipper: {client.sent:,} requests sent, {len(answered):,} "
        f"answered, {ids.total():,} rows of {len(newest):,} servers in {len(headers):,} files; {len(lost):,} rows "
        f"lost, of which at least {dropped:,} because the disk was full\n"
    )
    return {
        f"every answer has the status 200 (others: {dict(client.others)})": not client.others,
        f"no row is shipped twice ({ids.total() - len(ids):,})": ids.total() == len(ids),
        f"no row is unknown to the client ({len(ids.keys() - sent):,})": ids.keys() <= sent,
        "every account balances": all(each.account.balances for each in headers),
        "every row that a server counted as logged is in the bucket": rows
        == {instance: each.account.logged for instance, each in newest.items()},
        f"nothing is left in the folder ({left})": not left,
        "no row of the last server is lost": not any(int(each.removeprefix("r-")) >= last for each in lost),
        "rows were lost, so that the comparison can fail": bool(lost),
    }


def _read(stored: LogStore) -> tuple[list[Header], Counter[str]]:
    """Return the headers of all files in the bucket, and the ids of all rows."""
    headers, ids = [], Counter[str]()
    for name in stored.files():
        table: Any = pq.read_table(io.BytesIO(stored.read(name)))
        headers.append(header_in(table.schema.metadata))
        ids.update(table["request_id"].to_pylist())
    return headers, ids


if __name__ == "__main__":
    exit_with(main)

"""Start servers on their own core, wait until they are ready, measure them with /proc, and stop them.

A server may consist of many processes: the started process, its descendants, and all other processes in the same
session.
"""

import functools
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.scratch import REPOSITORY
from slipway.errors import SlipwayError

BUNDLE = REPOSITORY / "champion"
TICKS = os.sysconf("SC_CLK_TCK")
Question = tuple[str, bytes | None]
"""A request: its path, and the JSON to post, or None for a GET request."""
READY_TIMEOUT = 120.0  # seconds. The slowest alternative takes about ten.


@functools.cache
def cores() -> tuple[int, int]:
    """Return the core of the servers and the core of the load generators."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise SlipwayError("The benchmarks of the server need Linux and two cores, one of them for the load.")
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def take_load_core() -> None:
    """Move this process, and the processes that it starts later, to the core of the load generators."""
    os.sched_setaffinity(0, {cores()[1]})


@dataclass(frozen=True)
class Server:
    """A running server. `seconds_to_ready` is the time from its start to its first answer with status 200."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    seconds_to_ready: float

    def cpu_seconds(self) -> float:
        """Return the CPU time that all processes of the server have used so far, even processes that have ended."""
        return cpu_seconds(self.process.pid)

    def resident_megabytes(self) -> float:
        """Return the resident memory of all processes of the server."""
        return resident_megabytes(self.process.pid)

    def peak_megabytes(self) -> float:
        """Return the highest resident memory so far, for a server with only one process."""
        return _kilobytes(self.process.pid, "status", "VmHWM") / 1e3

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = 20.0) -> int:
        """Stop the server with all its processes, by force after the timeout. Return the exit code of the server."""
        tree = _tree(self.process.pid)
        if self.process.poll() is None:
            self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        for pid in {*tree, *_tree(self.process.pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.process.wait()


def start(
    command: list[str | Path],
    port: int,
    log: Path,
    question: Question,
    *,
    environment: Mapping[str, str] | None = None,
    at: Path = REPOSITORY,
) -> Server:
    """Start a server on the servers' core and wait until it answers `question` with status 200.

    Raises SlipwayError with the end of the server's log if the server exits before that or takes too long.
    """
    core = cores()[0]
    with log.open("wb") as written:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=at,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), **(environment or {})},
            stdout=written,
            stderr=written,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    server = Server(process, port, log, 0.0)
    try:
        while status_of(port, *question) != 200:
            _require_alive(server, time.monotonic() - began)
            time.sleep(0.002)
    except BaseException:
        server.stop()
        raise
    return replace(server, seconds_to_ready=time.monotonic() - began)


def _require_alive(server: Server, seconds: float) -> None:
    if server.process.poll() is not None or seconds > READY_TIMEOUT:
        last = "\n".join(server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        command = " ".join(map(str, server.process.args))
        raise SlipwayError(f"`{command}` did not become ready. The end of its log:\n{last}")


@contextmanager
def stopping(server: Server) -> Iterator[Server]:
    """Stop the server at the end of the block."""
    try:
        yield server
    finally:
        server.stop()


def start_slipway(
    folder: Path,
    port: int,
    python: str = sys.executable,
    question: Question = ("/readyz", None),
    bundle: Path = BUNDLE,
    source: Path = REPOSITORY,
    **settings: object,
) -> Server:
    """Start Slipway's server with a bundle. `settings` become environment variables `SLIPWAY_*`.

    `source` is the work tree that the server runs.
    """
    if not bundle.is_dir():
        raise SlipwayError(f"{bundle.name}/ is missing; run `dvc pull`.")
    named = {"grace": 0, "port": port} | settings
    environment = {f"SLIPWAY_{name.upper()}": str(value) for name, value in named.items()}
    environment["PYTHONPATH"] = str(source / "src")
    command: list[str | Path] = [python, "-m", "slipway.serving", bundle]
    return start(command, port, folder / f"slipway-{port}.log", question, environment=environment)


def start_ceiling(folder: Path, port: int, python: str = sys.executable) -> Server:
    """Start `ceiling.py` on uvicorn with the same options as Slipway: uvloop, httptools, no access log."""
    uvicorn: list[str | Path] = [
        python,
        "-m",
        "uvicorn",
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
    ]
    quiet = ["--no-access-log", "--no-server-header", "--lifespan", "off", "--log-level", "warning"]
    command = [*uvicorn, *quiet, "--app-dir", Path(__file__).parent, "ceiling:app"]
    return start(command, port, folder / "ceiling.log", ("/", None))


def status_of(port: int, path: str, body: bytes | None, timeout: float = 10.0) -> int | None:
    """Send one request on a new connection. Return the status of the answer, or None if there is no answer."""
    return exchange(port, path, body, timeout)[0]


def exchange(port: int, path: str, body: bytes | None, timeout: float = 10.0) -> tuple[int | None, bytes]:
    """Send one request on a new connection.

    Return the status and the body of the answer. Without an answer, the status is None.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far, even of descendants that have ended."""
    return sum(_cpu_ticks(each) for each in _tree(pid)) / TICKS


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process and its descendants. Memory that several of them share counts once."""
    tree = _tree(pid)
    if len(tree) == 1:
        return _kilobytes(tree[0], "status", "VmRSS") / 1e3
    return sum(_kilobytes(each, "smaps_rollup", "Pss") for each in tree) / 1e3


def _tree(root: int) -> list[int]:
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
    for pid, (_, session) in parents.items():
        each = pid
        while each not in (root, 0, 1) and each in parents:
            each = parents[each][0]
        if each == root or session == root:
            found.append(pid)
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat, starting with the state. Return None if the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) if fields else 0


def _kilobytes(pid: int, file: str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 // 1000

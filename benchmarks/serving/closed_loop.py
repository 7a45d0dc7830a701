"""Closed-loop load, by wrk: each of so many connections sends its next request when it has the answer to the last.

wrk counts a slow answer also for the requests that it kept from being sent (it corrects for coordinated omission), so
that its percentiles are, if anything, too high.
"""

import json
import shutil
import statistics
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.processes import Server
from slipway.errors import SlipwayError

SCRIPT = Path(__file__).with_name("rotate.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. Times of answers are in milliseconds."""

    rate: float
    """Answers per second, of any status."""
    per_cpu_second: float
    """Answers for each second of CPU time that the server took."""
    p50: float
    p99: float
    good: float
    """The share of answers below 400."""
    bad: int
    """Answers of 400 and above, and requests without an answer."""
    failures: dict[str, int]
    """Requests without an answer, by kind."""
    statuses: dict[int, int]
    """Only where they were asked for."""

    @property
    def goodput(self) -> float:
        return self.rate * self.good


def median(loads: Sequence[Load]) -> Load:
    """Of several rounds, each figure by itself; what went wrong is added up."""

    def middle(field: str) -> float:
        return statistics.median(getattr(each, field) for each in loads)

    failures = sum((Counter(each.failures) for each in loads), Counter[str]())
    statuses = sum((Counter(each.statuses) for each in loads), Counter[int]())
    return Load(
        rate=middle("rate"),
        per_cpu_second=middle("per_cpu_second"),
        p50=middle("p50"),
        p99=middle("p99"),
        good=middle("good"),
        bad=sum(each.bad for each in loads),
        failures=dict(failures),
        statuses=dict(statuses),
    )


def write_bodies(file: Path, bodies: Sequence[bytes]) -> Path:
    """The file that wrk reads: a body a line. JSON as it is written here has no line breaks."""
    file.write_bytes(b"\n".join(bodies) + b"\n")
    return file


def load(
    server: Server, path: str, bodies: Path, *, connections: int = 16, seconds: float = 3.0, statuses: bool = False
) -> Load:
    """Load the server with the bodies of a file, in rotation."""
    if shutil.which("wrk") is None:
        raise SlipwayError("wrk is missing; install it (the package `wrk` of Debian, Ubuntu, Homebrew).")
    url = f"http://127.0.0.1:{server.port}{path}"
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s", "--timeout", "10s"]
    before = server.cpu_seconds()
    done = subprocess.run(
        ["wrk", *options, "--script", SCRIPT, url, "--", bodies, "statuses" if statuses else ""],
        capture_output=True,
        text=True,
        check=False,
    )
    used = server.cpu_seconds() - before
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or not last.startswith("{"):
        raise SlipwayError(f"wrk failed:\n{done.stdout}{done.stderr}")
    said = json.loads(last)
    answers = max(said["requests"], 1)
    failures = {kind: said[kind] for kind in ("connect", "read", "write", "timeout") if said[kind]}
    return Load(
        rate=said["requests"] / said["seconds"],
        per_cpu_second=said["requests"] / max(used, 1e-9),
        p50=said["p50"],
        p99=said["p99"],
        good=1 - said["refused"] / answers,
        bad=said["refused"] + sum(failures.values()),
        failures=failures,
        statuses={int(status): count for status, count in said["statuses"].items()},
    )


def share(loads: Sequence[Load], of: Sequence[Load]) -> float:
    """How many answers a CPU-second gives, relative to another load of the same rounds: the median of the rounds."""
    return statistics.median(each.per_cpu_second / other.per_cpu_second for each, other in zip(loads, of, strict=True))

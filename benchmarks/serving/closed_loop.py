"""Generate closed-loop load with wrk: each connection sends its next request after it received the last answer.

wrk corrects for coordinated omission: a slow answer is also counted for the requests that could not be sent in the
meantime. wrk's percentiles are therefore too high rather than too low.
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
    """The result of one run of wrk. Latencies are in milliseconds."""

    rate: float
    """Answers per second, of any status."""
    per_cpu_second: float
    """Answers per second of the server's CPU time."""
    p50: float
    p99: float
    good: float
    """Share of answers with a status below 400."""
    bad: int
    """Answers with a status of 400 or above, and requests without an answer."""
    failures: dict[str, int]
    """Requests without an answer, by kind."""
    statuses: dict[int, int]
    """Answers by status, empty unless `load` is called with `statuses=True`."""

    @property
    def goodput(self) -> float:
        return self.rate * self.good


def median(loads: Sequence[Load]) -> Load:
    """Return the median of each number over several rounds, and the sum of all failures."""

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
    """Write the file that wrk reads, one body per line. The bodies are JSON without line breaks."""
    file.write_bytes(b"\n".join(bodies) + b"\n")
    return file


def load(
    server: Server, path: str, bodies: Path, *, connections: int = 16, seconds: float = 3.0, statuses: bool = False
) -> Load:
    """Send the bodies in a file to the server, in rotation, and return the result."""
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
    report = json.loads(last)
    answers = max(report["requests"], 1)
    failures = {kind: report[kind] for kind in ("connect", "read", "write", "timeout") if report[kind]}
    return Load(
        rate=report["requests"] / report["seconds"],
        per_cpu_second=report["requests"] / max(used, 1e-9),
        p50=report["p50"],
        p99=report["p99"],
        good=1 - report["refused"] / answers,
        bad=report["refused"] + sum(failures.values()),
        failures=failures,
        statuses={int(status): count for status, count in report["statuses"].items()},
    )


def share(loads: Sequence[Load], of: Sequence[Load]) -> float:
    """Return the answers per CPU-second of `loads` divided by those of `of`, as the median over the rounds."""
    return statistics.median(each.per_cpu_second / other.per_cpu_second for each, other in zip(loads, of, strict=True))

"""The demo as people run it: once interrupted, once to its end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.slipway.accessibility import violations
from tests.slipway.browser import chromium
from tests.slipway.conftest import Repository

ALONE = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
try:
    socket.create_connection(("192.0.2.1", 80), 5)
except OSError as error:
    print("Offline:", error, flush=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
OFFLINE = ["unshare", "--map-root-user", "--net", sys.executable, "-c", ALONE]
"""A prefix of a command: the program has no network but loopback."""


def without_network() -> list[str]:
    """Return OFFLINE if this user may make a network of its own. Ubuntu 24.04 allows it to root only."""
    trial = [*OFFLINE[:-3], "true"]
    allowed = sys.platform == "linux" and subprocess.run(trial, capture_output=True, check=False).returncode == 0
    return OFFLINE if allowed else []


@pytest.fixture(scope="module")
def work(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return origin.clone(tmp_path_factory.mktemp("played") / ("x" * 90))


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join([*(process.info["cmdline"] or ()), process.info["cwd"] or ""])
        if str(folder) in words:
            found.append(words)
    return found


def files_outside(repository: Repository) -> list[str]:
    told = repository.must("git", "status", "--porcelain", "--ignored").splitlines()
    return [line for line in told if line != "!! build/" and "__pycache__" not in line]


def demo(repository: Repository, home: Path, *options: str, before: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Start the demo in a process group of its own, with a home folder that shows what it leaves there."""
    home.mkdir(exist_ok=True)
    variables = {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "demo", *options],
        cwd=repository.path,
        env=repository.environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_an_interrupted_demo_leaves_nothing_behind(work: Repository, tmp_path: Path) -> None:
    """It is interrupted during two workflows, with servers under load. A second demo is refused meanwhile."""
    process = demo(work, tmp_path / "home")
    assert process.stdout
    said = before = ""
    while "Ada drops the location" not in said:
        said = process.stdout.readline()
        assert said, before
        before += said
    second = work.run("python", "-m", "demo")
    assert (second.code, "Another demo is running in this clone" in second.err) == (2, True)
    time.sleep(2)
    while len(processes_in(work.path)) <= 5:
        assert process.poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 1
    assert "The demo was interrupted; all its programs have ended." in rest
    assert "Traceback" not in rest
    assert time.monotonic() - began < 20
    assert processes_in(work.path) == []
    assert files_outside(work) == []
    assert list((tmp_path / "home").iterdir()) == []


def test_a_folder_with_a_blank_in_its_name_is_refused(origin: Repository, tmp_path: Path) -> None:
    refused = origin.clone(tmp_path / "with a blank").run("python", "-m", "demo")
    assert refused.code == 2
    assert "a folder whose path has a space" in refused.err


def test_the_demo_runs_offline_without_a_failed_request(work: Repository, tmp_path: Path) -> None:
    """It starts over what the interrupted demo has left, with one delivery."""
    offline = without_network()
    process = demo(work, tmp_path / "home", "--deliveries", "1", before=offline)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert said.startswith("Offline: ") or not offline
    sent, failed = re.findall(r"([\d,]+) requests, (\d+) failed", said)[-1]
    assert (int(sent.replace(",", "")) > 500, failed) == (True, "0")
    assert re.search(r"#2: SHIP  mean absolute error falls by \$\d+", said)
    assert re.search(r"#1: HOLD  mean absolute error rises by \$.*nothing is merged", said)
    (logged,) = re.findall(r"1997H2 has the prices for (\d+) of \1 logged requests", said)
    assert f"#1 replays requests  {logged} of {logged} logged requests are refused" in said
    assert re.search(
        rf"#2 replays requests  \d+% of {logged} .*; on {logged} of them with a known price, the error", said
    )
    found = re.findall(r"1997H2 is delivered|#2 is merged|#2 is live|Rolled back", said)
    assert found == ["1997H2 is delivered", "#2 is merged", "#2 is live", "Rolled back"], said
    live_periods = re.findall(r"^([0-9a-f]{7})( +[\d.]+ s){3} +[\d,]+", said, re.MULTILINE)
    first, second, third = (bundle for bundle, _ in live_periods)
    assert first == third != second
    subjects = work.must("git", "--git-dir", "build/demo/origin.git", "log", "-4", "--format=%s", "main").splitlines()
    assert [" ".join(re.findall(r"Roll|Release|Ingest|production|staging", each)) for each in subjects] == [
        "Roll production",
        "Release production",
        "Release staging",
        "Ingest",
    ]
    folder = work.path / "build/demo"
    assert {each.name for each in folder.glob("*.html")} == {"index.html", "report-1.html", "report-2.html"}
    assert f"<b>0 of {sent} requests failed</b>" in (folder / "index.html").read_text()
    assert (
        f"The challenger answered {logged} requests that production received" in (folder / "report-2.html").read_text()
    )
    with chromium() as browser:
        tab = browser.new_page(color_scheme="dark")
        tab.goto((folder / "index.html").as_uri())
        assert violations(tab) == []
        tab.locator("a[href='report-2.html']").first.click()
        assert "SHIP" in tab.title()
        assert violations(tab) == []
    assert processes_in(work.path) == []
    assert files_outside(work) == []
    assert list((tmp_path / "home").iterdir()) == []

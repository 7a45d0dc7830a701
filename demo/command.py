"""Implement the command `python -m demo`: run the scenario, show its progress, and write the page."""

import fcntl
import shutil
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demo import page, processes
from demo.environment import set_up
from demo.fakes import cluster
from demo.scenario import SAMPLE, Scenario, run_scenario
from demo.timeline import DemoResult, Event, live_periods
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process

FOLDER = Path("build/demo")
LOCK = Path("build/demo.lock")
KEPT = ("origin.git", "engine", "venv")
"""Subfolders that are kept at the end: the first two for inspection, and `venv` because it is still in use."""


def demo(console: Console, deliveries: int | None, cold: bool, context: str | None) -> None:
    """Run the demo of the last commit in build/demo/.

    `deliveries` is the number of deliveries. The default is all deliveries of the sample. If a kubectl `context` is
    given, models run in its cluster, and otherwise as processes. With `cold`, each program is a new process. Raises
    CheckFailed if a request or a workflow fails.
    """
    arriving = sorted(SAMPLE.glob("*.csv"))[:deliveries]
    if not arriving:
        raise InputError(
            f"The demo needs the template's own sample, but {SAMPLE} has no delivery, because `slipway init` removes "
            "the sample; run the demo in a clone of the template."
        )
    if len(str(FOLDER.resolve()).split()) > 1:
        raise InputError(
            f"act does not work in a folder whose path has a space, such as {FOLDER.resolve()}; clone elsewhere."
        )
    with _locked(), _interruptible():
        if process.run("git", "status", "--porcelain"):
            console.print("[dim]The demo runs the last commit, without your uncommitted changes.[/]")
        began = time.monotonic()
        screen = _Screen(console)
        local_cluster = cluster.find(context) if context else None
        with screen.shown(), set_up(FOLDER.resolve(), screen.step, cold, local_cluster) as environment:
            scenario = screen.scenario = Scenario(environment, screen.event)
            result = run_scenario(scenario, arriving)
            written = page.write(result, environment.folder)
            _tidy(environment.folder)
        _summarize(console, result, written, time.monotonic() - began)


@contextmanager
def _locked() -> Generator[None, None, None]:
    """Refuse a second demo in this clone until the `with` block ends."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("Another demo is running in this clone; wait until it has ended.") from None
        yield


@contextmanager
def _interruptible() -> Generator[None, None, None]:
    """End all programs that the `with` block has started, when the block ends or a signal interrupts it."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_: object) -> None:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise CheckFailed("The demo was interrupted; all its programs have ended.") from None
    finally:
        processes.end_all()


class _Screen:
    """The output in the terminal: a line for each event, and below them a line that shows the current steps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.scenario: Scenario | None = None
        self._steps: dict[str, str] = {}
        self._began = time.monotonic()

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        """Keep the last line up to date until the block ends."""
        with Live(get_renderable=self._now, console=self.console, transient=True, refresh_per_second=4):
            yield

    def step(self, workflow: str, step: str) -> None:
        """Show the step that a workflow has begun. An empty step means that the workflow has ended."""
        self._steps.pop(workflow, None)
        if step:
            self._steps[workflow] = step

    def event(self, event: Event) -> None:
        """Print an event."""
        self.console.print(f"[dim]{event.at:6.1f} s[/]  [bold]{escape(event.title)}[/]  {escape(event.words)}")

    def _now(self) -> Text:
        outcomes = self.scenario.outcomes if self.scenario else ()
        failed = sum(1 for each in outcomes if each.failure)
        seconds = time.monotonic() - self._began
        running = "; ".join(f"{workflow} {step}" for workflow, step in list(self._steps.items()))
        words = f"{seconds:6.1f} s  {len(outcomes):,} requests, {failed} failed  {running or 'setting up'}"
        return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def _tidy(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and each.name not in KEPT:
            shutil.rmtree(each, ignore_errors=True)


def _summarize(console: Console, result: DemoResult, written: Path, seconds: float) -> None:
    """Print when each model answered, and how many requests failed. Raises CheckFailed if a request failed."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("model", "live from", "first answer", "last answer", "answers"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for each in live_periods(result.rollouts, result.outcomes):
        times = [f"{at:.1f} s" for at in (each.since, each.first, each.last)]
        table.add_row(each.bundle[:7], *times, f"{each.answers:,}")
    sent, failures = len(result.outcomes), result.failures
    console.print()
    console.print(table)
    console.print(f"\n[bold]{sent:,} requests, {failures.total()} failed[/], in {seconds:.0f} seconds.")
    console.print(f"The result: {written}")
    if failures:
        raise CheckFailed(f"{failures.total()} of {sent:,} requests failed: {dict(failures)}.")

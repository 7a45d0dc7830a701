"""`python -m demo`: the loop on this machine, seen while it is played and read afterwards."""

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
from demo.scenario import SAMPLE, Story, play
from demo.timeline import Event, Played, live_periods
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process

FOLDER = Path("build/demo")
LOCK = Path("build/demo.lock")
KEPT = ("origin.git", "engine", "venv")
"""What can be looked at afterwards, or is in use until the end."""


def demo(console: Console, deliveries: int | None, cold: bool, context: str | None) -> None:
    """Play it in build/demo/, from the last commit, with the first `deliveries` of the sample or with all.

    Models run in the cluster of `context`, or as processes. Raises CheckFailed where a request failed, or a workflow.
    """
    arriving = sorted(SAMPLE.glob("*.csv"))[:deliveries]
    if not arriving:
        raise InputError(
            f"The demo plays the template's own sample, and {SAMPLE} has no delivery, as `slipway init` takes them "
            "away; play it in a clone of the template."
        )
    if len(str(FOLDER.resolve()).split()) > 1:
        raise InputError(
            f"act runs nothing in a folder with a blank in its name, as {FOLDER.resolve()}; clone elsewhere."
        )
    with _alone(), _interruptible():
        if process.run("git", "status", "--porcelain"):
            console.print("[dim]It is of the last commit; what is not committed yet plays no part.[/]")
        began = time.monotonic()
        screen = _Screen(console)
        named = cluster.named(context) if context else None
        with screen.shown(), set_up(FOLDER.resolve(), screen.step, cold, named) as stage:
            story = screen.story = Story(stage, screen.event)
            played = play(story, arriving)
            written = page.write(played, stage.folder)
            _tidy(stage.folder)
        _end(console, played, written, time.monotonic() - began)


@contextmanager
def _alone() -> Generator[None, None, None]:
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("A demo is being played here already; wait for its end.") from None
        yield


@contextmanager
def _interruptible() -> Generator[None, None, None]:
    """Whatever ends it, ends all that it has started."""
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_: object) -> None:
        for number in asked:
            signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is the tidying up
        raise KeyboardInterrupt

    for number in asked:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise CheckFailed("The demo was interrupted; nothing of it runs any more.") from None
    finally:
        processes.end_all()


class _Screen:
    """A line for each event, and below them what runs at the moment."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.story: Story | None = None
        self._steps: dict[str, str] = {}
        self._began = time.monotonic()

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        with Live(get_renderable=self._now, console=self.console, transient=True, refresh_per_second=4):
            yield

    def step(self, workflow: str, step: str) -> None:
        """A step of a workflow begins; an empty one says that the workflow has ended."""
        self._steps.pop(workflow, None)
        if step:
            self._steps[workflow] = step

    def event(self, event: Event) -> None:
        self.console.print(f"[dim]{event.at:6.1f} s[/]  [bold]{escape(event.title)}[/]  {escape(event.words)}")

    def _now(self) -> Text:
        outcomes = self.story.outcomes if self.story else []
        failed = sum(1 for each in outcomes if each.failure)
        seconds = time.monotonic() - self._began
        running = "; ".join(f"{workflow} {step}" for workflow, step in list(self._steps.items()))
        words = f"{seconds:6.1f} s  {len(outcomes):,} requests, {failed} failed  {running or 'setting the stage'}"
        return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def _tidy(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and each.name not in KEPT:
            shutil.rmtree(each, ignore_errors=True)


def _end(console: Console, played: Played, written: Path, seconds: float) -> None:
    """Which model answered when, and how many requests failed; raises CheckFailed where one did."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("model", "live from", "first answer", "last answer", "answers"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for each in live_periods(played.named, played.outcomes):
        times = [f"{at:.1f} s" for at in (each.since, each.first, each.last)]
        table.add_row(each.bundle[:7], *times, f"{each.answers:,}")
    sent, failures = len(played.outcomes), played.failures
    console.print()
    console.print(table)
    console.print(f"\n[bold]{sent:,} requests, {failures.total()} failed[/], in {seconds:.0f} seconds.")
    console.print(f"Look at it: {written}")
    if failures:
        raise CheckFailed(f"{failures.total()} of {sent:,} requests failed: {dict(failures)}.")

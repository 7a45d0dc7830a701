"""The loop on a scratch clone: judge today's data, take in the next delivery, judge again."""

import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway import artifacts, commands
from slipway.artifacts import Verdict
from slipway.config import SAMPLE_SOURCE
from slipway.errors import BadInput, SlipwayError

STAGE = Path("build/demo")
CLONE = STAGE / "repository"


def play(console: Console) -> None:
    """Play it in build/demo/, from the last commit; nothing else is touched. It can be played again."""
    if not Path(SAMPLE_SOURCE).is_dir():
        raise BadInput(
            f"The demo plays with {SAMPLE_SOURCE}, which `slipway adopt` has taken away; bring your own data and model "
            "to a verdict with `dvc repro`."
        )
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    console.rule("A scratch clone of this repository, with its data and its live model")
    if commands.run("git", "status", "--porcelain"):
        console.print("It is of the last commit; what is not committed yet plays no part.")
    commands.run("git", "clone", "--quiet", "--no-hardlinks", ".", str(CLONE))
    commands.run("dvc", "pull", "--quiet", "data.dvc", "champion.dvc", at=CLONE)
    acts = [_act(console, "The data of today")]
    console.rule("A delivery arrives")
    _must(commands.show("slipway", "ingest", at=CLONE))
    acts.append(_act(console, "With the new delivery"))
    _summarise(console, acts)


def _act(console: Console, title: str) -> tuple[str, Verdict, float]:
    console.rule(f"{title}: validate, split, train, evaluate, gate")
    start = time.monotonic()
    # Forced, so that each stage runs and speaks, even where dvc.lock knows what it would give.
    if commands.show("dvc", "repro", "--quiet", "--force", at=CLONE):
        # Quiet hides DVC's own errors too; a second run stops at the same place and says why.
        _must(commands.show("dvc", "repro", at=CLONE))
    return title, Verdict.read(CLONE / artifacts.VERDICT), time.monotonic() - start


def _must(exit_code: int) -> None:
    if exit_code:
        raise SlipwayError(f"The demo stopped at the step above; look at it in {CLONE}.")


def _summarise(console: Console, acts: list[tuple[str, Verdict, float]]) -> None:
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for title, verdict, seconds in acts:
        table.add_row(f"{title}\n[dim]{seconds:.0f} seconds[/]", f"[bold]{verdict.verdict.upper()}[/]", verdict.reason)
    console.rule("What happened")
    console.print(table)
    last = acts[-1][1]
    next_step = {
        "ship": "a pull request with this delivery could be merged, and the new model would go live",
        "first": "there was no live model; this one could become it",
        "hold": "the live model stays, and a person looks at why",
        "unchanged": "the delivery changes nothing; there is nothing to ship",
    }[last.verdict]
    console.print(f"[bold]{last.verdict}[/] means: {next_step}.\n")
    files = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    files.add_column(overflow="fold")
    for path, what in (
        (artifacts.VERDICT, "the verdict, with every slice and floor"),
        (artifacts.EVALUATION, "the metrics of both models and of a naive baseline"),
        (artifacts.PLOTS, "the data of the plots (`dvc plots show` draws them)"),
        (artifacts.QUARANTINE, "the rows that validation did not accept, each with its reason"),
        (artifacts.BUNDLE, "the new model"),
        (artifacts.CHAMPION, "the live model"),
    ):
        files.add_row(str(path), f"[dim]{what}[/]")
    console.print(f"What was made, in {CLONE}/:")
    console.print(files)

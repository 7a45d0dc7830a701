"""Show a verdict as a table in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from slipway.artifacts import Evaluation, Verdict

WORST_SLICES = 5


def verdict_table(verdict: Verdict, evaluation: Evaluation) -> Table:
    """Return a table with the metrics of all models, the floors, and the changes of the loss on the worst slices."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", "champion", "challenger", "naive baseline"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    contenders = (evaluation.champion, evaluation.challenger, evaluation.baseline)
    for metric in evaluation.challenger.metrics:
        values = [f"{each.metrics[metric]:,.5g}" if each else "-" for each in contenders]
        table.add_row(metric.replace("_", " "), *values)
    if verdict.decay:
        day = verdict.decay.released_on.last
        table.add_row(f"at release{f', {day}' if day else ''}", f"{verdict.decay.at_release:,.5g}")
    table.add_section()
    for floor in verdict.floors:
        table.add_row(
            f"{floor.metric.replace('_', ' ')} {floor.bound}", "", "holds" if floor.held else "[red]broken[/]"
        )
    table.add_section()
    for part in verdict.slices[:WORST_SLICES]:
        mark = "[red]regresses[/] " if part.regressed else "" if part.judged else "[dim]too few to judge[/] "
        name = f"{part.column}: {part.value} ({part.comparison.rows:,} rows)"
        table.add_row(escape(name), "", f"{mark}{0.0 - part.relative:+.1%}")
    return table

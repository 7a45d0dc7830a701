"""A verdict as a table for the terminal."""

from rich.table import Table

from slipway.artifacts import Evaluation, Verdict

WORST_SLICES = 5


def verdict_table(verdict: Verdict, evaluation: Evaluation) -> Table:
    """Both models and the naive baseline by each metric, then the floors, the decay and the worst slices."""
    table = Table(title=f"{evaluation.holdout.rows:,} rows that none of them has seen", title_justify="left")
    for heading in ("", "champion", "challenger", "naive baseline"):
        table.add_column(heading, justify="left" if not heading else "right")
    contenders = (evaluation.champion, evaluation.challenger, evaluation.baseline)
    for metric in evaluation.challenger.metrics:
        values = [f"{each.metrics[metric]:,.6g}" if each else "-" for each in contenders]
        table.add_row(metric.replace("_", " "), *values)
    for floor in verdict.floors:
        held = "holds" if floor.held else "[red]broken[/]"
        table.add_row(f"floor: {floor.metric.replace('_', ' ')} {floor.bound}", "", held, "")
    if verdict.decay:
        table.add_section()
        table.add_row(
            f"champion at its release ({verdict.decay.released_on.last or 'another holdout'})",
            f"{verdict.decay.at_release:,.6g}",
            "",
            "",
        )
    if verdict.slices:
        table.add_section()
    for part in verdict.slices[:WORST_SLICES]:
        mark = " [red]regresses[/]" if part.regressed else "" if part.judged else " [dim]too few to judge[/]"
        table.add_row(
            f"{part.column}: {part.value} ({part.comparison.rows:,} rows)", "", f"{part.relative:+.1%}{mark}", ""
        )
    return table

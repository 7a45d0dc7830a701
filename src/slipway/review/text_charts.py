"""Charts that need no picture: a line of characters, a Mermaid diagram, a table."""

import numpy as np

from slipway.pipeline.verdict_text import number
from slipway.review.report import Judged

WIDTH = 60


def interval_line(judged: Judged) -> tuple[str, ...]:
    """The improvement and its interval on an axis that has zero on it; right of zero, the challenger is better."""
    comparison = judged.verdict.comparison
    if comparison is None:
        return ()
    low, high = comparison.interval
    ends = (min(low, 0.0), max(high, 0.0))
    span = (ends[1] - ends[0]) or 1.0

    def place(value: float) -> int:
        return round((value - ends[0]) / span * (WIDTH - 1))

    axis = [" "] * WIDTH
    axis[place(low) : place(high) + 1] = "─" * (place(high) - place(low) + 1)
    axis[place(0.0)] = "│"
    axis[place(low)], axis[place(high)], axis[place(comparison.difference)] = "├", "┤", "●"
    zero = " " * place(0.0) + "0"
    return (
        "".join(axis).rstrip(),
        zero,
        f"better by {number(comparison.difference)}, from {number(low)} to {number(high)}"
        if comparison.difference >= 0
        else f"worse by {number(-comparison.difference)}, from {number(0.0 - high)} to {number(0.0 - low)}",
    )


def error_over_time(judged: Judged) -> tuple[str, ...]:
    """A Mermaid chart (https://mermaid.js.org/syntax/xyChart.html), which has no legend: the title names the lines."""
    days = ", ".join(f'"{period.first:%m-%d}"' for period in judged.periods)
    lines = [("challenger", [period.challenger for period in judged.periods])]
    before = [period.champion for period in judged.periods if period.champion is not None]
    if len(before) == len(judged.periods):
        lines.insert(0, ("champion", before))
    title = f"{judged.verdict.loss.replace('_', ' ')}: {', then '.join(name for name, _ in lines)}"
    return (
        "xychart-beta",
        f'    title "{title}"',
        f"    x-axis [{days}]",
        *(f"    line [{', '.join(f'{value:.6g}' for value in values)}]" for _, values in lines),
    )


def tenths(judged: Judged) -> list[tuple[float, float | None, float | None]]:
    """The mean truth and answers in each tenth of the points, by the truth."""
    points = sorted(judged.points, key=lambda point: point.actual)
    parts = [[points[index] for index in part] for part in np.array_split(np.arange(len(points)), 10) if len(part)]
    return [
        (
            float(np.mean([point.actual for point in part])),
            _mean([point.champion for point in part]),
            _mean([point.challenger for point in part]),
        )
        for part in parts
    ]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

"""Charts as text: an interval drawn with characters, a Mermaid chart, and the numbers for a table."""

import numpy as np

from slipway.pipeline.number_text import number
from slipway.review.report import PipelineResult

WIDTH = 60


def interval_chart(result: PipelineResult) -> tuple[str, ...]:
    """Draw the improvement and its interval on an axis that includes zero.

    Values above zero mean that the challenger is better.
    """
    comparison = result.verdict.comparison
    if comparison is None or comparison.interval is None:
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


def loss_chart(result: PipelineResult) -> tuple[str, ...]:
    """Draw the loss of each model over time as a Mermaid chart. The chart has no legend, so the title names the lines.

    Syntax: https://mermaid.js.org/syntax/xyChart.html
    """
    days = ", ".join(f'"{period.first:%m-%d}"' for period in result.periods)
    lines = [("challenger", [period.challenger for period in result.periods])]
    champion = [period.champion for period in result.periods if period.champion is not None]
    if len(champion) == len(result.periods):
        lines.insert(0, ("champion", champion))
    title = f"{result.verdict.loss.replace('_', ' ')}: {', then '.join(name for name, _ in lines)}"
    return (
        "xychart-beta",
        f'    title "{title}"',
        f"    x-axis [{days}]",
        *(f"    line [{', '.join(f'{value:.6g}' for value in values)}]" for _, values in lines),
    )


def tenths(result: PipelineResult) -> list[tuple[float, float | None, float | None]]:
    """Sort the points by their true value and divide them into ten equal parts.

    Return the means of the true values and of both models' predictions in each part.
    """
    points = sorted(result.points, key=lambda point: point.actual)
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

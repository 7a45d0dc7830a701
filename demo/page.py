"""Write the result of the demo as a single HTML file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from demo.models import Errors
from demo.timeline import DemoResult, LivePeriod, by_second, live_periods
from slipway.pipeline.number_text import with_unit
from slipway.release.load_client import Outcome

WIDTH, HEIGHT = 720, 180
"""Size of a chart, in units of its SVG."""
COLORS = ("one", "two", "three", "four")
"""CSS classes for the models, in the order in which they were live."""


@dataclass(frozen=True)
class Line:
    """A line in a chart.

    `points` is the attribute of the SVG polyline, `color` a CSS class, and `last` the last point.
    """

    bundle: str
    color: str
    points: str
    last: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A vertical line of a chart."""

    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    """A chart. `top` is the value at its upper edge."""

    lines: list[Line]
    marks: list[Mark]
    top: str


def write(result: DemoResult, folder: Path) -> Path:
    """Write the page to folder/index.html and return its path."""
    periods = list(live_periods(result.rollouts, result.outcomes))
    colors = _colors(periods)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("page.html").render(
        result=result,
        errors=result.errors,
        sent=len(result.outcomes),
        failed=result.failures.total(),
        seconds=result.events[-1].at,
        slowest=max(each.took for each in result.outcomes),
        live_periods=periods,
        colors=colors,
        traffic=_traffic(periods, result.outcomes, colors),
        error_chart=_error_chart(result.errors, colors),
        with_unit=with_unit,
        width=WIDTH,
        height=HEIGHT,
    )
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def _colors(periods: Sequence[LivePeriod]) -> dict[str, str]:
    bundles = list(dict.fromkeys(each.bundle for each in periods))
    return {bundle: COLORS[place % len(COLORS)] for place, bundle in enumerate(bundles)}


def _traffic(periods: Sequence[LivePeriod], outcomes: Sequence[Outcome], colors: dict[str, str]) -> Chart:
    """Draw the answers per second of each model, over the time of the demo."""
    counted = by_second(outcomes)
    last = max(int(each.at) for each in outcomes)
    top = max(max(each.values()) for each in counted.values())
    lines = []
    for bundle, color in colors.items():
        counts = counted.get(bundle, Counter())
        points = [(WIDTH * at / max(last, 1), HEIGHT * (1 - counts.get(at, 0) / top)) for at in range(last + 1)]
        lines.append(Line(bundle, color, _polyline(points), points[-1]))
    marks = [Mark(WIDTH * each.since / max(last, 1), f"main names {each.bundle:.7}") for each in periods]
    return Chart(lines, marks, f"{top} answers per second")


def _error_chart(errors: Errors, colors: dict[str, str]) -> Chart:
    """Draw the loss of each model on each delivery. The lower edge of the chart is zero."""
    values = [value for each in errors.models.values() for value in each if value is not None]
    top, steps = max(values) * 1.05, max(1, len(errors.deliveries) - 1)
    lines = []
    for bundle, losses in errors.models.items():
        points = [
            (20 + (WIDTH - 40) * place / steps, HEIGHT * (1 - loss / top))
            for place, loss in enumerate(losses)
            if loss is not None
        ]
        lines.append(Line(bundle, colors.get(bundle, COLORS[-1]), _polyline(points), points[-1]))
    marks = [Mark(20 + (WIDTH - 40) * place / steps, name) for place, name in enumerate(errors.deliveries)]
    return Chart(lines, marks, with_unit(top, errors.unit))


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

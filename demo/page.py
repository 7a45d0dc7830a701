"""What was played as one HTML page that needs nothing else."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from demo.load import Outcome
from demo.models import Errors
from demo.timeline import LivePeriod, Played, by_second, live_periods
from slipway.pipeline.verdict_text import number

WIDTH, HEIGHT = 720, 180
"""Of a chart, in units of its own."""
COLORS = ("one", "two", "three", "four")
"""Classes of the style sheet, for the models by the order in which they were live."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: a polyline's `points`, its model and the class that colours it."""

    bundle: str
    color: str
    points: str
    last: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    lines: list[Line]
    marks: list[Mark]
    top: str
    """What the upper edge stands for."""


def write(played: Played, folder: Path) -> Path:
    """Write folder/index.html; returns it."""
    reigned = list(live_periods(played.named, played.outcomes))
    colors = _colors(reigned)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("page.html").render(
        played=played,
        errors=played.errors,
        sent=len(played.outcomes),
        failed=played.failures.total(),
        seconds=played.events[-1].at,
        slowest=max(each.took for each in played.outcomes),
        live_periods=reigned,
        colors=colors,
        traffic=_traffic(reigned, played.outcomes, colors),
        wrong=_wrong(played.errors, colors),
        number=number,
        width=WIDTH,
        height=HEIGHT,
    )
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def _colors(reigned: Sequence[LivePeriod]) -> dict[str, str]:
    bundles = list(dict.fromkeys(each.bundle for each in reigned))
    return {bundle: COLORS[place % len(COLORS)] for place, bundle in enumerate(bundles)}


def _traffic(reigned: Sequence[LivePeriod], outcomes: Sequence[Outcome], colors: dict[str, str]) -> Chart:
    """Answers a second of each model, over the time that was played."""
    counted = by_second(outcomes)
    last = max(int(each.at) for each in outcomes)
    top = max(max(each.values()) for each in counted.values())
    lines = []
    for bundle, color in colors.items():
        counts = counted.get(bundle, Counter())
        points = [(WIDTH * at / max(last, 1), HEIGHT * (1 - counts.get(at, 0) / top)) for at in range(last + 1)]
        lines.append(Line(bundle, color, _polyline(points), points[-1]))
    marks = [Mark(WIDTH * each.since / max(last, 1), f"main names {each.bundle:.7}") for each in reigned]
    return Chart(lines, marks, f"{top} answers a second")


def _wrong(errors: Errors, colors: dict[str, str]) -> Chart:
    """The loss of each model on each delivery; zero is the lower edge."""
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
    return Chart(lines, marks, f"{errors.unit}{number(top)}")


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

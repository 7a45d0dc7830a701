"""Draw the charts of a report as SVG images, for light and for dark pages."""

from io import BytesIO
from typing import Any
from warnings import catch_warnings, filterwarnings

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from slipway.pipeline.number_text import is_currency, number, with_unit
from slipway.review.layout import MOST_IMPORTANT, printable
from slipway.review.report import PipelineResult, Report

Theme = dict[str, str]
THEMES: dict[str, Theme] = {
    "light": {"ink": "#1d2428", "muted": "#5c666d", "line": "#dfdcd4", "champion": "#8a6d1f", "challenger": "#0d6475"},
    "dark": {"ink": "#e9e6df", "muted": "#9ca7ae", "line": "#30393f", "champion": "#e0b64c", "challenger": "#76c5d4"},
}
INCHES = 7.2
MAX_SLICES = 24
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # keeps text as text, instead of paths
    "svg.hashsalt": "slipway",  # equal reports give equal bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # `$` is not the start of a formula
}


def draw_charts(report: Report) -> dict[str, bytes]:
    """Return SVG files by name, `<chart>-<theme>.svg`. Return {} if the report has no verdict."""
    if report.result is None:
        return {}
    result, drawn = report.result, {}
    charts = {"interval": _interval, "loss": _loss, "predictions": _predictions, "importance": _importance}
    wanted = {
        "interval": result.verdict.comparison,
        "loss": result.periods,
        "predictions": result.points,
        "importance": result.evaluation.features,
    }
    for theme, colors in THEMES.items():
        for name, chart in charts.items():
            if wanted[name]:
                with mpl.rc_context(STYLE):
                    drawn[f"{name}-{theme}.svg"] = _svg(chart(result, colors))
    return drawn


def _svg(figure: Figure) -> bytes:
    file = BytesIO()
    with catch_warnings():
        # The text stays text, and the browser has the glyphs of other scripts that matplotlib's font lacks.
        filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _axes(theme: Theme, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(INCHES, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme["line"])
    axes.tick_params(colors=theme["muted"], length=0, labelcolor=theme["muted"])
    axes.grid(color=theme["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=theme["ink"], borderpad=0)


def _interval(result: PipelineResult, theme: Theme) -> Figure:
    """Draw the interval for all rows and the intervals for slices, in percent of the reference's loss."""
    verdict = result.verdict
    rows = [("all rows", verdict.comparison, verdict.reference_loss, False)] if verdict.comparison else []
    slices = sorted((part for part in verdict.slices if part.judged), key=lambda part: part.relative)[:MAX_SLICES]
    rows += [
        (_label(f"{part.column}: {part.value}"), part.comparison, part.reference_loss, part.regressed)
        for part in slices
    ]
    figure, axes = _axes(theme, 0.9 + 0.26 * len(rows))
    for index, (_, comparison, reference, regressed) in enumerate(rows):
        scale = 100 / reference if reference else 0.0
        color = "#d1462f" if regressed else theme["ink"] if index == 0 else theme["challenger"]
        low, high = (end * scale for end in comparison.interval or (0.0, 0.0))  # every evaluated slice has an interval
        axes.plot((low, high), (index, index), color=color, linewidth=3 if index == 0 else 2, solid_capstyle="round")
        axes.plot(comparison.difference * scale, index, "o", color=color, markersize=7 if index == 0 else 5)
    axes.axvline(0, color=theme["muted"], linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{_loss_name(result)} falls by, % of the {verdict.reference}'s", color=theme["muted"])
    return figure


def _loss(result: PipelineResult, theme: Theme) -> Figure:
    figure, axes = _axes(theme, 3.0)
    places = range(len(result.periods))
    for name in ("champion", "challenger"):
        values = [getattr(period, name) for period in result.periods]
        if None not in values:
            axes.plot(places, values, "o-", color=theme[name], label=name, linewidth=2, markersize=4)
    axes.set_ylim(bottom=0)
    _show_unit(axes.yaxis, result.unit)
    labelled = places[:: -(-len(places) // 6)]
    axes.set_xticks(labelled, [f"{result.periods[place].first}" for place in labelled])
    axes.set_title(f"{_loss_with_unit(result)} over the holdout", loc="right", color=theme["muted"], fontsize=10)
    _legend(axes, theme)
    return figure


def _predictions(result: PipelineResult, theme: Theme) -> Figure:
    figure, axes = _axes(theme, 4.2)
    for name, marker in (("champion", "x"), ("challenger", "o")):
        known = [(point.actual, getattr(point, name)) for point in result.points if getattr(point, name) is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker, color=theme[name], label=name, markersize=4, alpha=0.6)
    ends = [min(point.actual for point in result.points), max(point.actual for point in result.points)]
    axes.plot(ends, ends, color=theme["muted"], linewidth=1, label="correct")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    across, up = ("truth", "prediction") if result.is_regression else ("share of correct predictions", "certainty")
    axes.set_xlabel(across, color=theme["muted"])
    axes.set_ylabel(up, color=theme["muted"])
    _legend(axes, theme)
    return figure


def _importance(result: PipelineResult, theme: Theme) -> Figure:
    """Draw the importance of the most important features, with one bar for each model."""
    features = result.evaluation.features[:MOST_IMPORTANT]
    figure, axes = _axes(theme, 0.9 + 0.36 * len(features))
    for name, offset in (("champion", -0.19), ("challenger", 0.19)):
        rises = {row + offset: getattr(each, name) for row, each in enumerate(features)}
        known = {place: rise for place, rise in rises.items() if rise is not None}
        if known:
            axes.barh([*known], [*known.values()], height=0.34, color=theme[name], label=name)
    axes.axvline(0, color=theme["muted"], linewidth=1)
    axes.set_yticks(range(len(features)), [_label(each.name) for each in features])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _show_unit(axes.xaxis, result.unit)
    axes.set_title(f"{_loss_with_unit(result)} rises by", loc="right", color=theme["muted"], fontsize=10)
    _legend(axes, theme)
    return figure


def _label(text: str) -> str:
    return printable(text)[:40]


def _show_unit(axis: Axis, unit: str) -> None:
    """Add a currency symbol to the numbers on an axis. If the unit is a word, the chart's title shows it instead."""
    shown = unit if is_currency(unit) else ""
    axis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, shown)))


def _loss_with_unit(result: PipelineResult) -> str:
    unit = "" if is_currency(result.unit) else f" in {_label(result.unit)}"
    return f"{_loss_name(result)}{unit}"


def _loss_name(result: PipelineResult) -> str:
    return _label(result.verdict.loss.replace("_", " "))

"""Write the report as files: JSON, Markdown, an HTML page and charts."""

from collections.abc import Mapping
from pathlib import Path

from slipway import atomic
from slipway.integrations import actions
from slipway.review import markdown, page, svg_charts
from slipway.review.report import FOLDER, REPORT, Report


def render(report: Report, environ: Mapping[str, str]) -> Path:
    """Write a report to build/report/ atomically, and to the summary of the job. Return the directory of the files."""
    text, charts = markdown.render_summary(report), svg_charts.draw_charts(report)
    with atomic.replacing(FOLDER) as fresh:
        fresh.mkdir()
        report.write(fresh / REPORT.name)
        (fresh / "report.md").write_text(text, encoding="utf-8")
        (fresh / "report.html").write_text(page.render_page(report, charts), encoding="utf-8")
        for name, chart in charts.items():
            (fresh / name).write_bytes(chart)
    actions.append_summary(text, environ)
    return FOLDER

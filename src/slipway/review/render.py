"""The report as files: data, Markdown, a page, pictures; and the summary of the job."""

from collections.abc import Mapping
from pathlib import Path

from slipway import atomic
from slipway.review import markdown, page, svg_charts
from slipway.review.build_report import collect
from slipway.review.report import FOLDER, REPORT


def write(base: str | None, environ: Mapping[str, str]) -> Path:
    """Gather the report and write it to build/report/, whole or not at all; returns the folder."""
    report = collect(base, environ)
    text, drawn = markdown.whole(report), svg_charts.draw(report)
    with atomic.replacing(FOLDER) as fresh:
        fresh.mkdir()
        report.write(fresh / REPORT.name)
        (fresh / "report.md").write_text(text, encoding="utf-8")
        (fresh / "report.html").write_text(page.page(report, drawn), encoding="utf-8")
        for name, picture in drawn.items():
            (fresh / name).write_bytes(picture)
    if summary := environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
    return FOLDER

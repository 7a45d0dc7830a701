"""Render the report as one HTML page that contains all styles, charts and tables."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slipway.review.layout import lay_out, printable
from slipway.review.report import Report

TEMPLATE = "page.html"


def render_page(report: Report, drawn: Mapping[str, bytes]) -> str:
    """Return the HTML page. `drawn` contains the images of `svg_charts.draw_charts`. All text is escaped."""
    document = lay_out(report)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return environment.get_template(TEMPLATE).render(
        title=f"{document.headline}: {document.sentence}",
        document=document,
        kinds={block: type(block).__name__ for section in document.sections for block in section.blocks},
        images=_images(drawn),
        commit=report.revision.commit,
    )


def _images(drawn: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Return a data URL for each chart in each theme."""
    images: dict[str, dict[str, str]] = {}
    for file, svg in drawn.items():
        name, theme = file.removesuffix(".svg").rsplit("-", 1)
        images.setdefault(name, {})[theme] = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    return images

"""The report as one HTML page that needs nothing else: styles, charts and all tables are inside."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slipway.review.layout import compose, printable
from slipway.review.report import Report

TEMPLATE = "page.html"


def page(report: Report, drawn: Mapping[str, bytes]) -> str:
    """The whole report, with what `charts.draw` gave. Every text in it is escaped."""
    document = compose(report)
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
        pictures=_pictures(drawn),
        commit=report.lineage.commit,
    )


def _pictures(drawn: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Addresses that hold the pictures themselves, by chart and theme."""
    pictures: dict[str, dict[str, str]] = {}
    for file, svg in drawn.items():
        name, theme = file.removesuffix(".svg").rsplit("-", 1)
        pictures.setdefault(name, {})[theme] = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    return pictures

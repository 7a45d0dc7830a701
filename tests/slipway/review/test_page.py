"""The HTML page in a browser: self-contained, accessible, and safe with untrusted text."""

import re
import shutil
import xml.etree.ElementTree as ET
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from slipway.review import svg_charts
from slipway.review.layout import printable
from slipway.review.page import render_page
from slipway.review.report import Report, Stopped
from tests.slipway.accessibility import violations, violations_in_every_view
from tests.slipway.browser import chromium
from tests.slipway.conftest import Repository
from tests.slipway.review.test_markdown import HOSTILE, with_reason


@cache
def drawn(document: str) -> dict[str, bytes]:
    return svg_charts.draw_charts(Report.model_validate_json(document))


def page(report: Report) -> str:
    """Return the page of a report. Equal reports have equal charts, which are drawn once."""
    return render_page(report, drawn(report.model_dump_json()))


def test_equal_reports_give_equal_charts(report: Report) -> None:
    charts = drawn(report.model_dump_json())
    assert set(charts) == {
        f"{name}-{theme}.svg"
        for name in ("interval", "loss", "predictions", "importance")
        for theme in svg_charts.THEMES
    }
    assert charts == svg_charts.draw_charts(report)
    for svg in charts.values():
        assert ET.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize(
    ("unit", "on_axis", "in_title"), [("$", True, ""), ("points", False, " in points"), ("", False, "")]
)
def test_a_unit_is_on_the_axis_if_it_is_a_currency_symbol_else_in_the_title(
    report: Report, unit: str, *, on_axis: bool, in_title: str
) -> None:
    assert report.result
    result = report.result.model_copy(update={"unit": unit})
    charts = svg_charts.draw_charts(report.model_copy(update={"result": result}))
    texts = [
        node.text or "" for node in ET.fromstring(charts["loss-light.svg"]).iter() if str(node.tag).endswith("text")
    ]
    assert f"mean absolute error{in_title} over the holdout" in texts
    labels = [text for text in texts if re.fullmatch(r"\W?[\d,.]+", text)]
    assert any(text.startswith("$") for text in labels) == on_axis
    assert not any("points" in text for text in texts if "error" not in text)


def test_a_script_that_the_font_lacks_is_drawn_without_a_warning(
    report: Report, recwarn: pytest.WarningsRecorder
) -> None:
    assert report.result
    verdict = report.result.verdict
    slices = (verdict.slices[0].model_copy(update={"value": "チャット 💬", "judged": True}),)
    result = report.result.model_copy(update={"verdict": verdict.model_copy(update={"slices": slices})})
    charts = svg_charts.draw_charts(report.model_copy(update={"result": result}))
    assert "チャット 💬" in charts["interval-light.svg"].decode()
    assert not recwarn.list


def test_charts_have_no_scripts_and_no_external_links(report: Report) -> None:
    assert report.result
    verdict = report.result.verdict
    slices = tuple(verdict.slices[0].model_copy(update={"value": words}) for words in HOSTILE)
    result = report.result.model_copy(update={"verdict": verdict.model_copy(update={"slices": slices})})
    for svg in svg_charts.draw_charts(report.model_copy(update={"result": result})).values():
        tree = ET.fromstring(svg)
        assert not [node for node in tree.iter() if re.search(r"script|image|foreignObject", str(node.tag))]
        links = [value for node in tree.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)


def test_there_are_no_charts_without_a_verdict(report: Report) -> None:
    stopped = report.model_copy(update={"result": None, "stopped": Stopped(stage="train", reason="no")})
    assert svg_charts.draw_charts(stopped) == {}
    assert "NO VERDICT" in render_page(stopped, {})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_text_and_charts_on_every_screen(
    browser: Browser, tmp_path: Path, report: Report, width: int, scheme: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(report))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.get_by_role("heading", level=1).inner_text().startswith("UNCHANGED")
    pictures = tab.get_by_role("img").all()
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.evaluate("node => node.naturalWidth") > 0
        assert svg_charts.THEMES[scheme]["challenger"] in decoded(str(picture.evaluate("node => node.currentSrc")))
    tab.get_by_text("The other").first.click()
    assert tab.get_by_role("cell", name="too few").first.is_visible()
    context.close()


def test_the_page_is_accessible(browser: Browser, tmp_path: Path, report: Report, reported: Path) -> None:
    """Check the report of a delivery, and one with every row marked."""
    assert report.result
    verdict = report.result.verdict
    slices = tuple(each.model_copy(update={"regressed": True}) for each in verdict.slices)
    floors = tuple(each.model_copy(update={"held": False}) for each in verdict.floors)
    held = report.model_copy(
        update={
            "result": report.result.model_copy(
                update={
                    "verdict": verdict.model_copy(update={"verdict": "hold", "slices": slices, "floors": floors}),
                }
            ),
            "changes": report.changes.model_copy(update={"rules": ("gate.margin",)}),
        }
    )
    file = tmp_path / "held.html"
    file.write_text(page(held))
    tab = browser.new_page()
    for each in (reported, file):
        tab.goto(each.as_uri())
        for folded in tab.locator("summary").all():
            folded.click()
        assert violations_in_every_view(tab) == []
    tab.close()


@pytest.fixture(scope="module")
def reported(delivered: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page that `slipway report` writes for the delivery 1997H2."""
    delivered.must("slipway", "report")
    return Path(shutil.copy(delivered.path / "build/report/report.html", tmp_path_factory.mktemp("page")))


@pytest.mark.parametrize(
    ("markup", "rule"),
    [
        ('<p style="color: #bbb; background: white">Hardly to be read</p>', "color-contrast"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">', "image-alt"),
        ("<table><tr><th></th><th>b</th></tr><tr><th>a</th><td>1</td></tr></table>", "empty-table-header"),
        ('<label>Price</label><input name="price">', "label"),
    ],
)
def test_the_accessibility_check_finds_each_problem(browser: Browser, markup: str, rule: str) -> None:
    tab = browser.new_page()
    tab.set_content(f'<!doctype html><html lang="en"><title>t</title><main><h1>t</h1>{markup}</main></html>')
    assert {each.split()[0] for each in violations(tab)} == {rule}
    tab.close()


def decoded(address: str) -> str:
    return b64decode(address.split(",", 1)[1]).decode()


@pytest.mark.parametrize("words", HOSTILE)
def test_untrusted_text_never_becomes_markup_or_runs(
    browser: Browser, tmp_path: Path, report: Report, words: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_page(with_reason(report, words), {}))
    tab, dialogs = browser.new_page(), []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    tab.goto(file.as_uri())
    assert printable(words) in printable(tab.get_by_role("heading", level=1).inner_text())
    assert not dialogs
    assert tab.get_by_role("link").count() == 0
    tab.close()

"""The page of the demo: one file, with the right counts, accessible in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from demo.models import Errors
from demo.page import write
from demo.timeline import DemoResult, Event
from slipway.release.load_client import Outcome
from tests.slipway.accessibility import violations
from tests.slipway.browser import chromium

ONE, TWO = "1" * 32, "2" * 32


def result(failed: int) -> DemoResult:
    """Make a result: two models, then the first again, with requests every tenth of a second."""
    answered = [(at / 10, TWO if 100 <= at < 200 else ONE) for at in range(300)]
    outcomes = [Outcome(at, 0.01, bundle, None) for at, bundle in answered]
    outcomes += [Outcome(15.0, 0.01, None, "status 503")] * failed
    return DemoResult(
        events=(
            Event(1.0, 1.0, "The first model is live", f"bundle {ONE:.7}"),
            Event(10.0, 5.2, "#2: SHIP", "<script>alert(1)</script> falls by $635", "report-2.html"),
            Event(30.0, 0.1, "Rolled back", "to the first"),
        ),
        rollouts=((0.0, ONE), (10.0, TWO), (20.0, ONE)),
        outcomes=tuple(outcomes),
        errors=Errors(
            "mean absolute error", "$", ("1997H2", "1998H1"), {ONE: (11_000.0, 12_000.0), TWO: (None, 11_500.0)}
        ),
        diff="-  newTag: sha-1\n+  newTag: sha-2",
        history="when  commit  tag",
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_the_page_has_the_counts_and_escapes_text(tmp_path: Path) -> None:
    good, bad = (write(result(failed), tmp_path).read_text() for failed in (0, 3))
    assert "<b>0 of 300 requests failed</b>" in good
    assert "color: var(--good); font-weight: 750" in good
    assert "<b>3 of 303 requests failed</b>" in bad
    assert "color: var(--bad); font-weight: 750" in bad
    assert "<script" not in good
    assert "trained on it" in good


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_on_any_screen(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    file = write(result(0), tmp_path)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    tab = context.new_page()
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []
    assert violations(tab) == []
    assert tab.locator("polyline").count() == 4
    context.close()

"""The page of the demo: whole in one file, true to what was counted, and as a person sees it in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from demo.load import Outcome
from demo.models import Errors
from demo.page import write
from demo.timeline import Event, Played
from tests.slipway.accessibility import violations
from tests.slipway.browser import chromium

ONE, TWO = "1" * 32, "2" * 32


def played(failed: int) -> Played:
    """Two models, and back to the first, with requests every tenth of a second."""
    answered = [(at / 10, TWO if 100 <= at < 200 else ONE) for at in range(300)]
    outcomes = [Outcome(at, 0.01, bundle, None) for at, bundle in answered]
    outcomes += [Outcome(15.0, 0.01, None, "status 503")] * failed
    return Played(
        events=(
            Event(1.0, 1.0, "The live model answers", f"bundle {ONE:.7}"),
            Event(10.0, 5.2, "#2: SHIP", "<script>alert(1)</script> falls by $635", "report-2.html"),
            Event(30.0, 0.1, "Rolled back", "to the first"),
        ),
        named=((0.0, ONE), (10.0, TWO), (20.0, ONE)),
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


def test_it_tells_what_was_counted(tmp_path: Path) -> None:
    good, bad = (write(played(failed), tmp_path).read_text() for failed in (0, 3))
    assert "<b>0 of 300 requests failed</b>" in good
    assert "color: var(--good); font-weight: 750" in good
    assert "<b>3 of 303 requests failed</b>" in bad
    assert "color: var(--bad); font-weight: 750" in bad
    assert "<script" not in good
    assert "trained on it" in good


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_person_can_read_it(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    file = write(played(0), tmp_path)
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

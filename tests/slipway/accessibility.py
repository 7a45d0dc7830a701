"""Check the accessibility of a page with axe, by all of its rules."""

import itertools
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """Return each violation on the current page: the rule, its impact, and the elements."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {' '.join(map(str, node['target']))}"
        for rule in found
        for node in rule["nodes"]
    ]


def violations_in_every_view(page: Page) -> list[str]:
    """Return the violations in light and dark colours, on a telephone and on a desk."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    found = []
    for scheme, width in itertools.product(schemes, (375, 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{scheme}, {width} pixels: {each}" for each in violations(page)]
    return found

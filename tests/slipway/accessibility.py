"""Whether everybody can read a page, as far as a program can tell: axe in the browser, by all of its rules."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """What axe has against a page as it is shown now, an entry for each place: the rule, how bad it is, and where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {' '.join(map(str, node['target']))}"
        for rule in found
        for node in rule["nodes"]
    ]

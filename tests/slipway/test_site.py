"""The documentation site: strict, self-contained, and the same structure as on GitHub."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.slipway.conftest import ROOT, edit

PAGES = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
STRUCTURE = ("h1", "h2", "h3", "ol", "ul", "li", "table", "pre", "img")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Tags(HTMLParser):
    """The tags of a page: how many, what they load, and how many are in its article."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: set[str] = set()
        self.article: Counter[str] = Counter()
        self._in_article = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loaded += [value for name, value in attrs if LOADING.get(tag) == name and value]
        if tag == "a":
            self.links.add(values.get("href") or "")
        self._in_article |= tag == "article"
        if self._in_article:
            self.article[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"


def copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of `make docs` in a folder."""
    command = re.search(r"^docs: .*\n\t@\$\(BIN\)/(.+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command
    name, *options = command[1].split()
    program = shutil.which(name, path=os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"]]))
    assert program
    return subprocess.run([program, *options], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy(tmp_path_factory.mktemp("site"))
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build/site"


def html_of(page: Path) -> str:
    return str(page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html"))


def test_site_has_every_page_in_its_navigation_and_search(site: Path) -> None:
    links = {link.removeprefix("./") for link in Tags((site / "index.html").read_text()).links}
    found = {item["location"].partition("#")[0] for item in json.loads((site / "search.json").read_text())["items"]}
    pages = {html_of(page) for page in PAGES}
    assert pages <= links
    assert pages <= found


def test_site_builds_without_the_decisions_which_a_fork_does_not_have(tmp_path: Path) -> None:
    shutil.rmtree(copy(tmp_path) / "docs/decisions")
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_build_fails_on_links_that_lead_nowhere_on_the_site(tmp_path: Path) -> None:
    edit(
        copy(tmp_path) / "docs/README.md", "](storage.md)", "](missing.md) [b](storage.md#missing) [c](../SECURITY.md)"
    )
    shutil.copy(ROOT / "SECURITY.md", tmp_path)
    done = build(tmp_path)
    assert done.returncode != 0
    assert "3 issues found" in done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_stay_in_docs(page: Path) -> None:
    """The site has no other files, and a fork may be anywhere, so files outside of docs/ are named and not linked."""
    file = ROOT / "docs" / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
        assert (file.parent / target).resolve().is_relative_to(ROOT / "docs"), target


def test_site_loads_nothing_from_another_host(site: Path) -> None:
    """Mermaid would be loaded from a host of its own, so pictures are SVG files."""
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(PAGES)
    for page in pages:
        tags = Tags(page.read_text())
        assert any(each.endswith(".js") for each in tags.loaded)
        assert [each for each in tags.loaded if "//" in each] == []
        assert 'class="mermaid"' not in page.read_text()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page_has_the_structure_that_github_shows(site: Path, page: Path) -> None:
    """Python-Markdown needs four spaces inside a list item, and blank lines around a list and its paragraphs."""
    source = (ROOT / "docs" / page).read_text()
    expected = Tags(f"<article>{MarkdownIt('commonmark').enable('table').render(source)}</article>").article
    built = Tags((site / html_of(page)).read_text()).article
    assert {tag: built[tag] for tag in STRUCTURE} == {tag: expected[tag] for tag in STRUCTURE}

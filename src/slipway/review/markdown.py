"""Render a report as GitHub Markdown. All texts of a report are untrusted, so they are escaped."""

import re
from collections.abc import Sequence

from slipway.integrations.github_text import REFERENCE, without_effect
from slipway.review.layout import Block, Chart, Code, Document, Table, Text, lay_out, printable
from slipway.review.report import Report

MAX_COMMENT_CHARACTERS = 60_000
"""Maximum length of a comment. GitHub accepts 65,536 characters, which include the marker and CML's watermark."""
MAX_SUMMARY_CHARACTERS = 900_000
"""Maximum length of the summary of a job. GitHub accepts 1 MiB."""
ROW_LIMITS = (40, 12, 4, 1)
"""Maximum numbers of rows per table. The limits are tried in this order until the text is short enough."""
MAX_CELL_CHARACTERS = 300
MAX_TEXT_CHARACTERS = 2_000
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$!&])")
LINKING = re.compile(rf"{REFERENCE}|:(?=//)|\bwww(?=\.)", re.IGNORECASE)
"""Matches the start of a text that GitHub turns into a mention, a reference or a link."""


def render_comment(report: Report, charts: str | None, notes: Sequence[str] = ()) -> str:
    """Return the comment on the pull request, with at most MAX_COMMENT_CHARACTERS.

    `charts` is the address of the directory with the files of `svg_charts.draw_charts`. If `charts` is None, charts are
    shown as text. `notes` are sentences about the report itself.
    """
    return _fit(lay_out(report), charts, notes, MAX_COMMENT_CHARACTERS)


def render_summary(report: Report) -> str:
    """Return the report for the artifact and for the summary of the job, with at most MAX_SUMMARY_CHARACTERS."""
    return _fit(lay_out(report), None, (), MAX_SUMMARY_CHARACTERS)


def escape(text: str) -> str:
    """Return text as one line that GitHub shows without markup, mentions, references, links or invisible characters."""
    line = printable(text)
    clipped = line if len(line) <= MAX_TEXT_CHARACTERS else f"{line[:MAX_TEXT_CHARACTERS]}…"
    return SPECIAL.sub(r"\\\1", without_effect(clipped, LINKING))


def _fit(document: Document, charts: str | None, notes: Sequence[str], max_characters: int) -> str:
    """Render a document. If the text is too long, omit rows of tables, and show how many are omitted."""
    for rows in (None, *ROW_LIMITS):
        text = _render(document, charts, notes, rows)
        if len(text) <= max_characters:
            return text
    return f"{_head(document, notes)}\n\nThe report is too long for this page; see the artifact `report` of the run.\n"


def _render(document: Document, charts: str | None, notes: Sequence[str], rows: int | None) -> str:
    parts = [_head(document, notes)]
    for section in document.sections:
        parts.append(f"### {escape(section.title)}")
        parts += [_block(block, charts, rows) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _head(document: Document, notes: Sequence[str]) -> str:
    first = f"**{document.headline}**: {escape(document.sentence)}."
    warned = [f"> [!WARNING]\n> {escape(warning)}" for warning in document.warnings]
    noted = [f"> [!NOTE]\n> {escape(note)}" for note in notes]
    return "\n\n".join([first, *warned, *noted])


def _block(block: Block, charts: str | None, rows: int | None) -> str:
    match block:
        case Text():
            return escape(block.text)
        case Code():
            return _code(block)
        case Table():
            table = _table(block, rows)
            return table if block.folded is None else _folded(escape(block.folded), table)
        case Chart():
            text = block.without_image
            rendered = _code(text) if isinstance(text, Code) else _table(text, rows)
            if charts is None:
                return f"{escape(block.alt)}:\n\n{rendered}"
            return f"{_image(block, charts)}\n\n{_folded('As text', rendered)}"


def _image(chart: Chart, charts: str) -> str:
    light, dark = (f"{charts}/{chart.name}-{theme}.svg" for theme in ("light", "dark"))
    alt = re.sub(r"[^\w .,'%-]", "", chart.alt)
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img alt="{alt}" src="{light}"></picture>'


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _code(code: Code) -> str:
    lines = (re.sub(r"[\r\n`]", " ", line)[:MAX_CELL_CHARACTERS] for line in code.lines)
    return "\n".join([f"```{code.language}", *lines, "```"])


def _table(table: Table, max_rows: int | None) -> str:
    rows = table.rows if max_rows is None else table.rows[:max_rows]
    lines = [
        _row(table.heads),
        "|" + "|".join(":--" if index == 0 else "--:" for index in range(len(table.heads))) + "|",
    ]
    for index, row in enumerate(rows):
        cells = [escape(cell[:MAX_CELL_CHARACTERS]) for cell in row]
        lines.append(f"| {' | '.join(f'**{cell}**' if index in table.marked and cell else cell for cell in cells)} |")
    if len(rows) < len(table.rows):
        lines.append(f"\nand {len(table.rows) - len(rows):,} more, in the artifact `report` of the run")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"

"""The report as GitHub's Markdown. Every text in it may be a stranger's and is shown as text, never as markup."""

import re
from collections.abc import Sequence

from slipway.review.layout import Block, Chart, Code, Document, Table, Text, compose, printable
from slipway.review.report import Report

COMMENT_CHARACTERS = 60_000
"""GitHub takes 65,536 characters; CML and the marker that finds the comment again need some."""
SUMMARY_CHARACTERS = 900_000
"""GitHub takes 1 MiB of a job's summary."""
FEWER_ROWS = (40, 12, 4, 1)
CELL = 300
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$!])")
LINKING = re.compile(r"[@#](?=\w)|:(?=//)|\bwww(?=\.)|\bGH(?=-\d)", re.IGNORECASE)
"""What GitHub makes a mention, a reference or a link of."""
ZERO_WIDTH = "\u200b"


def comment(report: Report, pictures: str | None, notes: Sequence[str] = ()) -> str:
    """The comment on the pull request, at most `COMMENT_CHARACTERS` long.

    `pictures` is the address below which the files of `charts.draw` lie; without it each chart has its other form only.
    `notes` are sentences about the report itself.
    """
    return _fit(compose(report), pictures, notes, COMMENT_CHARACTERS)


def whole(report: Report) -> str:
    """The whole report, for the artifact and the summary of a job."""
    return _fit(compose(report), None, (), SUMMARY_CHARACTERS)


def escape(text: str) -> str:
    """Plain text: on one line, without markup, mentions, references, links, or what cannot be seen."""
    line = printable(text)
    clipped = line if len(line) <= 2_000 else f"{line[:2_000]}…"
    return SPECIAL.sub(r"\\\1", LINKING.sub(lambda found: f"{found[0]}{ZERO_WIDTH}", clipped))


def _fit(document: Document, pictures: str | None, notes: Sequence[str], most: int) -> str:
    """With as many rows of each table as there is room for; what is left out is counted."""
    for rows in (None, *FEWER_ROWS):
        text = _write(document, pictures, notes, rows)
        if len(text) <= most:
            return text
    return f"{_head(document, notes)}\n\nThe report is too long to be shown here; the artifact of the run has it.\n"


def _write(document: Document, pictures: str | None, notes: Sequence[str], rows: int | None) -> str:
    parts = [_head(document, notes)]
    for section in document.sections:
        parts.append(f"### {escape(section.title)}")
        parts += [_block(block, pictures, rows) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _head(document: Document, notes: Sequence[str]) -> str:
    first = f"**{document.headline}**: {escape(document.sentence)}."
    warned = [f"> [!WARNING]\n> {escape(warning)}" for warning in document.warnings]
    noted = [f"> [!NOTE]\n> {escape(note)}" for note in notes]
    return "\n\n".join([first, *warned, *noted])


def _block(block: Block, pictures: str | None, rows: int | None) -> str:
    match block:
        case Text():
            return escape(block.text)
        case Code():
            return _code(block)
        case Table():
            table = _table(block, rows)
            return table if block.folded is None else _folded(escape(block.folded), table)
        case Chart():
            sketch = _code(block.sketch) if isinstance(block.sketch, Code) else _table(block.sketch, rows)
            if pictures is None:
                return f"{escape(block.alt)}:\n\n{sketch}"
            return f"{_picture(block, pictures)}\n\n{_folded('Without a picture', sketch)}"


def _picture(chart: Chart, pictures: str) -> str:
    light, dark = (f"{pictures}/{chart.name}-{theme}.svg" for theme in ("light", "dark"))
    alt = re.sub(r"[^\w .,'%-]", "", chart.alt)
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img alt="{alt}" src="{light}"></picture>'


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _code(code: Code) -> str:
    lines = (re.sub(r"[\r\n`]", " ", line)[:CELL] for line in code.lines)
    return "\n".join([f"```{code.language}", *lines, "```"])


def _table(table: Table, most: int | None) -> str:
    rows = table.rows if most is None else table.rows[:most]
    lines = [
        _row(table.heads),
        "|" + "|".join(":--" if index == 0 else "--:" for index in range(len(table.heads))) + "|",
    ]
    for index, row in enumerate(rows):
        cells = [escape(cell[:CELL]) for cell in row]
        lines.append(f"| {' | '.join(f'**{cell}**' if index in table.marked and cell else cell for cell in cells)} |")
    if len(rows) < len(table.rows):
        lines.append(f"\nand {len(table.rows) - len(rows):,} more, in the artifact of the run")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"

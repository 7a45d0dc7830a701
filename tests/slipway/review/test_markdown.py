"""The comment on GitHub: its content, its size, and that untrusted text never becomes markup."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from slipway.review import markdown
from slipway.review.report import FileChange, Report, Revision, Stopped

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<!-- slipway-report -->",
    "](https://evil.example) [x](https://evil.example)",
    "@everyone and team/all #1 GH-1",
    "a | b\n\n# heading\n- list\n```\ncode",
    "$x^2$ `code` **bold** ~~gone~~ ![i](https://evil.example/i.png)",
    "www.evil.example https://evil.example",
    "&commat;everyone &num;1 GH&hyphen;1",
    "\u202eright to left",
    "\x00\x1b[31m $\\frac{1 \\foo$",
)
TAGS = {"p", "strong", "h3", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "details", "summary"}
TAGS |= {"blockquote"}


def changed(report: Report, part: str, **update: Any) -> Report:
    return report.model_copy(update={part: getattr(report, part).model_copy(update=update)})


def with_reason(report: Report, reason: str, verdict: str = "ship") -> Report:
    assert report.result
    decided = report.result.verdict.model_copy(update={"verdict": verdict, "reason": reason})
    return changed(report, "result", verdict=decided)


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


def test_the_first_line_is_the_verdict_and_its_reason(report: Report) -> None:
    reason = "mean absolute error falls by $822 (6.9%), 95% interval [353, 1,315], on 796 sales"
    first = markdown.render_comment(with_reason(report, reason), None).splitlines()[0]
    assert first.replace("\\", "") == f"**SHIP**: {reason}."
    assert f"<strong>SHIP</strong>: {reason}." in rendered(first)


def test_without_a_verdict_the_first_line_is_the_stage_that_stopped(report: Report) -> None:
    stopped = Stopped(stage="validate", reason="data/1998H1.csv, row 7: price is not above 0; correct it.")
    text = markdown.render_comment(report.model_copy(update={"result": None, "stopped": stopped}), None)
    assert text.startswith("**NO VERDICT**: validate stopped: data/1998H1.csv, row 7: price")
    assert "### What changed" in text


def test_charts_are_images_with_folded_text_or_text_only(report: Report) -> None:
    alone = markdown.render_comment(report, None)
    assert "```mermaid\nxychart-beta" in alone
    assert "<img" not in alone
    shown = markdown.render_comment(report, "https://github.example/o/r/raw/reports/7/abc")
    assert 'src="https://github.example/o/r/raw/reports/7/abc/loss-light.svg"' in shown
    assert 'srcset="https://github.example/o/r/raw/reports/7/abc/loss-dark.svg"' in shown
    assert "```mermaid\nxychart-beta" in shown


def test_changed_rules_come_before_the_sections(report: Report) -> None:
    text = markdown.render_comment(changed(report, "changes", rules=("gate.confidence",)), None)
    assert "changes the rules that judge it: gate.confidence" in text.split("###")[0]


def test_notes_come_before_the_sections(report: Report) -> None:
    text = markdown.render_comment(report, None, ["Code of the fork a/b made this."])
    assert "> [!NOTE]\n> Code of the fork a/b made this." in text.split("###")[0]


@pytest.mark.parametrize("words", HOSTILE)
def test_untrusted_text_never_becomes_markup(report: Report, words: str) -> None:
    hostile = changed(
        with_reason(report, words), "changes", files=(FileChange(path=words[:200], added=1, removed=0),), rules=(words,)
    )
    text = markdown.render_comment(hostile, None, [words])
    html = rendered(text)
    assert set(re.findall(r"<(\w+)", html)) <= TAGS
    assert "<!--" not in html
    assert not re.search(r"@\w|[^\w]#1\b", html)  # an entity becomes a character before GitHub looks for mentions
    visible = re.sub(r"\\(.)", r"\1", text)
    assert not re.search(r"@\w|https?://evil|\bwww\.|[^\w]#1\b|GH-1|\u202e", visible)


@given(st.text(max_size=300))
def test_escaped_text_is_one_line_of_plain_text(words: str) -> None:
    escaped = markdown.escape(words)
    assert "\n" not in escaped
    inline = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parseInline(escaped)[0].children or []
    assert {child.type for child in inline} <= {"text", "text_special"}


def test_long_tables_are_shortened(report: Report) -> None:
    files = tuple(FileChange(path=f"src/model/{'x' * 150}{index}", added=1, removed=1) for index in range(500))
    text = markdown.render_comment(changed(report, "changes", files=files), None)
    assert len(text) <= markdown.MAX_COMMENT_CHARACTERS
    assert re.search(r"and \d+ more, in the artifact `report` of the run", text)
    assert text.startswith("**UNCHANGED**")


def test_a_report_with_long_texts_is_shortened(report: Report) -> None:
    rules = tuple("r" * 200 for _ in range(500))
    text = markdown.render_comment(
        changed(with_reason(report, "w " * 900_000), "changes", rules=rules), None, ["n" * 5_000] * 20
    )
    assert len(text) <= markdown.MAX_COMMENT_CHARACTERS


def test_the_report_has_the_commands_that_reproduce_it(report: Report) -> None:
    text = markdown.render_summary(report)
    block = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[-1]
    revision: Revision = report.revision
    assert f"git fetch origin pull/7/merge && git checkout {revision.commit}" in block
    assert "slipway reproduce" in block

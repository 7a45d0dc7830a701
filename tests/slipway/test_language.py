"""The language lint matches the constructions to avoid, and only those."""

import subprocess
from pathlib import Path

import pytest

from tests.slipway import language
from tests.slipway.language import Rule, Text

RULES = language.rules()
BUDGETED = next(rule for rule in RULES if rule.name == "semicolon")


def matched(rule: Rule, words: str) -> bool:
    kind = next(iter(sorted(rule.kinds)), "prose")
    return any(rule.matches(Text(kind, 1, words)))


@pytest.mark.parametrize(("rule", "words"), [(rule, bad) for rule in RULES for bad in rule.bad])
def test_rule_matches_its_bad_example(rule: Rule, words: str) -> None:
    assert matched(rule, words)


@pytest.mark.parametrize(("rule", "words"), [(rule, good) for rule in RULES for good in rule.good])
def test_rule_does_not_match_its_good_example(rule: Rule, words: str) -> None:
    assert not matched(rule, words)


def test_rule_applies_only_to_its_kinds_of_text() -> None:
    heading = next(rule for rule in RULES if rule.name == "heading")
    assert [*heading.matches(Text("heading", 7, "Who is told"))] == [(7, "Who")]
    assert not [*heading.matches(Text("comment", 7, "Who is told"))]


def test_rule_with_a_budget_passes_below_it_and_fails_above() -> None:
    plain = [Text("prose", line, "It runs. It stops.") for line in range(100)]
    joined = [Text("prose", line, "It runs; it stops.") for line in range(12)]
    assert BUDGETED.allowed == 5
    assert not language.findings("a.md", [*plain, *joined[:10]], [BUDGETED])
    assert len(language.findings("a.md", [*plain, *joined], [BUDGETED])) == 12
    assert not language.findings("a.md", joined[:1], [BUDGETED])


def test_markdown_is_split_into_headings_paragraphs_items_and_cells_without_code() -> None:
    page = (
        "# Title\n\nOne `make x`\ntwo.\n\n- an item\n- another\n\n"
        "```sh\nnobody\n```\n| a | [b](c.md) |\n|---|---|\n> quoted"
    )
    assert language.texts_of("a.md", page) == [
        Text("heading", 1, "Title"),
        Text("prose", 3, "One CODE\ntwo."),
        Text("prose", 6, "an item"),
        Text("prose", 7, "another"),
        Text("prose", 12, "a"),
        Text("prose", 12, "b"),
        Text("prose", 14, "quoted"),
    ]


def test_python_gives_docstrings_helps_messages_comments_sentences_and_test_names() -> None:
    module = '''"""Module."""

NAME = 1  # why
"""Attribute."""
SHORT = "two words"
LONG = "a sentence of five words"


def function(x=Option(help="Help.")):
    """Do it.

    And more.
    """
    raise InputError(f"{x} is wrong")


@pytest.fixture
def made():
    """A noun."""


def test_it_works():
    """Behaviour."""
'''
    found = {(each.kind, each.line, each.words.strip()) for each in language.texts_of("src/a.py", module)}
    assert found == {
        ("docstring", 1, "Module."),
        ("comment", 3, "why"),
        ("docstring", 4, "Attribute."),
        ("text", 6, "a sentence of five words"),
        ("help", 9, "Help."),
        ("summary", 10, "Do it."),
        ("docstring", 12, "And more."),
        ("message", 14, "CODE is wrong"),
        ("docstring", 19, "A noun."),
        ("name", 22, "it works"),
        ("docstring", 23, "Behaviour."),
    }


def test_yaml_gives_comments_and_the_names_that_github_shows() -> None:
    workflow = "# One comment\n# in two lines.\non: push\njobs:\n  a:\n    name: Run it # last\n"
    assert language.texts_of("a.yml", workflow) == [
        Text("comment", 1, "One comment\nin two lines."),
        Text("comment", 6, "last"),
        Text("text", 6, "Run it"),
    ]


def test_html_gives_the_text_between_tags() -> None:
    page = "<style>\nnobody</style>\n<p>One {{ value }}\n</p>\n"
    assert language.texts_of("a.html", page) == [Text("prose", 3, "One CODE")]


def test_line_of_a_match_is_the_line_in_the_file() -> None:
    (rule,) = [each for each in RULES if each.name == "nobody"]
    page = "# Title\n\nThe first line,\nthe second `code`, which nobody\nreads.\n"
    (found,) = language.findings("a.md", language.texts_of("a.md", page), [rule])
    assert str(found) == f"a.md:4: nobody: 'nobody': {rule.instead}"


def test_command_fails_on_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "good.md").write_text("It runs.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    monkeypatch.chdir(tmp_path)
    assert language.main([]) == 0
    (tmp_path / "bad.md").write_text("Nobody reads it.\n")
    assert language.main(["--list", "./bad.md"]) == 0
    assert capsys.readouterr().out.startswith("bad.md:1: nobody: ")
    assert language.main([]) == 1
    assert language.main(["--count"]) == 0
    assert "     1 in all" in capsys.readouterr().out

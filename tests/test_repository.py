"""What the repository as a whole promises."""

import ast
import re
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
    "\0"
)[:-1]
TEXTS = [name for name in TRACKED if not name.startswith(("sample/", "requirements/"))]


def test_each_room_can_be_read_at_a_sitting() -> None:
    """Lines of code, without what explains it; docs/decisions/rooms.md says how much the whole may be."""
    rooms: Counter[str] = Counter()
    for name in TRACKED:
        if name.startswith("src/") and name.endswith(".py"):
            lines = lines_of_code(name)
            assert lines <= 260, name
            rooms[str(Path(name).parent)] += lines
    assert max(rooms.values()) <= 1_650, rooms
    shipping = {room: lines for room, lines in rooms.items() if not room.startswith("src/slipway/demo")}
    assert 1_000 < sum(shipping.values()) <= 10_000, rooms


def lines_of_code(name: str) -> int:
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}
    tree = ast.parse((ROOT / name).read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    told = {line for each in texts if isinstance(each, ast.Constant) for line in span(each)}
    with (ROOT / name).open("rb") as file:
        tokens = [each for each in tokenize.tokenize(file.readline) if each.type not in layout]
    return len({line for each in tokens[1:] for line in range(each.start[0], each.end[0] + 1)} - told)


def span(node: ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def test_no_tracked_file_is_large() -> None:
    assert not [name for name in TRACKED if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_000_000]


@pytest.mark.parametrize("name", [name for name in TEXTS if (ROOT / name).is_file()])
def test_no_path_of_a_machine_and_no_registry_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"(^|[^\w.])/(root|home|Users)/", text)
    assert not re.search(r"(pypi|pythonhosted|npmjs)\.(org|com)", text)


def test_no_pickle_is_ever_loaded() -> None:
    for name in TRACKED:
        if name.startswith("src/"):
            text = (ROOT / name).read_text()
            assert not re.search(r"\b(pickle|joblib|cloudpickle|dill|skops)\b|allow_pickle=True|eval\(", text), name


@pytest.mark.sample
def test_the_deliveries_of_the_sample_are_the_ones_that_wait() -> None:
    assert {name for name in TRACKED if name.startswith("sample/source/")} == {
        f"sample/source/{name}.csv" for name in ("1997H2", "1998H1", "1998H2")
    }
    assert yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["nfiles"] >= 9  # and those that have shipped

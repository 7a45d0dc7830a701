"""Changes for clients, by the schemas and the records of the champion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.artifacts import BUNDLE, CHAMPION
from slipway.bundle import Column, Schema
from slipway.review.client_changes import client_changes, field_changes
from slipway.review.report import ClientChanges

AREA = Column(name="area", type="number", required=True, minimum=0, maximum=100)
DAY = Column(name="day", type="date", required=False, minimum="1990-01-01", maximum="2030-12-31")
WALL = Column(name="wall", type="category", required=True, values=("brick", "wood"))


def schema(*columns: Column) -> Schema:
    return Schema(kind="regression", key=("area",), target="price", classes=None, columns=columns)


def changed(column: Column, **values: Any) -> list[tuple[str, str]]:
    found = field_changes(schema(column), schema(column.model_copy(update=values)))
    return [(each.change, each.old_requests) for each in found]


def test_equal_schemas_change_nothing() -> None:
    assert [*field_changes(schema(AREA, DAY, WALL), schema(WALL, AREA, DAY))] == []


@pytest.mark.parametrize(
    ("before", "now", "change", "old_requests"),
    [
        ((AREA, WALL), (AREA,), "removed", "refused"),
        ((AREA, DAY), (AREA,), "removed", "refused if they have it"),
        ((AREA,), (AREA, WALL), "added, required", "refused"),
        ((AREA,), (AREA, DAY), "added, optional", "accepted"),
    ],
)
def test_added_and_removed_fields_are_listed(
    before: tuple[Column, ...], now: tuple[Column, ...], change: str, old_requests: str
) -> None:
    (found,) = field_changes(schema(*before), schema(*now))
    assert (found.change, found.old_requests) == (change, old_requests)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (AREA, {"required": False}, [("optional, was required", "accepted")]),
        (DAY, {"required": True}, [("required, was optional", "refused without it")]),
        (AREA, {"maximum": 90}, [("from 0 to 90, was from 0 to 100", "refused outside")]),
        (AREA, {"exclusive_minimum": True}, [("greater than 0 to 100, was from 0 to 100", "refused outside")]),
        (AREA, {"maximum": 200}, [("from 0 to 200, was from 0 to 100", "accepted")]),
        (AREA, {"minimum": None}, [("to 100, was from 0 to 100", "accepted")]),
        (AREA, {"minimum": 5, "maximum": 200}, [("from 5 to 200, was from 0 to 100", "refused outside")]),
        (AREA, {"minimum": None, "maximum": None}, [("any value, was from 0 to 100", "accepted")]),
        (
            DAY,
            {"minimum": "1995-01-01"},
            [("from 1995-01-01 to 2030-12-31, was from 1990-01-01 to 2030-12-31", "refused outside")],
        ),
        (WALL, {"values": ("brick", "wood", "stone")}, [("also 'stone'", "accepted")]),
        (
            WALL,
            {"values": ("wood", "stone")},
            [("also 'stone'", "accepted"), ("no longer 'brick'", "refused with such a value")],
        ),
        (WALL, {"values": None}, [("any text, was one of a list", "accepted")]),
        (
            WALL.model_copy(update={"values": None}),
            {"values": ("wood",)},
            [("one of 'wood', was any text", "refused with another value")],
        ),
        (AREA, {"numbers": (1, 2.5)}, [("one of 1 and 2.5, was any number", "refused with another value")]),
        (AREA, {"whole": True}, [("a whole number, was any number", "refused with another number")]),
        (AREA.model_copy(update={"whole": True}), {"whole": False}, [("any number, was a whole number", "accepted")]),
        (AREA, {"type": "category"}, [("a category, was a number", "refused")]),
    ],
)
def test_changed_fields_are_listed(column: Column, values: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert changed(column, **values) == expected


def test_a_removed_field_breaks_no_client_of_a_bundle_that_ignores_it() -> None:
    lenient = schema(AREA).model_copy(update={"unknown_fields": "ignore"})
    found = [(each.field, each.change, each.old_requests) for each in field_changes(schema(AREA, WALL), lenient)]
    assert found == [
        ("wall", "removed", "accepted"),
        ("any other field", "ignored, was refused", "accepted"),
    ]
    (strict,) = field_changes(lenient, schema(AREA))
    assert (strict.change, strict.old_requests) == ("refused, was ignored", "refused if they have one")


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_records_of_the_champion_are_read_by_the_challenger(
    trained_workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BUNDLE, CHAMPION, dirs_exist_ok=True)
    assert client_changes(CHAMPION, BUNDLE) is None

    def widen(schema: Any) -> None:
        next(each for each in schema["columns"] if each["name"] == "rooms")["maximum"] = 90

    def enlarge(golden: Any) -> None:
        golden["rows"][2]["rooms"] = 80

    rewrite(CHAMPION / "schema.json", widen)
    accepted = client_changes(CHAMPION, BUNDLE)
    assert isinstance(accepted, ClientChanges)
    assert (accepted.records, accepted.refused, accepted.reason) == (8, 0, None)
    rewrite(CHAMPION / "golden.json", enlarge)
    refused = client_changes(tmp_path / CHAMPION, BUNDLE)
    assert isinstance(refused, ClientChanges)
    assert (refused.records, refused.refused) == (8, 1)
    assert refused.reason == "#/0/rooms: Input should be less than or equal to 40."

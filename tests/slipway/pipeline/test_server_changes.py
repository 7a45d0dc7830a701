"""Each change of the server is found in a bundle, and none in a bundle that only rounds otherwise."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.bundle import Bundle, Column, Decision, Schema, load_bundle
from slipway.errors import InputError
from slipway.pipeline.server_changes import decision_changes, schema_changes, server_changes

TOLERANCE = 1e-5
ROOMS = Column(name="rooms", type="number", required=True, minimum=1, maximum=40)
WALL = Column(name="wall", type="category", required=True, values=("wood", "brick"))
SCHEMA = Schema(kind="regression", key=("id",), target="price", classes=None, columns=(ROOMS, WALL))


def columns(*given: Column) -> Schema:
    return SCHEMA.model_copy(update={"columns": given})


def test_equal_schemas_have_no_changes() -> None:
    assert [*schema_changes(SCHEMA, SCHEMA.model_copy())] == []


@pytest.mark.parametrize(
    ("now", "change"),
    [
        (columns(ROOMS.model_copy(update={"private": "no"}), WALL), "the mark private of the column rooms"),
        (
            columns(*(each.model_copy(update={"private": "drop"}) for each in (ROOMS, WALL))),
            "the mark private of the columns rooms and 1 more",
        ),
        (columns(ROOMS.model_copy(update={"maximum": 41}), WALL), "the valid values of the column rooms"),
        (columns(ROOMS, WALL.model_copy(update={"required": False})), "the valid values of the column wall"),
        (columns(ROOMS, WALL.model_copy(update={"values": ("wood",)})), "the valid values of the column wall"),
        (columns(ROOMS), "the removed column wall"),
        (columns(ROOMS, WALL, ROOMS.model_copy(update={"name": "baths"})), "the added column baths"),
        (SCHEMA.model_copy(update={"unknown_fields": "ignore"}), "unknown fields, which the server will ignore"),
    ],
)
def test_each_change_of_a_schema_is_found(now: Schema, change: str) -> None:
    assert [*schema_changes(SCHEMA, now)] == [change]


def rule(threshold: float | None, cost: float = 1.0) -> Decision:
    return Decision(costs=((0.0, cost), (5.0, 0.0)), threshold=threshold)


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        (None, None, False),
        (None, rule(0.2), True),
        (rule(0.2), None, True),
        (rule(0.2), rule(0.2 * (1 + 1e-7), cost=1.1), False),  # another processor rounds otherwise
        (rule(0.2), rule(0.21), True),
        (rule(None), rule(None, cost=2.0), True),
    ],
)
def test_another_rule_for_choosing_the_class_is_found(
    before: Decision | None, now: Decision | None, changes: bool
) -> None:
    assert decision_changes(before, now, TOLERANCE) == changes


@pytest.fixture
def bundle(trained_workplace: Path) -> Bundle:
    return load_bundle(trained_workplace / "build/bundle")


@pytest.fixture
def rewritten(bundle: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    """A copy of the bundle in which a function changed the content of a JSON file."""

    def rewrite(name: str, change: Callable[[Any], object]) -> Bundle:
        path = tmp_path / "copy"
        shutil.copytree(bundle.path, path)
        content = json.loads((path / name).read_text())
        change(content)
        (path / name).write_text(json.dumps(content))
        return load_bundle(path)

    return rewrite


def without_first_row(golden: dict[str, list[Any]]) -> None:
    for each in golden.values():
        each.pop(0)


def with_rounding(reference: dict[str, Any]) -> None:
    rooms = reference["features"]["living_area_sqft"]
    rooms["edges"] = [edge * (1 + 1e-7) for edge in rooms["edges"]]
    rooms["counts"][0] += 1


@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("golden.json", without_first_row, ("the examples in the API documentation",)),
        ("golden.json", lambda golden: golden["predictions"][0].__setitem__(0, 1.0), ()),
        (
            "reference.json",
            lambda reference: reference["features"].pop("rooms"),
            ("the training distributions that drift is measured against",),
        ),
        ("reference.json", with_rounding, ()),
    ],
    ids=["examples", "predictions of examples", "distributions", "rounding"],
)
def test_other_examples_and_distributions_count_only_if_the_training_rows_are_the_same(
    bundle: Bundle,
    rewritten: Callable[..., Bundle],
    file: str,
    change: Callable[[Any], object],
    found: tuple[str, ...],
) -> None:
    other = rewritten(file, change)
    assert server_changes(bundle, other, TOLERANCE) == found
    np.save(other.path / "training_rows.npy", np.arange(3, dtype=np.uint64))
    assert server_changes(bundle, other, TOLERANCE) == ()


def test_a_corrupt_file_of_a_bundle_is_an_error(bundle: Bundle, rewritten: Callable[..., Bundle]) -> None:
    other = rewritten("golden.json", lambda golden: golden.pop("rows"))
    with pytest.raises(InputError, match=r"copy/golden.json is corrupt"):
        server_changes(bundle, other, TOLERANCE)

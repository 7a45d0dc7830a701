"""Each violation of the contract is an error that names the cause."""

from types import SimpleNamespace
from typing import Any

import pandera.pandas as pa
import pytest

import model
from slipway.contract import Model, check_contract
from slipway.errors import InputError
from tests.slipway.conftest import ROOT, Repository

NAMES = ("SCHEMA", "KEY", "TIME", "TARGET", "FEATURES", "fit")


def changed(**names: Any) -> Model:
    return SimpleNamespace(**({name: getattr(model, name) for name in NAMES} | names))  # type: ignore[return-value]


def with_marks(**others: str | None) -> pa.DataFrameSchema:
    """Mark each column of the sample as not private, except for `others`."""
    schema = model.SCHEMA
    for name in schema.columns:
        schema = schema.update_column(name, metadata={"private": others.get(name, "no")})
    return schema


def test_the_sample_keeps_the_contract() -> None:
    check_contract(model)
    check_contract(changed(TIME=None))
    check_contract(changed(SCHEMA=with_marks(rooms="hash", wall="drop")))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"KEY": ("parcel",)}, "'parcel' is used, but SCHEMA has no such column"),
        ({"KEY": ()}, "KEY and FEATURES must each name a column"),
        ({"FEATURES": ()}, "KEY and FEATURES must each name a column"),
        ({"KEY": (*model.KEY, "price")}, "KEY must not name the target"),
        ({"TIME": "wall"}, "TIME is 'wall', which is not a DateTime"),
        ({"SCHEMA": model.SCHEMA.update_column("latitude", nullable=True)}, "'latitude' may not be nullable"),
        ({"SCHEMA": model.SCHEMA.update_column("rooms", dtype="complex128")}, "'rooms' is of type complex128"),
        ({"SCHEMA": model.SCHEMA.update_column("rooms", dtype=None)}, "'rooms' is of type None"),
        ({"SCHEMA": model.SCHEMA.add_columns({'a "room"': pa.Column(float)})}, "has a quotation mark"),
        (
            {"SCHEMA": model.SCHEMA.update_column("latitude", dtype="float32")},
            "the KEY column 'latitude' is of type float32",
        ),
        ({"TIME": "sold"}, "'sold' is used"),
        ({"FEATURES": (*model.FEATURES, "price")}, "which would leak the answer"),
        ({"SCHEMA": model.SCHEMA.update_column("price", nullable=True)}, "may not be nullable"),
        ({"SCHEMA": pa.DataFrameSchema({})}, "SCHEMA has no such column"),
        ({"SCHEMA": with_marks(rooms="yes")}, "the column 'rooms' has the mark `private` 'yes'"),
        ({"SCHEMA": with_marks(rooms=None)}, "the column 'rooms' has no mark `private`, but other features have one"),
    ],
)
def test_the_error_names_the_violation(names: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_contract(changed(**names))


@pytest.mark.parametrize("name", NAMES)
def test_the_error_lists_a_missing_name(name: str) -> None:
    broken = changed()
    delattr(broken, name)
    with pytest.raises(InputError, match=f"lacks the name {name}"):
        check_contract(broken)


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        (
            "schema.py",
            "import nonsense\n",
            "(ModuleNotFoundError: No module named 'nonsense')",
        ),
        ("train.py", "def fit(:\n", "src/model cannot be imported (SyntaxError"),
    ],
)
def test_an_exception_of_the_model_is_reported_in_one_sentence(tmp_path: Any, file: str, code: str, words: str) -> None:
    import shutil

    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "src/model" / file).write_text(code)
    result = Repository(tmp_path).run("slipway", "validate")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert words in result.err

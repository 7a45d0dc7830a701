import re
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.engines.pandas_engine import DateTime

from slipway.artifacts import PARAMS
from slipway.cli import pipeline
from slipway.errors import InputError
from slipway.pipeline.slices import check_rules, columns_of, slice_labels
from tests.slipway.conftest import ROOT
from tests.slipway.pipeline.test_unusual_models import make

FRAME = pd.DataFrame({"wall": ["wood", None, "brick"], "year": [1919.0, 1920.0, np.nan]})


def test_labels_are_values_or_bins_or_missing() -> None:
    labels = slice_labels(FRAME, {"wall": "values", "year": [1950, 1920]})
    assert labels["wall"].tolist() == ["wood", "missing", "brick"]
    assert labels["year"].tolist() == ["under 1920", "1920 to 1950", "missing"]


def test_a_missing_value_and_the_text_missing_are_two_slices() -> None:
    labels = slice_labels(pd.DataFrame({"wall": ["missing", None]}), {"wall": "values"})
    assert labels["wall"].tolist() == ["'missing'", "missing"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5, unique=True), st.floats(-1e6, 1e6))
def test_a_number_is_in_the_bin_that_is_named(edges: list[float], value: float) -> None:
    label = slice_labels(pd.DataFrame({"x": [value]}), {"x": edges})["x"][0]
    below = sum(edge <= value for edge in edges)
    ordered = sorted(edges)
    expected = (
        f"under {ordered[0]:g}"
        if below == 0
        else f"{ordered[-1]:g} or more"
        if below == len(edges)
        else f"{ordered[below - 1]:g} to {ordered[below]:g}"
    )
    assert label == expected


@pytest.mark.parametrize(
    ("rules", "words"), [({"roof": "values"}, "not a column of the data"), ({"wall": [1.0]}, "not numeric")]
)
def test_the_error_names_an_invalid_rule(rules: dict[str, list[float] | str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        slice_labels(FRAME, rules)  # type: ignore[arg-type]


def test_a_pair_of_columns_has_a_slice_for_each_combination() -> None:
    rows = pd.DataFrame({"size": [1.0, 5.0, 5.0, None], "wall": ["brick", "wood", None, "wood"]})
    labels = slice_labels(rows, {"size & wall": "values", "size": [3.0]})
    assert labels["size & wall"].tolist() == [
        "under 3, brick",
        "3 or more, wood",
        "3 or more, missing",
        "missing, wood",
    ]
    assert columns_of({"size & wall", "age"}, rows.columns) == {"size", "wall", "age"}
    assert columns_of({"a & b"}, ["a & b"]) == {"a & b"}


def test_a_pair_takes_no_edges_and_needs_known_columns() -> None:
    rows = pd.DataFrame({"size": [1.0], "wall": ["brick"]})
    with pytest.raises(InputError, match=r"`evaluate\.slices\.size & wall` is a pair of columns, which has no edges"):
        slice_labels(rows, {"size & wall": [1.0]})
    with pytest.raises(InputError, match=r"`evaluate\.slices\.size & roof` names 'roof', which is not a column"):
        slice_labels(rows, {"size & roof": "values"})
    with pytest.raises(InputError, match=r"`evaluate\.slices\.size & wall & wall` has 3 columns; name one or two"):
        slice_labels(rows, {"size & wall & wall": "values"})


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ("rooof: values", "`evaluate.slices.rooof` is not a column of the data"),
        ("wall & rooof: values", "`evaluate.slices.wall & rooof` names 'rooof', which is not a column"),
        ("wall: [1.0]", "`evaluate.slices.wall` has edges, but the column is not numeric"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "split", "train"])
def test_a_wrong_slice_is_reported_before_the_model_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, slices: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / PARAMS).read_text().replace("    stories: values", f"    {slices}").replace("    wall: values\n", "")
    PARAMS.write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        getattr(pipeline, verb)()


def test_the_columns_of_all_types_can_be_sliced_before_there_are_rows() -> None:
    vector = pa.Column(object, metadata={"kind": "vector", "length": 3})
    text = pa.Column(str, pa.Check.str_length(max_value=9), metadata={"kind": "text"})
    types = {"number": float, "count": "Int64", "flag": bool, "at": DateTime(tz="UTC"), "wall": str}
    columns = {name: pa.Column(each) for name, each in types.items()} | {"vector": vector, "text": text}
    model = make(columns)
    edges, values = {name: [1.0] for name in ("number", "count", "vector", "text")}, dict.fromkeys(types, "values")
    check_rules({**values, **edges, "delivery": "values", "wall & vector": "values"}, model)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="has the kind text, whose values are not published; give edges of its length"):
        check_rules({"text": "values"}, model)

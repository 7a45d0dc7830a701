"""Slices: parts of the holdout that are compared separately."""

import itertools
from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
from pandera.dtypes import is_string

from slipway.config import SliceRule
from slipway.contract import Model, kind_of, lists_values, unpublished_of
from slipway.errors import InputError
from slipway.pipeline.columns import DELIVERY, ROW_ID
from slipway.pipeline.tensors import measured_rows
from slipway.statistics.bins import OTHER

MEASURES = {"text": "length", "vector": "norm", "image": "mean brightness"}
"""Maps the kind of an unpublished column to the number by which its values are sliced."""
PAIR = " & "
"""Joins the names of two columns whose combinations are slices, as in `wall & garage`."""
MISSING = "missing"
"""The label of rows without a value. If a value is the text `missing`, its label has quotation marks."""


def columns_of(rules: Collection[str], known: Collection[str]) -> set[str]:
    """Return the names of the columns that the slicing rules use. `known` contains the names of all columns."""
    return {part for name in rules for part in ([name] if name in known else name.split(PAIR))}


def check_rules(rules: dict[str, SliceRule], model: Model) -> None:
    """Raise InputError if a slicing rule does not fit the columns of the model. No row is needed for this."""
    columns = {name: pd.Series(dtype=column.dtype.type) for name, column in model.SCHEMA.columns.items()}
    slice_labels(pd.DataFrame({ROW_ID: [], DELIVERY: [], **columns}), rules, model)


def slice_labels(
    rows: pd.DataFrame, rules: dict[str, SliceRule], model: Model | None = None, minimum: int = 1
) -> pd.DataFrame:
    """Return the labels of each row's slices, with one column for each rule. Each column has the name of its rule.

    The name of a rule is a column or a pair of columns. The rule is "values", for one slice per value, or a list of the
    inner edges of bins. A bin includes its lower edge. Labels are published, so a text is sliced by its length, a
    vector by its norm, and an image by its mean brightness. `model` defines the kinds of the columns. A pair of columns
    has one slice for each combination of their slices.

    A value of a category that fewer than `minimum` rows have gets the label `OTHER`, unless the schema lists the value
    or declares that anyone may see it. Raises InputError if a rule does not fit the data.
    """
    labels, unpublished = {}, unpublished_of(model) if model else []
    for name, rule in rules.items():
        parts = [name] if name in rows.columns else name.split(PAIR)
        _check_parts(name, parts, rule, rows.columns)
        if len(parts) == 2:
            found = slice_labels(rows, {part: rules.get(part, "values") for part in parts}, model, minimum)
            labels[name] = found[parts[0]].astype("str") + ", " + found[parts[1]].astype("str")
            continue
        values = rows[name]
        if model and name in unpublished:
            kind = str(kind_of(model.SCHEMA.columns[name]))
            if rule == "values":
                raise InputError(
                    f"params.yaml: `evaluate.slices.{name}` has the kind {kind}, whose values are not published; give "
                    f"edges of its {MEASURES[kind]}."
                )
            values = measured_rows(values, model.SCHEMA.columns[name])
        if rule == "values":
            values = values.astype("str")
            named = values.mask(values == MISSING, f"'{MISSING}'")
            if model and minimum > 1 and _is_unlisted(model, name):
                named = named.mask(named.map(named.value_counts()) < minimum, OTHER)
            labels[name] = named.fillna(MISSING)
        else:
            if values.dtype.kind not in "biuf":
                raise InputError(
                    f"params.yaml: `evaluate.slices.{name}` has edges, but the column is not numeric; use `values`."
                )
            labels[name] = _binned(values, sorted(rule))
    return pd.DataFrame(labels, index=rows.index)


def _check_parts(name: str, parts: list[str], rule: SliceRule, known: Collection[str]) -> None:
    """Raise InputError unless a rule is for a known column, or gives no edges to a pair of known columns."""
    if unknown := [part for part in parts if part not in known]:
        which = "" if unknown == [name] else f" names {unknown[0]!r}, which"
        raise InputError(
            f"params.yaml: `evaluate.slices.{name}`{which} is not a column of the data; use the name of a column."
        )
    if len(parts) > 2:
        raise InputError(f"params.yaml: `evaluate.slices.{name}` has {len(parts)} columns; name one or two.")
    if len(parts) == 2 and rule != "values":
        raise InputError(
            f"params.yaml: `evaluate.slices.{name}` is a pair of columns, which has no edges; "
            "use `values`, and give edges to the columns."
        )


def _is_unlisted(model: Model, name: str) -> bool:
    """Return whether a column is a category whose values the code of the model does not publish."""
    column = model.SCHEMA.columns.get(name)
    return column is not None and is_string(column.dtype) and not kind_of(column) and not lists_values(column)


def _binned(values: "pd.Series[float]", edges: list[float]) -> "pd.Series[str]":
    names = [f"under {edges[0]:g}"]
    names += [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    names += [f"{edges[-1]:g} or more"]
    bins = np.searchsorted(edges, values.to_numpy(), side="right")
    bins[values.isna()] = len(names)
    labels = pa.DictionaryArray.from_arrays(bins, [*names, MISSING])
    return labels.cast(pa.string()).to_pandas().set_axis(values.index)

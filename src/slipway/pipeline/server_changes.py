"""Find what the challenger's bundle changes for the server, apart from its predictions.

A bundle with such a change can ship although its predictions equal the champion's. Otherwise, a new mark `private`, for
example, would never reach the server.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from slipway.artifacts import listed
from slipway.bundle import Bundle, Column, Decision, FeatureReference, Schema, read_golden, read_reference


def server_changes(champion: Bundle, challenger: Bundle, tolerance: float) -> tuple[str, ...]:
    """Describe each change that affects the server's behaviour, in words such as `the mark private of rooms`.

    The training distributions and the examples depend on the training rows. They are compared only if both models have
    the same training rows. Numbers that depend on rounding are compared with the relative tolerance `tolerance`. Raises
    InputError if a file of a bundle is corrupt.
    """
    changes = [*schema_changes(champion.schema, challenger.schema)]
    if decision_changes(champion.schema.decision, challenger.schema.decision, tolerance):
        changes.append("the rule that chooses the class")
    if np.array_equal(champion.training_rows(), challenger.training_rows()):
        before, now = (read_reference(each.path).features for each in (champion, challenger))
        if before.keys() != now.keys() or not all(_same_bins(before[name], now[name], tolerance) for name in now):
            changes.append("the training distributions that drift is measured against")
        examples = [read_golden(each.path).rows for each in (champion, challenger)]
        if examples[0] != examples[1]:
            changes.append("the examples in the API documentation")
    return tuple(changes)


def schema_changes(before: Schema, now: Schema) -> Iterator[str]:
    """Describe the differences between the records that two schemas accept or log."""
    old, new = ({column.name: column for column in schema.columns} for schema in (before, now))
    if added := [name for name in new if name not in old]:
        yield f"the added {_columns(added)}"
    if removed := [name for name in old if name not in new]:
        yield f"the removed {_columns(removed)}"
    both = [(column, new[name]) for name, column in old.items() if name in new]
    if marked := [column.name for column, other in both if column.private != other.private]:
        yield f"the mark private of the {_columns(marked)}"
    if others := [column.name for column, other in both if _without_mark(column) != _without_mark(other)]:
        yield f"the valid values of the {_columns(others)}"
    if before.unknown_fields != now.unknown_fields:
        yield f"unknown fields, which the server will {now.unknown_fields}"


def decision_changes(before: Decision | None, now: Decision | None, tolerance: float) -> bool:
    """Return whether two decision rules can choose different classes for equal probabilities."""
    if before is None or now is None or before.threshold is None or now.threshold is None:
        return before != now
    return not np.isclose(before.threshold, now.threshold, rtol=tolerance, atol=0)


def _without_mark(column: Column) -> Column:
    return column.model_copy(update={"private": None})


def _columns(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"column{'s' if more else ''} {listed(names[:1])}{more}"


def _same_bins(before: FeatureReference, now: FeatureReference, tolerance: float) -> bool:
    if before.values != now.values or len(before.edges or ()) != len(now.edges or ()):
        return False
    return np.allclose(before.edges or (), now.edges or (), rtol=tolerance, atol=0)

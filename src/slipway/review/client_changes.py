"""Find the changes that clients notice: changed request fields, and whether the new model accepts old requests."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slipway.bundle import Column, Schema, load_bundle, read_golden
from slipway.review.report import ACCEPTED, ClientChanges, FieldChange
from slipway.serving.problems import Problem, listed, pointer
from slipway.serving.records import Records

Allowed = Sequence[str | float] | None
"""The values that a column allows, or None if the column has no list of allowed values."""


def client_changes(champion: Path, challenger: Path) -> ClientChanges | None:
    """Compare the requests that two bundles accept. Return None if both bundles accept the same fields and values."""
    before, now = load_bundle(champion).schema, load_bundle(challenger).schema
    fields = tuple(field_changes(before, now))
    if not fields:
        return None
    refusals = [*_refusals(read_golden(champion).rows, now)]
    return ClientChanges(
        fields=fields,
        records=len(refusals),
        refused=sum(each is not None for each in refusals),
        reason=next((each[:1_000] for each in refusals if each is not None), None),
    )


def field_changes(before: Schema, now: Schema) -> Iterator[FieldChange]:
    """Yield each difference between the fields of two schemas."""
    old, new = ({column.name: column for column in schema.columns} for schema in (before, now))
    for name in old:
        if name not in new:
            refused = "refused" if old[name].required else "refused if they have it"
            yield _change(name, "removed", ACCEPTED if now.unknown_fields == "ignore" else refused)
    for name, column in new.items():
        if name not in old:
            required = "required" if column.required else "optional"
            yield _change(name, f"added, {required}", "refused" if column.required else ACCEPTED)
        elif _kind(old[name]) != _kind(column):
            yield _change(name, f"a {_kind(column)}, was a {_kind(old[name])}", "refused")
        else:
            yield from _column_changes(old[name], column)
    if before.unknown_fields != now.unknown_fields:
        if now.unknown_fields == "ignore":
            yield _change("any other field", "ignored, was refused", ACCEPTED)
        else:
            yield _change("any other field", "refused, was ignored", "refused if they have one")


def _column_changes(old: Column, new: Column) -> Iterator[FieldChange]:
    if old.required != new.required:
        yield _change(
            new.name,
            "required, was optional" if new.required else "optional, was required",
            "refused without it" if new.required else ACCEPTED,
        )
    if old.whole != new.whole:
        words = ("a whole number, was any number", "refused with another number")
        yield _change(new.name, *(words if new.whole else ("any number, was a whole number", ACCEPTED)))
    if _bounds(old) != _bounds(new):
        yield _change(
            new.name,
            f"{_range(new)}, was {_range(old)}",
            "refused outside" if _is_narrower(old, new) else ACCEPTED,
        )
    if _allowed(old) != _allowed(new):
        yield from _value_changes(new, _allowed(old), _allowed(new))


def _allowed(column: Column) -> Allowed:
    return column.values if column.numbers is None else column.numbers


def _value_changes(new: Column, before: Allowed, now: Allowed) -> Iterator[FieldChange]:
    if before is None or now is None:
        every = "any number" if new.type == "number" else "any text"
        only = f"one of {listed(now)}, was {every}" if now else f"{every}, was one of a list"
        yield _change(new.name, only, "refused with another value" if now else ACCEPTED)
        return
    if added := [value for value in now if value not in before]:
        yield _change(new.name, f"also {listed(added)}", ACCEPTED)
    if removed := [value for value in before if value not in now]:
        yield _change(new.name, f"no longer {listed(removed)}", "refused with such a value")


def _change(field: str, change: str, old_requests: str) -> FieldChange:
    return FieldChange(field=field[:200], change=change[:1_000], old_requests=old_requests)


def _kind(column: Column) -> str:
    shape = f" of {' by '.join(map(str, column.shape))}" if column.shape else ""
    return "boolean" if column.boolean else f"{column.type}{shape}"


def _bounds(column: Column) -> tuple[object, ...]:
    return column.minimum, column.exclusive_minimum, column.maximum, column.exclusive_maximum


def _range(column: Column) -> str:
    low, high = column.minimum, column.maximum
    if low is None and high is None:
        return "any value"
    ends = {
        "greater than" if column.exclusive_minimum else "from": low,
        "less than" if column.exclusive_maximum else "to": high,
    }
    known = {word: bound for word, bound in ends.items() if bound is not None}
    return " ".join(f"{word} {bound if isinstance(bound, str) else f'{bound:g}'}" for word, bound in known.items())


def _is_narrower(old: Column, new: Column) -> bool:
    ends_excluded = (new.exclusive_minimum and not old.exclusive_minimum and old.minimum == new.minimum) or (
        new.exclusive_maximum and not old.exclusive_maximum and old.maximum == new.maximum
    )
    return ends_excluded or _rises(old.minimum, new.minimum, 1) or _rises(old.maximum, new.maximum, -1)


def _rises(old: float | str | None, new: float | str | None, sign: int) -> bool:
    """Return whether a lower bound (`sign` 1) rises, or an upper bound (`sign` -1) falls.

    The bounds of a date column are ISO dates.
    """
    if new is None or old == new:
        return False
    if old is None:
        return True
    higher = str(new) > str(old) if isinstance(new, str) or isinstance(old, str) else new > old
    return higher == (sign > 0)


def _refusals(rows: Sequence[dict[str, Any]], schema: Schema) -> Iterator[str | None]:
    """Yield, for each record, the reason why the server refuses it. Yield None if the server accepts the record."""
    reader = Records(schema, 1)
    for row in rows:
        try:
            reader.from_rows([dict(row)], pointer)
            yield None
        except Problem as problem:
            yield problem.detail

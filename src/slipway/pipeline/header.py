"""Check the columns of a delivery. If they do not fit the schema, find the cause."""

import csv
from collections.abc import Mapping, Sequence

from slipway.errors import InputError
from slipway.pipeline.delivery import Chunk

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_header(chunk: Chunk, expected: Sequence[str]) -> None:
    """Raise InputError if the columns are not those of the schema. The message names the cause if it is a known one."""
    delivered = list(chunk.table.column_names)
    problems = {
        "lacks the column": [name for name in expected if name not in delivered],
        "has the unknown column": [name for name in delivered if name not in expected],
        "has twice the column": [name for name in expected if delivered.count(name) > 1],
    }
    if not any(problems.values()):
        return
    if cause := _cause(delivered, expected, chunk.start.splitlines()):
        raise InputError(f"{chunk.where} {cause}.")
    for problem, names in problems.items():
        if names:
            plural = "s" if len(names) > 1 else ""
            raise InputError(
                f"{chunk.where} {problem}{plural} {', '.join(names)}; "
                "deliver the columns of src/model/schema.py, or change the schema with the data."
            )


def why_none(malformed: Mapping[int, tuple[str, str]]) -> str:
    """Return why no row of a CSV file can be read, as the middle of a sentence."""
    if not malformed:
        return ""
    faults = {fault for fault, _ in malformed.values()}
    fault = f", because each row {faults.pop()}" if len(faults) == 1 else ""
    comma = all(text.rstrip("\r\n").endswith(",") for _, text in malformed.values())
    return f"{fault}: each ends with a comma, which the header does not" if comma else fault


def _cause(delivered: Sequence[str], expected: Sequence[str], lines: Sequence[str]) -> str | None:
    """Return what is wrong with a header, and what to do. Return None if it has other columns for no known reason."""
    first = lines[0] if lines else ""
    for separator, words in SEPARATORS.items():
        if len(set(first.split(separator)) & set(expected)) > 1:
            return f"is separated by {words} instead of commas; deliver it with commas"
    later = (next(csv.reader([line]), []) for line in lines[1:5])
    if any(set(expected) <= {*fields} for fields in later):
        return f"has the line {first[:40]!r} above its header; remove that line"
    spaced = [name for name in delivered if name not in expected and name.strip() in expected]
    if spaced:
        kind = "a no-break space" if "\xa0" in spaced[0] else "a space"
        return f"has the column {spaced[0]!r} with {kind} around its name; remove such spaces from the file"
    cases = [name for name in delivered if name not in expected and name.lower() in {each.lower() for each in expected}]
    if cases:
        return f"has the column {cases[0]}, whose name has another case in src/model/schema.py; use the same case"
    if "" in delivered and not set(expected) - {*delivered}:
        return "has a column without a name, as pandas writes its index; write it with `index=False`"
    return None

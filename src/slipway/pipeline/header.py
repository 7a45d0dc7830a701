"""Check the columns of a delivery, and find the cause if the columns do not fit the schema."""

import csv
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from slipway.artifacts import listed
from slipway.config import Validate
from slipway.contract import KeyModel, Model, hides_values
from slipway.delivery_names import KEY_LIST
from slipway.errors import InputError
from slipway.pipeline.csv_records import NOT_CSV
from slipway.pipeline.delivery import Chunk

SCHEMA_COLUMNS = "deliver the columns of src/model/schema.py, or change the schema with the data."
EXACTLY_KEYS = (
    f"a list of keys has exactly the columns of KEY, so deliver only these, or choose a name that does not end in "
    f"{KEY_LIST} for whole rows."
)
INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf")
"""Unicode categories of spaces and of invisible characters."""
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Columns:
    """The accepted differences between a delivery's columns and the schema: unknown columns and missing columns."""

    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def check_header(chunk: Chunk, model: Model, rules: Validate) -> Columns:
    """Return the unknown columns, which are ignored, and the nullable columns that are missing.

    Raises InputError if the columns do not fit the schema. If a known cause applies, the message contains it.
    """
    is_key_list = isinstance(model, KeyModel)
    delivered, expected = list(chunk.table.column_names), list(model.SCHEMA.columns)
    unknown = [name for name in delivered if name not in expected]
    missing = [name for name in expected if name not in delivered]
    problems = {
        "lacks the column": [name for name in missing if not model.SCHEMA.columns[name].nullable],
        "has the unknown column": unknown if is_key_list or rules.unknown_columns == "refuse" else [],
        "has twice the column": [name for name in expected if delivered.count(name) > 1],
    }
    refused = any(problems.values())
    for cause in _causes(chunk, model, unknown, missing, refused=refused):
        raise InputError(f"{chunk.where} {cause}.")
    for problem, names in problems.items():
        if names:
            plural = "s" if len(names) > 1 else ""
            raise InputError(
                f"{chunk.where} {problem}{plural} {listed(names)}; " + (EXACTLY_KEYS if is_key_list else SCHEMA_COLUMNS)
            )
    return Columns(tuple(dict.fromkeys(unknown)), tuple(missing))


def why_none(malformed: Mapping[int, tuple[str, str]]) -> str:
    """Return the reason why no row of a CSV file can be read, to be appended to a message, or ""."""
    if not malformed:
        return ""
    row, (fault, _) = min(malformed.items())
    is_common = all(each == fault for each, _ in malformed.values())
    because = f", because each row {fault}" if is_common else f", for example because row {row} {fault}"
    if all(text.rstrip("\r\n").endswith(",") for _, text in malformed.values()):
        return f"{because}: each ends with a comma, which the header does not"
    return f"{because}: quote each value that contains a comma" if "values instead of" in fault else because


def _causes(
    chunk: Chunk, model: Model, unknown: Sequence[str], missing: Sequence[str], *, refused: bool
) -> Iterator[str]:
    """Yield the possible causes of a wrong header, each with the fix. The most likely cause is first."""
    folded = {_folded(name): name for name in missing}
    for name in unknown:
        if meant := folded.get(_folded(name)):
            yield f"has the column {name!r}{_difference(name, meant)}"
    if refused:
        yield from _causes_of_refusal(chunk, model, unknown, missing)


def _folded(name: str) -> str:
    """Return a name without the differences that people do not see or do not mean.

    These are spaces, invisible characters, upper and lower case, and the form in which Unicode encodes an accent.
    """
    visible = (each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) not in INVISIBLE)
    return unicodedata.normalize("NFKC", "".join(visible).casefold())


def _difference(name: str, meant: str) -> str:
    """Return how a name in a header differs from the name in the schema, and what to do."""
    if name.strip() == meant:
        kind = "a no-break space" if "\xa0" in name else "a space"
        return f" with {kind} around its name; remove such spaces from the file"
    if name.lower() == meant.lower():
        return ", whose name has another case in src/model/schema.py; use the same case"
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", meant):
        return ", whose accents src/model/schema.py encodes in another Unicode form; use the same form, such as NFC"
    return f", but src/model/schema.py has {meant!r}; use exactly this name"


def _causes_of_refusal(chunk: Chunk, model: Model, unknown: Sequence[str], missing: Sequence[str]) -> Iterator[str]:
    """Yield the possible causes of a header that was refused, each with the fix."""
    delivered, expected, lines = chunk.table.column_names, [*model.SCHEMA.columns], chunk.start.splitlines()
    first = lines[0] if lines else ""
    yield from (words for start, words in NOT_CSV.items() if first.startswith(start))
    if sorted(delivered) == sorted(model.KEY):
        yield (
            "has only the columns of KEY; to delete the rows with these keys, set `validate.deletions: accept` in "
            f"params.yaml and let the name of the delivery end in {KEY_LIST}"
        )
    for separator, words in SEPARATORS.items():
        if len(set(first.split(separator)) & set(expected)) > 1:
            yield f"is separated by {words} instead of commas; deliver it with commas"
    later = (next(csv.reader([line]), []) for line in lines[1:5])
    if any(set(expected) <= {*fields} for fields in later):
        quoted = "a line" if hides_values(model) else f"the line {first[:40]!r}"
        yield f"has {quoted} above its header; remove that line"
    if unknown == [""] and not missing:
        yield "has a column without a name, as pandas writes its index; write it with `index=False`"

"""Score every part of an input → answers/, quarantine/, manifests/ and summary.json in the output folder."""

import threading
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from slipway.bundle import Schema
from slipway.errors import CheckFailed, InputError
from slipway.integrations.batch_storage import BatchInput, BatchOutput, Part
from slipway.integrations.compute import LOCAL, Engine, run_each
from slipway.scoring.read_part import BadPart, read_part
from slipway.scoring.results import PartResult, Summary, summarize
from slipway.scoring.score_rows import score_rows
from slipway.scoring.write_part import answer_names, answer_writer, quarantine_writer, write_fault
from slipway.serving.served_model import ServedModel

SUMMARY = "summary.json"
CHUNK_ROWS = 4_096
"""Number of rows that the model predicts at once. Tensors with more rows do not fit into the cache of a CPU core."""
Say = Callable[[str, str], None]
"""A function that prints the name and the result of a part in one line."""


class _Loaded(threading.local):
    """The model that the current thread loaded last.

    Each thread has its own model, because two threads cannot share the model's reader and metrics.
    """

    model: ServedModel | None = None


_loaded = _Loaded()


def run(bundle: Path, source: str, address: str, keep: tuple[str, ...], say: Say, engine: Engine = LOCAL) -> Summary:
    """Score the new and changed parts of the input `source`, and write the results to the folder `address`.

    The processes or workers of `engine` read the parts and write the results. Raises InputError if the bundle, the
    input, the output or the engine cannot be used. Raises CheckFailed if a part changes while it is read.
    """
    model = _loaded.model = ServedModel(bundle, "model", CHUNK_ROWS)
    _check_names(model.schema, keep)
    parts, output = BatchInput(source), BatchOutput(address)
    if parts.overlaps(output):
        raise InputError(
            f"{output.address} and the input {parts.address} overlap, so results would be scored too; name another "
            "output."
        )
    found = parts.parts()
    with output.locked():
        known = {part.name: _known(output, part, model.hash, keep) for part in found}
        work = partial(_score_part, bundle.absolute(), model.hash, source, address, keep)
        scored = run_each(engine, work, [part for part in found if known[part.name] is None])
        results = []
        for part in found:
            result = known[part.name] or next(scored)
            rows = f"{result.answered:,} of {result.rows:,} rows scored, {result.quarantined:,} quarantined"
            done = "already done: " if known[part.name] else ""
            say(part.name, done + (f"bad file: {result.fault}" if result.fault else rows))
            results.append(result)
        dates = frozenset(column.name for column in model.schema.columns if column.type == "date")
        summary = summarize(model.hash, results, model.reference, dates)
        output.write(SUMMARY, summary.model_dump_json(indent=2) + "\n")
    return summary


def check(summary: Summary) -> None:
    """Raise CheckFailed if a part could not be scored."""
    if summary.faults:
        first = next(iter(summary.faults.values())).rstrip(".")
        raise CheckFailed(f"{first} ({len(summary.faults)} of {summary.parts} files cannot be scored).")


def _check_names(schema: Schema, keep: tuple[str, ...]) -> None:
    """Raise InputError if a column to copy has the same name as a column that the answers always contain."""
    own = answer_names(schema)
    for name in (*schema.key, *keep):
        if name in own:
            raise InputError(f"The answers have a column {name!r} of their own; rename the column of the input.")


def _known(output: BatchOutput, part: Part, bundle: str, keep: tuple[str, ...]) -> PartResult | None:
    """Return the manifest of a part if its results are complete and belong to this bundle and input, otherwise None."""
    content = output.read(_manifest(part))
    try:
        result = PartResult.model_validate_json(content or b"")
    except ValidationError:  # the manifest is missing, or a different version of Slipway wrote it
        return None
    made_of = (result.bundle, result.part, result.source, result.keep)
    if made_of != (bundle, part.name, part.stamp, keep):
        return None
    return result if all(output.size(name) == size for name, size in result.files.items()) else None


def _load(bundle: Path, identity: str) -> ServedModel:
    """Return the model of a bundle. Load it if this thread has not loaded it yet.

    Raise InputError if the bundle's hash is not `identity`.
    """
    model = _loaded.model
    if model is None or model.hash != identity:
        model = ServedModel(bundle, "model", CHUNK_ROWS)
        if model.hash != identity:
            raise InputError(
                f"A worker has the bundle {model.hash} at {bundle}, not {identity}; copy the latter to it."
            )
        _loaded.model = model
    return model


def _score_part(
    bundle: Path, identity: str, source: str, address: str, keep: tuple[str, ...], part: Part
) -> PartResult:
    """Score a part: write its answers and its quarantine, and then its manifest.

    This function can run on another machine.
    """
    model, output = _load(bundle, identity), BatchOutput(address)
    output.remove(_manifest(part))  # a run with another model may have written this manifest
    answers, quarantine = f"answers/{part.name}.parquet", f"quarantine/{part.name}.csv"
    model.metrics = model.new_metrics()
    fault, rows, answered = None, 0, 0
    try:
        with BatchInput(source).fetched(part) as path, output.writing():
            rows, answered = _write_rows(
                model, path, part.name, keep, output.staged(answers), output.staged(quarantine)
            )
    except BadPart as error:
        fault = str(error)
        model.metrics = model.new_metrics()
        with output.writing():
            write_fault(output.staged(quarantine), fault)
    needed = {answers: fault is None, quarantine: fault is not None or answered < rows}
    files = {name: output.staged(name).stat().st_size for name, is_needed in needed.items() if is_needed}
    for name in needed:
        (output.publish if name in files else output.remove)(name)
    bins = model.metrics.bins()
    result = PartResult(
        bundle=model.hash,
        part=part.name,
        source=part.stamp,
        keep=keep,
        files=files,
        rows=rows,
        answered=answered,
        quarantined=rows - answered,
        fault=fault,
        features=bins["feature"],
        predictions=bins["prediction"],
    )
    output.write(_manifest(part), result.model_dump_json(indent=2) + "\n")
    return result


def _write_rows(
    model: ServedModel, path: Path, name: str, keep: tuple[str, ...], answers: Path, quarantine: Path
) -> tuple[int, int]:
    """Write the results for each row of a part. Return the number of rows and the number of rows with an answer."""
    rows = answered = 0
    blocks = read_part(path, name, model.schema, keep)
    first = next(blocks)
    kept = first.kept.schema
    with answer_writer(answers, model, kept) as write_answers, quarantine_writer(quarantine, kept) as write_invalid:
        for block in chain([first], blocks):
            scored = score_rows(model, block)
            write_answers(block, scored)
            write_invalid(block, scored)
            rows += len(block.rows) + len(block.malformed)
            answered += len(scored.valid)
    return rows, answered


def _manifest(part: Part) -> str:
    return f"manifests/{part.name}.json"

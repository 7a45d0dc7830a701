"""`slipway report`: all that a reviewer should know, gathered from the pipeline's files, git and DVC."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.index import DataIndexDirError

from slipway import artifacts
from slipway.artifacts import Evaluation, Latency, Parity, Release, Validation, Verdict
from slipway.bundle import folder_hash, load_bundle
from slipway.config import Params, load_params
from slipway.contract import Model, load_model
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.pipeline.columns import DELIVERY
from slipway.pipeline.decay import decay_on
from slipway.pipeline.evaluate import TRUTH
from slipway.pipeline.gate import answers_of
from slipway.pipeline.parquet import read_table
from slipway.review.changes import STAGES, changed_files, merge_base, pipeline_paths
from slipway.review.event import Event, read_event
from slipway.review.intervals import metric_rows
from slipway.review.report import (
    Changes,
    DeliveryChange,
    FeatureDrift,
    FileChange,
    Judged,
    Lineage,
    LiveModel,
    ParameterChange,
    PeriodError,
    Point,
    Report,
    Stopped,
)
from slipway.review.reproduce import STOPPED
from slipway.statistics.psi import bin_numbers, population_stability

RULES = ("task.", "validate.", "split.", "evaluate.", "gate.")
RULE_FILES = ("src/slipway/pipeline/", "src/model/schema.py", "dvc.yaml")
"""By what a model is judged: parameters by how they begin, and files."""
PERIODS = (1, 7, 14, 28, 91, 182, 365)
MOST_PERIODS = 14
POINTS = 250


def collect(base: str | None, environ: Mapping[str, str]) -> Report:
    """The report on what was judged last, or on why it could not be.

    Raises CheckFailed where the verdict is not on the bundle that lies in build/.
    """
    event = read_event(environ)
    stopped = Stopped.read(STOPPED) if STOPPED.is_file() else None
    # What has stopped, perhaps did so because these cannot be read.
    readable = None if stopped else (load_params(artifacts.PARAMS), load_model())
    since = merge_base(base)
    touched = changed_files(since)
    return Report(
        pull_request=event.pull_request if event and event.name != "merge_group" else None,  # the queue has no comment
        lineage=_lineage(since, touched, event),
        changes=_changes(since, touched, readable),
        override=event.override if event else None,
        judged=_judged(*readable) if readable else None,
        stopped=stopped,
    )


def _lineage(since: str, touched: Collection[str], event: Event | None) -> Lineage:
    head = process.run("git", "rev-parse", "HEAD")
    lock = "not in this change"
    if str(artifacts.LOCK) in touched:
        differs = process.run("git", "diff", "--name-only", "HEAD", "--", str(artifacts.LOCK))
        lock = "not as committed" if differs else "as committed"
    return Lineage.model_validate(
        {
            "commit": head,
            "head": (event.head if event else None) or head,
            "base": since,
            "data": artifacts.data_hash(),
            "lock": lock,
        }
    )


def _judged(params: Params, model: Model) -> Judged:
    verdict, evaluation = Verdict.read(artifacts.VERDICT), Evaluation.read(artifacts.EVALUATION)
    if folder_hash(artifacts.BUNDLE) != verdict.challenger_bundle:
        raise CheckFailed(f"{artifacts.VERDICT} is not on the bundle in {artifacts.BUNDLE}/; run `dvc repro` first.")
    scores = read_table(artifacts.SCORES)
    return Judged(
        verdict=verdict,
        evaluation=evaluation,
        latency=_latency(),
        parity=Parity.read(artifacts.PARITY),
        metrics=metric_rows(scores, evaluation, verdict, params),
        periods=_periods(scores, model),
        points=_points(scores, params),
        unit=params.task.unit_of_loss,
        row_noun=params.task.row_noun,
    )


def _latency() -> Latency:
    """Nothing was timed where DVC restored all that was known."""
    return Latency.read(artifacts.LATENCY) if artifacts.LATENCY.is_file() else Latency(champion=None, challenger=None)


def _periods(scores: pd.DataFrame, model: Model) -> tuple[PeriodError, ...]:
    """The mean losses over time, in periods of a usual length; none for data without time."""
    if model.TIME is None:
        return ()
    days = scores[model.TIME].dt.normalize()
    span = (days.max() - days.min()).days + 1
    length = next((each for each in PERIODS if span <= each * MOST_PERIODS), span // MOST_PERIODS + 1)
    number = (days - days.min()).dt.days // length
    losses = scores[[name for name in ("champion_loss", "challenger_loss") if name in scores]]
    return tuple(
        PeriodError(
            first=(days.min() + timedelta(days=int(index) * length)).date(),
            rows=len(part),
            champion=float(part["champion_loss"].mean()) if "champion_loss" in part else None,
            challenger=float(part["challenger_loss"].mean()),
        )
        for index, part in losses.groupby(number)
    )


def _points(scores: pd.DataFrame, params: Params) -> tuple[Point, ...]:
    """For a regression some of the rows; for a classification how often answers of some certainty are right."""
    if params.task.kind == "regression":
        some = scores.iloc[:: -(-len(scores) // POINTS)]
        return tuple(
            Point(actual=row[TRUTH], champion=row.get("champion_0"), challenger=row["challenger_0"])
            for row in some.to_dict("records")
        )
    points = []
    for name in ("champion", "challenger"):
        if f"{name}_loss" not in scores:
            continue
        answers = answers_of(name, scores)
        certain, right = answers.max(axis=1), answers.argmax(axis=1) == scores[TRUTH].to_numpy()
        for bin_ in np.array_split(np.argsort(certain), 10):
            if len(bin_):
                point = {"champion": None, "challenger": None, name: float(certain[bin_].mean())}
                points.append(Point(actual=float(right[bin_].mean()), **point))
    return tuple(points)


def _changes(since: str, touched: Collection[str], readable: tuple[Params, Model] | None) -> Changes:
    """Without params and model, as nothing was judged, what can be told without reading the data."""
    parameters = _parameters(since, broken=readable is None)
    files = _files(since)
    deliveries = _deliveries(since) if readable and str(artifacts.DATA_DVC) in touched else ()
    added = [each.name for each in deliveries or () if each.change == "added"]
    new = [each.name for each in deliveries or () if each.change != "removed"]
    rules = [each.key for each in parameters if each.key.startswith(RULES)]
    return Changes(
        parameters=parameters,
        deliveries=deliveries,
        drift=_drift(readable[1], new) if readable and new else (),
        decay=_decay(*readable, added) if readable and added else (),
        files=files,
        rules=(*rules, *(each.path for each in files if each.path.startswith(RULE_FILES))),
    )


def _parameters(since: str, *, broken: bool) -> tuple[ParameterChange, ...]:
    """Those that the pipeline reads, as `dvc params diff` tells them; none if they may be `broken` and are."""
    try:
        with Repo() as repo:
            told = repo.params.diff(a_rev=since)
    except DvcException as error:
        told = {"errors": str(error)}
    if "errors" in told and not broken:
        raise InputError("DVC cannot compare the parameters with those of the base; `dvc params diff` says why.")
    return tuple(
        ParameterChange(key=key, old=_value(change, "old"), new=_value(change, "new"))
        for file in told.get("diff", {}).values()
        for key, change in file.items()
    )


def _value(change: dict[str, Any], side: str) -> str | None:
    value = change.get(side)
    return None if value is None else json.dumps(value)[:200]


def _files(since: str) -> tuple[FileChange, ...]:
    code = {str(STAGES), *pipeline_paths(STAGES, ("deps",))} - {str(artifacts.EVALUATION)}
    printed = process.run("git", "diff", "--numstat", "-z", "--no-renames", since, "--", *sorted(code))
    changed = (line.split("\t", 2) for line in printed.split("\0") if line)
    return tuple(
        FileChange(path=path[:200], added=_lines(added), removed=_lines(removed)) for added, removed, path in changed
    )


def _lines(count: str) -> int | None:
    return None if count == "-" else int(count)


def _deliveries(since: str) -> tuple[DeliveryChange, ...] | None:
    """How the files of data/ differ from those of the base, whose content DVC's cache or remote has."""
    before, now = DVCFileSystem(".", rev=since), DVCFileSystem(".")
    try:
        old, new = (_hashes(files) for files in (before, now))
    except DataIndexDirError:
        return None
    counted = Validation.read(artifacts.VALIDATION).deliveries
    changes = []
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path):
            continue
        rows_before = Counter(_rows(before, path)) if path in old else Counter()
        rows_now = Counter(_rows(now, path)) if path in new else Counter()
        counts = counted.get(Path(path).stem)
        changes.append(
            DeliveryChange(
                name=Path(path).stem,
                change="added" if path not in old else "removed" if path not in new else "changed",
                added=(rows_now - rows_before).total(),
                removed=(rows_before - rows_now).total(),
                quarantined=counts.quarantined if counts else 0,
                reasons=counts.reasons if counts else {},
            )
        )
    return tuple(changes)


def _hashes(files: DVCFileSystem) -> dict[str, str]:
    return {path: info["dvc_info"]["md5"] for path, info in files.find(str(artifacts.DATA), detail=True).items()}


def _rows(files: DVCFileSystem, path: str) -> list[bytes]:
    content: bytes = files.read_bytes(path)
    return content.splitlines()[1:]


def _decay(params: Params, model: Model, added: list[str]) -> tuple[LiveModel, ...]:
    """How the live model does on the deliveries that are added; nothing where none is live, or none by this loss."""
    release = Release.read(artifacts.RELEASE)
    if release.champion is None or release.loss != params.task.loss:
        return ()
    bundle, rows = load_bundle(artifacts.CHAMPION), read_table(artifacts.VALIDATED)
    found = [decay_on(name, rows, bundle, release, params, model) for name in added]
    return tuple(LiveModel(delivery=each.delivery, alarm=each.alarm, reason=each.reason) for each in found if each)


def _drift(model: Model, new: list[str]) -> tuple[FeatureDrift, ...]:
    """How far each feature, and the target, of the new deliveries lies from all the others; the farthest first."""
    columns = [name for name in (*model.FEATURES, model.TARGET) if name != model.TIME]
    rows = read_table(artifacts.VALIDATED, columns=[*columns, DELIVERY])
    is_new = rows[DELIVERY].isin(new)
    if is_new.all() or not is_new.any():
        return ()
    found = [_drift_of(rows.loc[~is_new, name], rows.loc[is_new, name]) for name in columns]
    return tuple(sorted(found, key=lambda each: -each.psi))


def _drift_of(before: "pd.Series[Any]", now: "pd.Series[Any]") -> FeatureDrift:
    old, new = before.dropna(), now.dropna()
    if pd.api.types.is_numeric_dtype(before.dtype):
        counts = bin_numbers(old.to_numpy(float), new.to_numpy(float))
    else:
        values = sorted(set(old.astype(str)) | set(new.astype(str)))
        old_counts, new_counts = (each.astype(str).value_counts().reindex(values, fill_value=0) for each in (old, new))
        counts = old_counts.to_numpy(), new_counts.to_numpy()
    return FeatureDrift(
        column=str(before.name),
        psi=population_stability(*counts),
        missing_before=float(before.isna().mean()),
        missing_now=float(now.isna().mean()),
    )

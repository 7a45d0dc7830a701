"""Build the report from the pipeline's files, git and DVC."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.index import DataIndexDirError

from slipway import artifacts
from slipway.artifacts import DeliveryCounts, Evaluation, Latency, Parity, Release, Validation, Verdict
from slipway.bundle import folder_hash, load_bundle
from slipway.config import Params, load_params
from slipway.contract import Model, load_model, unpublished_of
from slipway.delivery_names import delivery_name
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.pipeline.columns import DELIVERY, TIME, TRUTH, WEIGHT
from slipway.pipeline.decay import decay_on
from slipway.pipeline.delivery import read_chunks
from slipway.pipeline.gate import answers_of, weights_of
from slipway.pipeline.parquet import read_table
from slipway.pipeline.tensors import measured_rows
from slipway.review.changes import STAGES, changed_files, merge_base, pipeline_paths
from slipway.review.client_changes import client_changes
from slipway.review.event import Event, current_event
from slipway.review.intervals import metric_rows
from slipway.review.landing import why_it_waits
from slipway.review.replay import replay
from slipway.review.report import (
    Changes,
    DecayCheck,
    DeliveryChange,
    FeatureDrift,
    FileChange,
    ParameterChange,
    PeriodLoss,
    PipelineResult,
    Point,
    Report,
    Revision,
    Stopped,
)
from slipway.review.reproduce import STOPPED
from slipway.statistics.blocks import average
from slipway.statistics.metrics import LOSSES_OF_PAIRS
from slipway.statistics.psi import bin_categories, bin_numbers, population_stability

RULES = ("task.", "validate.", "split.", "evaluate.", "gate.")
"""Prefixes of the parameters that define how the gate evaluates a model."""
RULE_FILES = (
    *("src/slipway/pipeline/", "src/slipway/statistics/"),
    *("src/model/loss.py", "src/model/schema.py", "dvc.yaml"),
)
PERIOD_DAYS = (1, 7, 14, 28, 91, 182, 365)
MAX_PERIODS = 14
MAX_POINTS = 250


def build_report(base: str | None, environ: Mapping[str, str], say: Callable[[str], None]) -> Report:
    """Return the report on the last run of the pipeline, with or without a verdict.

    `say` is called with sentences for the workflow log. Raises CheckFailed if the verdict does not belong to the bundle
    in build/bundle/.
    """
    event = current_event(environ)
    stopped = Stopped.read(STOPPED) if STOPPED.is_file() else None
    # If the pipeline stopped, the cause may be that params.yaml or the model is not valid.
    readable = None if stopped else (load_params(artifacts.PARAMS), load_model())
    since = merge_base(base)
    touched = changed_files(since)
    changes, result = (
        _changes(since, touched, readable),
        _result(*readable, say, is_fork=event is not None and event.is_fork) if readable else None,
    )
    held = result is not None and result.verdict.verdict == "hold"
    may_land = readable is not None and held and readable[0].ingest.when_held == "land"
    waits = why_it_waits(changes, event.pull_request if event else None, environ) if may_land else None
    return Report(
        # The report on a merge queue is not posted as a comment.
        pull_request=event.pull_request if event and event.name != "merge_group" else None,
        revision=_revision(since, touched, event),
        changes=changes,
        override=event.override if event else None,
        result=result,
        stopped=stopped,
        lands=may_land and waits is None,
        waits=waits,
    )


def _revision(since: str, touched: Collection[str], event: Event | None) -> Revision:
    head = process.run("git", "rev-parse", "HEAD")
    lock = "not in this change"
    if str(artifacts.LOCK) in touched:
        differs = process.run("git", "diff", "--name-only", "HEAD", "--", str(artifacts.LOCK))
        lock = "not as committed" if differs else "as committed"
    return Revision.model_validate(
        {
            "commit": head,
            "head": (event.head if event else None) or head,
            "base": since,
            "data": artifacts.data_hash(),
            "lock": lock,
        }
    )


def _day_of_commit() -> date:
    """Return the day of the evaluated commit in UTC."""
    seconds = int(process.run("git", "show", "--no-patch", "--format=%ct", "HEAD"))
    return datetime.fromtimestamp(seconds, UTC).date()


def _result(params: Params, model: Model, say: Callable[[str], None], *, is_fork: bool) -> PipelineResult:
    verdict, evaluation = Verdict.read(artifacts.VERDICT), Evaluation.read(artifacts.EVALUATION)
    if folder_hash(artifacts.BUNDLE) != verdict.challenger_bundle:
        raise CheckFailed(
            f"{artifacts.VERDICT} does not belong to the bundle in {artifacts.BUNDLE}/; run `dvc repro` first."
        )
    scores = read_table(artifacts.SCORES)
    return PipelineResult(
        verdict=verdict,
        evaluation=evaluation,
        latency=_latency(),
        parity=Parity.read(artifacts.PARITY),
        metrics=metric_rows(scores, evaluation, verdict, params),
        periods=_periods(scores, params),
        replay=replay(params, artifacts.CHAMPION, artifacts.BUNDLE, _day_of_commit(), model, say, is_fork=is_fork),
        points=_points(scores, params),
        clients=client_changes(artifacts.CHAMPION, artifacts.BUNDLE) if verdict.champion_bundle else None,
        unit=params.task.unit_of_loss,
        row_noun=params.task.row_noun,
    )


def _latency() -> Latency:
    """Return the measured latency of champion and challenger.

    If DVC restored the results of `evaluate` instead of running it, nothing was measured, and both values are None.
    """
    return Latency.read(artifacts.LATENCY) if artifacts.LATENCY.is_file() else Latency(champion=None, challenger=None)


def _periods(scores: pd.DataFrame, params: Params) -> tuple[PeriodLoss, ...]:
    """Return the mean losses in at most MAX_PERIODS periods of the holdout.

    Return () if rows have no time. Also return () if the loss compares pairs of rows, because the rows of a pair can
    come from different periods.
    """
    if TIME not in scores or params.task.loss in LOSSES_OF_PAIRS:
        return ()
    days = scores[TIME].dt.normalize()
    span = (days.max() - days.min()).days + 1
    length = next((each for each in PERIOD_DAYS if span <= each * MAX_PERIODS), span // MAX_PERIODS + 1)
    number = (days - days.min()).dt.days // length
    losses = scores[[name for name in ("champion_loss", "challenger_loss", WEIGHT) if name in scores]]
    return tuple(
        PeriodLoss(
            first=(days.min() + timedelta(days=int(index) * length)).date(),
            rows=len(part),
            champion=_mean_loss(part, "champion") if "champion_loss" in part else None,
            challenger=_mean_loss(part, "challenger"),
        )
        for index, part in losses.groupby(number)
    )


def _mean_loss(scores: pd.DataFrame, contender: str) -> float:
    return average(scores[f"{contender}_loss"].to_numpy(), weights_of(scores))


def _points(scores: pd.DataFrame, params: Params) -> tuple[Point, ...]:
    """Return the points of the prediction chart. `Point` explains their meaning."""
    if params.task.kind == "regression":
        some = scores.iloc[:: -(-len(scores) // MAX_POINTS)]
        return tuple(
            Point(actual=row[TRUTH], champion=row.get("champion_0"), challenger=row["challenger_0"])
            for row in some.to_dict("records")
        )
    points = []
    for name in ("champion", "challenger"):
        if f"{name}_loss" not in scores:
            continue
        answers = answers_of(name, scores)
        certainty, correct = answers.max(axis=1), answers.argmax(axis=1) == scores[TRUTH].to_numpy()
        for tenth in np.array_split(np.argsort(certainty), 10):
            if len(tenth):
                point = {"champion": None, "challenger": None, name: float(certainty[tenth].mean())}
                points.append(Point(actual=float(correct[tenth].mean()), **point))
    return tuple(points)


def _changes(since: str, touched: Collection[str], readable: tuple[Params, Model] | None) -> Changes:
    """Return the differences from the base branch.

    `readable` contains the parameters and the model. If the pipeline stopped, `readable` is None, because both can be
    invalid.
    """
    parameters = _parameters(since, broken=readable is None)
    files = _files(since)
    counts = Validation.read(artifacts.VALIDATION).deliveries if readable else {}
    deliveries = _deliveries(since, counts) if str(artifacts.DATA_DVC) in touched else ()
    added = [each.name for each in deliveries or () if each.change == "added"]
    new = [each.name for each in deliveries or () if each.change != "removed"]
    rules = [each.key for each in parameters if each.key.startswith(RULES)]
    return Changes(
        parameters=parameters,
        deliveries=deliveries,
        drift=_drift(readable[1], new) if readable and new else (),
        decay=check_decay(*readable, added) if readable and added else (),
        files=files,
        rules=(*rules, *(each.path for each in files if each.path.startswith(RULE_FILES))),
        model=bool(files or deliveries != () or _parameters(since, broken=readable is None, only_read=True)),
    )


def _parameters(since: str, *, broken: bool, only_read: bool = False) -> tuple[ParameterChange, ...]:
    """Return the changed parameters. With `only_read`, return only the parameters that the pipeline reads.

    `broken` means that params.yaml is possibly invalid. With `broken`, return () if DVC cannot compare the file.
    Without `broken`, raise InputError in this case.
    """
    try:
        with Repo() as repo:
            found = repo.params.diff(a_rev=since, deps_only=only_read)
    except DvcException as error:
        found = {"errors": str(error)}
    if "errors" in found and not broken:
        raise InputError("DVC cannot compare the parameters with those of the base; run `dvc params diff` to see why.")
    return tuple(
        ParameterChange(key=key, old=_value(change, "old"), new=_value(change, "new"))
        for file in found.get("diff", {}).values()
        for key, change in sorted(file.items())
    )


def _value(change: dict[str, Any], side: str) -> str | None:
    value = change.get(side)
    return None if value is None else json.dumps(value)[:200]


def _files(since: str) -> tuple[FileChange, ...]:
    """Return the changed files among dvc.yaml and the dependencies that it lists."""
    code = {str(STAGES), *pipeline_paths(STAGES, ("deps",))} - {str(artifacts.EVALUATION)}
    printed = process.run("git", "diff", "--numstat", "-z", "--no-renames", since, "--", *sorted(code))
    changed = (line.split("\t", 2) for line in printed.split("\0") if line)
    return tuple(
        FileChange(path=path[:200], added=_lines(added), removed=_lines(removed)) for added, removed, path in changed
    )


def _lines(count: str) -> int | None:
    return None if count == "-" else int(count)


def _deliveries(since: str, counts: Mapping[str, DeliveryCounts]) -> tuple[DeliveryChange, ...] | None:
    """Compare the deliveries in data/ with the base branch. Return None if DVC's cache and its remote lack a file."""
    try:
        before, now = DVCFileSystem(".", rev=since), DVCFileSystem(".")
        old, new = (_hashes(files) for files in (before, now))
        return tuple(
            _delivery_change(name, (before, old.get(name, {})), (now, new.get(name, {})), counts.get(name))
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        )
    except (DataIndexDirError, DvcException, FileNotFoundError):
        return None


Files = tuple[DVCFileSystem, Mapping[str, str]]
"""The files of a revision, and the path and hash of each file that belongs to one delivery."""


def _delivery_change(name: str, before: Files, now: Files, counted: DeliveryCounts | None) -> DeliveryChange:
    rows_before, rows_now = Counter(_rows(*before)), Counter(_rows(*now))
    return DeliveryChange(
        name=name,
        change="changed" if before[1] and now[1] else "added" if now[1] else "removed",
        added=(rows_now - rows_before).total(),
        removed=(rows_before - rows_now).total(),
        quarantined=counted.quarantined if counted else None,
        reasons=counted.reasons if counted else {},
        notes=tuple(counted.notes) if counted else (),
    )


def _hashes(files: DVCFileSystem) -> dict[str, dict[str, str]]:
    """Return the hash of each file in data/, by the name of the delivery and the path of the file.

    Files that are committed to Git instead of DVC have no hash of DVC, so their content is hashed.
    """
    found: dict[str, dict[str, str]] = {}
    for path, info in files.find(str(artifacts.DATA), detail=True).items():
        top, *rest = Path(path).relative_to(artifacts.DATA).parts
        name = delivery_name(top, is_folder=bool(rest)) or top
        tracked = info.get("dvc_info")
        found.setdefault(name, {})[path] = tracked["md5"] if tracked else _md5(files.read_bytes(path))
    return found


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _rows(files: DVCFileSystem, paths: Mapping[str, str]) -> list[bytes]:
    """Return the rows of a delivery as CSV. If a file cannot be read as a table, return all lines of the files."""
    rows: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            copy = Path(folder) / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(files.read_bytes(path))
        for top in Path(folder, artifacts.DATA).glob("*"):
            try:
                for chunk in read_chunks(top):
                    rows += chunk.as_csv()
            except InputError:
                rows = [line for path in paths for line in files.read_bytes(path).splitlines()[1:]]
    return rows


def check_decay(params: Params, model: Model, added: list[str]) -> tuple[DecayCheck, ...]:
    """Check the champion for decay on each added delivery.

    Return () without a champion, or if the champion was released with another loss function.
    """
    release = Release.read(artifacts.RELEASE)
    if release.champion is None or release.loss != params.task.loss_name:
        return ()
    bundle, rows = load_bundle(artifacts.CHAMPION), read_table(artifacts.VALIDATED)
    found = [decay_on(name, rows, bundle, release, params, model) for name in added]
    return tuple(DecayCheck(delivery=each.delivery, alarm=each.alarm, reason=each.reason) for each in found if each)


def _drift(model: Model, new: list[str]) -> tuple[FeatureDrift, ...]:
    """Compare the new deliveries with all other deliveries, for each feature and the target. The largest PSI is first.

    Texts are compared by their lengths, vectors by their norms, and images by their mean brightness.
    """
    columns = [name for name in (*model.FEATURES, model.TARGET) if name != model.TIME]
    rows = read_table(artifacts.VALIDATED, columns=[*columns, DELIVERY])
    is_new = rows[DELIVERY].isin(new)
    if is_new.all() or not is_new.any():
        return ()
    for name in set(unpublished_of(model)).intersection(columns):
        rows[name] = measured_rows(rows[name], model.SCHEMA.columns[name])
    found = [_feature_drift(rows.loc[~is_new, name], rows.loc[is_new, name]) for name in columns]
    return tuple(sorted(found, key=lambda each: -each.psi))


def _feature_drift(before: "pd.Series[Any]", now: "pd.Series[Any]") -> FeatureDrift:
    old, new = before.dropna(), now.dropna()
    if pd.api.types.is_numeric_dtype(before.dtype):
        counts = bin_numbers(old.to_numpy(float), new.to_numpy(float))
    else:
        counts = bin_categories(old.to_numpy(str), new.to_numpy(str))
    return FeatureDrift(
        column=str(before.name),
        psi=population_stability(*counts),
        missing_before=float(before.isna().mean()),
        missing_now=float(now.isna().mean()),
    )

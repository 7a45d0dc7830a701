"""evaluate: score champion and challenger on the same holdout → metrics/evaluation.json, build/evaluation/."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway import artifacts
from slipway.artifacts import Churn, Contender, Evaluation, Holdout, Release, SliceScore, listed
from slipway.bundle import Bundle, Schema, bundle_with, check_columns, load_bundle
from slipway.config import Params, Task
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.integrations.compute import LOCAL, Engine, run_each
from slipway.pipeline import single_feature
from slipway.pipeline.columns import ANSWER, DELIVERY, GROUP, ROW_ID, SLICE, TIME, TRUTH, WEIGHT
from slipway.pipeline.diagnostics import measure_latency, write_plots
from slipway.pipeline.importance import Missing, ScoredFeatures, TrainingRows, score_features
from slipway.pipeline.measure import Measure, measure_of
from slipway.pipeline.parquet import column_names, read_parts, read_table, row_count, write_table
from slipway.pipeline.server_changes import decision_changes, server_changes
from slipway.pipeline.single_feature import Sample, step_of
from slipway.pipeline.slices import columns_of, slice_labels
from slipway.pipeline.tensors import features, tensors
from slipway.statistics.blocks import average
from slipway.statistics.metrics import Floats, losses_within, summarise

SCORED_ROWS = 100_000
"""The number of rows that are converted to tensors at a time, to limit the memory use."""
MOVED = 0.05  # a regression's prediction has moved if it changes by more than this share


@dataclass(frozen=True)
class ScoredHoldout:
    """The holdout, with the predictions and the losses of each model.

    `answers` maps each model to its predictions, with the shape [rows, 1] or [rows, classes]. `losses` maps each model
    to its losses, one for each row. `slices` has one column of labels for each slicing rule. `weights` contains the
    weight of each row, or is None if rows have equal weights.
    """

    rows: pd.DataFrame
    slices: pd.DataFrame
    truth: Floats
    answers: dict[str, Floats]
    losses: dict[str, Floats]
    weights: Floats | None


def run(params: Params, model: Model, engine: Engine = LOCAL) -> Evaluation:
    """Score the champion (if there is one), the challenger and the naive baseline on the holdout.

    The processes or workers of `engine` score parts of the holdout.

    Raises InputError if the champion's bundle is corrupt or does not fit the data. Raises CheckFailed if the champion's
    bundle is not the released bundle. Raises CheckFailed if the challenger was trained on any holdout row, or if the
    champion was trained on all holdout rows.
    """
    bundles = {"challenger": load_bundle(artifacts.BUNDLE)}
    if (released := Release.read(artifacts.RELEASE).champion) is not None:
        bundles = {"champion": load_bundle(artifacts.CHAMPION), **bundles}
    check_champion(bundles.get("champion"), released)
    delivered = column_names(artifacts.HOLDOUT)
    for bundle in bundles.values():
        check_columns(bundle, delivered)
        _check_task(bundle, bundles["challenger"].schema)
    read = {column.name for bundle in bundles.values() for column in bundle.schema.columns}
    used = {
        *read,
        *columns_of(params.evaluate.slices, delivered),
        model.TARGET,
        model.TIME,
        params.split.column,
        params.task.weight,
        DELIVERY,
        ROW_ID,
    }
    held_out = read_table(artifacts.HOLDOUT, [name for name in delivered if name in used])
    check_no_leak(bundles["challenger"], held_out)
    holdout = leave_out_seen(bundles.get("champion"), held_out)

    measure = measure_of(params.task, model, bundles["challenger"].schema.classes)
    weight = [params.task.weight] if params.task.weight else []
    training = _read_training([model.TARGET, DELIVERY, *sorted(read), *weight], bundles["challenger"].schema, measure)
    check_percentage(training.truth, "training rows", model.TARGET, params.task)
    answers = {name: score(bundle, holdout, engine) for name, bundle in bundles.items()}
    contest = _hold_contest(holdout, answers, bundles, params, training, measure, model)
    scored = score_features(bundles, training, holdout, contest.truth, params, measure)
    left_out = len(held_out) - len(holdout)
    evaluation = _evaluate(contest, bundles, scored, params, model, measure.positive, left_out)
    _write_scores(contest, bundles["challenger"].schema, params, model)
    models = {name: contest.answers[name] for name in bundles}
    write_plots(models, holdout, contest.truth, scored.features, model)
    evaluation.write(artifacts.EVALUATION)
    # Latency differs between runs and machines, so it is not an output of the pipeline.
    measure_latency(bundles, holdout).write(artifacts.LATENCY)
    return evaluation


def _read_training(columns: Sequence[str], schema: Schema, measure: Measure) -> TrainingRows:
    """Read the training rows in parts that fit into memory.

    Return the target of all rows, a sample of rows, and the number of missing values in each column.
    """
    number = row_count(artifacts.TRAINING)
    step = step_of(number, single_feature.MAX_ROWS)
    truth, samples, missing, start = np.empty(number), [], Missing(), 0
    weights = None if measure.task.weight is None else np.empty(number)
    for part in read_parts(artifacts.TRAINING, columns):
        rows = part.to_pandas()
        missing.add(rows)
        truth[start : start + len(rows)] = truth_of(rows, schema)
        if weights is not None:
            weights[start : start + len(rows)] = rows[measure.task.weight]
        samples.append(rows.iloc[-start % step :: step].copy())  # without the copy, all rows stay in memory
        start += len(rows)
    sample = pd.concat(samples, ignore_index=True)
    if weights is not None:
        weights = measure.weights(pd.DataFrame({str(measure.task.weight): weights}))
    return TrainingRows(truth, Sample(sample, truth_of(sample, schema)), missing, weights)


def check_champion(champion: Bundle | None, released: str | None) -> None:
    """Raise CheckFailed if champion/ differs from the released bundle, or is not empty before the first release.

    DVC accepts any content in champion/. Without this check, a person could empty champion/, and the gate would compare
    the challenger only with the naive baseline.
    """
    if champion is not None and champion.hash != released:
        raise CheckFailed(
            f"{artifacts.CHAMPION} has the bundle {champion.hash}, but {artifacts.RELEASE} names {released}; "
            f"restore it with `git checkout champion.dvc` and `dvc checkout --force {artifacts.CHAMPION}`."
        )
    if champion is None and artifacts.CHAMPION.is_dir() and any(artifacts.CHAMPION.iterdir()):
        raise CheckFailed(
            f"{artifacts.CHAMPION} has a bundle, but {artifacts.RELEASE} names no release; "
            "empty the folder, or restore both with `git checkout` and `dvc checkout`."
        )


def check_no_leak(challenger: Bundle, holdout: pd.DataFrame) -> None:
    """Raise CheckFailed if the challenger was trained on a row of the holdout."""
    leaked = challenger.was_trained_on(holdout[ROW_ID].to_numpy())
    if leaked.any():
        first = holdout[leaked].iloc[0]
        raise CheckFailed(
            f"{challenger.path} was trained on {leaked.sum()} of the {len(holdout)} holdout rows (the first is in the "
            f"delivery {first[DELIVERY]}), so its score there means nothing; run `dvc repro`, which splits and trains."
        )


def leave_out_seen(champion: Bundle | None, holdout: pd.DataFrame) -> pd.DataFrame:
    """Return the holdout rows that the champion was not trained on.

    If `split.days` was increased after the champion's training, the oldest holdout rows are among its training rows.
    Raises CheckFailed if no row is left.
    """
    if champion is None:
        return holdout
    seen = champion.was_trained_on(holdout[ROW_ID].to_numpy())
    if not seen.any():
        return holdout
    unseen = holdout[~seen].reset_index(drop=True)
    if unseen.empty:
        raise CheckFailed(
            f"{champion.path} was trained on every one of the {len(holdout)} holdout rows, so its score there means "
            "nothing; make the holdout newer or smaller in params.yaml (`split`)."
        )
    return unseen


def _check_task(bundle: Bundle, today: Schema) -> None:
    schema = bundle.schema
    without_champion = (
        f"start without a champion: empty champion/, run `dvc add champion`, and write "
        f'{{"champion": null}} to {artifacts.RELEASE}.'
    )
    if (schema.kind, schema.target, schema.classes) != (today.kind, today.target, today.classes):
        raise InputError(
            f"{bundle.path} is for another task (a {schema.kind} of {schema.target}"
            f"{f', classes {listed(schema.classes)}' if schema.classes else ''}) and cannot be compared; "
            f"{without_champion}"
        )
    if schema.row_ids != today.row_ids:
        raise CheckFailed(
            f"{bundle.path} identifies its training rows by ({schema.row_ids or ', '.join(schema.key)}) and "
            f"src/model/schema.py by ({today.row_ids}), so rows of the holdout that it was trained on cannot be found; "
            f"keep the KEY and its types, or {without_champion}"
        )


def check_percentage(truth: Floats, rows: str, target: str, task: Task) -> None:
    """Raise InputError if the loss is a percentage error and a true value is 0. `rows` names the rows in words."""
    if task.loss == "mean_absolute_percentage_error" and not truth.all():
        raise InputError(
            f"{task.loss} is undefined for {(truth == 0).sum()} {rows}, where {target} is 0; "
            "choose another `task.loss` in params.yaml."
        )


def _hold_contest(
    holdout: pd.DataFrame,
    answers: dict[str, Floats],
    bundles: dict[str, Bundle],
    params: Params,
    training: TrainingRows,
    measure: Measure,
    model: Model,
) -> ScoredHoldout:
    task, schema, sample = params.task, bundles["challenger"].schema, training.sample
    constant = measure.naive(
        training.truth,
        sample.truth,
        measure.features(sample.frame),
        len(schema.classes or ()),
        training.weights,
        None if training.weights is None else sample.frame[task.weight].to_numpy(np.float64),
    )
    answers = {**answers, "baseline": np.repeat(constant, len(holdout), axis=0)}
    truth = truth_of(holdout, schema)
    check_percentage(truth, "rows of the holdout", schema.target, task)
    rows = measure.features(holdout)
    decisions = {name: bundle.schema.decision for name, bundle in bundles.items()} | {"baseline": measure.decision}
    losses = {name: measure.losses(truth, answer, rows, decisions[name]) for name, answer in answers.items()}
    slices = slice_labels(holdout, params.evaluate.slices, model, params.train.minimum_value_rows)
    return ScoredHoldout(holdout, slices, truth, answers, losses, measure.weights(holdout))


def score(bundle: Bundle, rows: pd.DataFrame, engine: Engine = LOCAL) -> Floats:
    """Return the bundle's predictions for validated rows. ONNX Runtime computes the predictions, as in the server.

    If `engine` has several processes or workers, each process or worker loads the bundle. Raises CheckFailed if a
    prediction is infinite or missing.
    """
    names = [column.name for column in bundle.schema.columns]
    parts = [rows.iloc[start : start + SCORED_ROWS] for start in range(0, len(rows), SCORED_ROWS)]
    if engine == LOCAL or len(parts) == 1:
        found = [_predict(bundle, part) for part in parts]
    else:
        work = partial(_predict_there, bundle.path.absolute(), bundle.hash)
        found = [*run_each(engine, work, (part[names] for part in parts))]
    answers: Floats = np.concatenate(found)
    broken = ~np.isfinite(answers).all(axis=1)
    if broken.any():
        raise CheckFailed(
            f"{bundle.path} predicts an infinite or missing value for {broken.sum()} of {len(rows)} holdout rows, so "
            "it cannot be judged; correct the model in src/model."
        )
    return answers


def _predict(bundle: Bundle, rows: pd.DataFrame) -> Floats:
    return bundle.predict(tensors(features(rows, bundle.schema), bundle.schema)).astype(np.float64)


def _predict_there(path: Path, identity: str, rows: pd.DataFrame) -> Floats:
    return _predict(bundle_with(path, identity), rows)


def truth_of(
    rows: pd.DataFrame,
    schema: Schema,
    where: str = "The holdout",
    remedy: str = "split by key, or deliver rows of that class",
) -> Floats:
    """Return the target of each row: its value, or the position of its class.

    Raises InputError for an unknown class. The message names the rows as `where`, and says what to do as `remedy`.
    """
    target = rows[schema.target]
    if schema.classes is None:
        return np.asarray(target, dtype=np.float64)
    if unknown := set(target.astype(str)) - set(schema.classes):
        raise InputError(
            f"{where} has the class {min(unknown)!r} of {schema.target}, which the model was not trained on; {remedy}."
        )
    return np.asarray(pd.Index(schema.classes).get_indexer(target.astype(str)), dtype=np.float64)


def _evaluate(
    contest: ScoredHoldout,
    bundles: dict[str, Bundle],
    scored: ScoredFeatures,
    params: Params,
    model: Model,
    positive: int,
    left_out: int,
) -> Evaluation:
    def contender(name: str) -> Contender:
        bundle = bundles.get(name)
        return Contender(
            bundle=bundle and bundle.hash,
            bytes=bundle and bundle.size,
            loss=average(contest.losses[name], contest.weights),
            metrics=summarise(
                params.task.kind,
                contest.truth,
                contest.answers[name],
                params.task.loss,
                contest.losses[name],
                params.gate.floors,
                contest.weights,
                positive,
            ),
        )

    champion, challenger, within = bundles.get("champion"), bundles["challenger"], params.gate.equality_tolerance
    decisions = (champion or challenger).schema.decision, challenger.schema.decision
    return Evaluation(
        loss=params.task.loss_name,
        holdout=_describe_holdout(contest.rows, model, left_out),
        champion=contender("champion") if "champion" in bundles else None,
        challenger=contender("challenger"),
        baseline=contender("baseline"),
        slices=_slice_scores(contest, params.task.loss),
        churn=_churn(contest, bundles) if "champion" in bundles else None,
        features=scored.features,
        newest_delivery=scored.newest_delivery,
        server_changes=server_changes(champion, challenger, within) if champion else (),
        positive=params.task.positive,
        positive_index=positive,
        decides_differently=decision_changes(*decisions, within),
    )


def _describe_holdout(rows: pd.DataFrame, model: Model, left_out: int) -> Holdout:
    if model.TIME is None:
        return Holdout(rows=len(rows), first=None, last=None, left_out=left_out)
    times = rows[model.TIME]
    return Holdout(rows=len(rows), first=times.min().date(), last=times.max().date(), left_out=left_out)


def _slice_scores(contest: ScoredHoldout, loss: str) -> tuple[SliceScore, ...]:
    labels = contest.slices

    def mean_loss(name: str, inside: NDArray[np.bool_]) -> float:
        losses = losses_within(loss, contest.losses[name], contest.truth, contest.answers[name], inside)
        return average(losses, None if contest.weights is None else contest.weights[inside])

    scores = []
    for column in labels:
        for value in sorted(labels[column].unique()):
            inside = (labels[column] == value).to_numpy()
            scores.append(
                SliceScore(
                    column=column,
                    value=value,
                    rows=int(inside.sum()),
                    champion=mean_loss("champion", inside) if "champion" in contest.losses else None,
                    challenger=mean_loss("challenger", inside),
                )
            )
    return tuple(scores)


def _churn(contest: ScoredHoldout, bundles: dict[str, Bundle]) -> Churn:
    before, after = contest.answers["champion"], contest.answers["challenger"]
    difference = np.abs(after - before).max(axis=1)
    old, new = bundles["champion"].schema, bundles["challenger"].schema
    if new.kind == "regression":
        difference = difference / np.maximum(np.abs(before[:, 0]), np.finfo(np.float32).tiny)
        moved = difference > MOVED
    else:
        moved = old.chosen(before) != new.chosen(after)
    return Churn(
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        moved=float(moved.mean()),
    )


def _write_scores(contest: ScoredHoldout, schema: Schema, params: Params, model: Model) -> None:
    """Write the file that the gate reads, with the losses, predictions, slices, time and group of each holdout row."""
    columns = {ROW_ID: contest.rows[ROW_ID], TRUTH: contest.truth}
    if schema.classes:
        columns[ANSWER] = schema.chosen(contest.answers["challenger"])
    for name, answer in contest.answers.items():
        columns[f"{name}_loss"] = contest.losses[name]
        for index in range(answer.shape[1]):
            columns[f"{name}_{index}"] = answer[:, index]
    if contest.weights is not None:
        columns[WEIGHT] = contest.weights
    if model.TIME:
        columns[TIME] = contest.rows[model.TIME]
    if params.split.column:
        columns[GROUP] = contest.rows[params.split.column].astype("str")
    write_table(artifacts.SCORES, pd.concat([pd.DataFrame(columns), contest.slices.add_prefix(SLICE)], axis=1))

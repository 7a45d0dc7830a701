"""gate: decide whether the challenger ships, and give the reason (scores → metrics/verdict.json).

The gate compares the champion and the challenger by the mean difference of their losses on the same holdout rows. Rows
of the same day or group have correlated errors. If the gate treated these rows as independent, it would find
improvements that do not exist. `slipway.statistics.blocks` therefore computes the interval of the difference by day, by
group, or by both. The interval is by day if rows have a time, and by group if `split.column` is set. If `task.weight`
is set, all means are weighted.

A challenger with the same predictions as the champion is `unchanged`. Such a challenger ships only if its bundle
changes the server in another way, for example with a new mark `private` (`slipway.pipeline.server_changes`).

Any other challenger ships if the whole interval is above the margin, every floor holds, no slice is significantly
worse, and there is no sign of a leak (`slipway.pipeline.suspicion`). A negative margin allows the loss to rise, but
does not change the floors, the margin for slices, or the verdict on a first model. Bonferroni's correction widens the
intervals of slices, so that the error rate of all slices together is the error rate of one test.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway import artifacts
from slipway.artifacts import (
    Comparison,
    Contender,
    Decay,
    Evaluation,
    FloorVerdict,
    Release,
    SliceVerdict,
    Verdict,
)
from slipway.config import Floor, Gate, Params
from slipway.errors import InputError
from slipway.pipeline.columns import ANSWER, GROUP, SLICE, TIME, TRUTH, WEIGHT
from slipway.pipeline.parquet import read_table
from slipway.pipeline.suspicion import explain, find_suspicions
from slipway.pipeline.verdict_text import Wording
from slipway.statistics.blocks import Mean, average, mean_of
from slipway.statistics.metrics import LOSSES_OF_PAIRS, losses_within

Floats = NDArray[np.float64]
DIFFERENCE = "gate.slices.maximum_difference"


def run(params: Params, look: int = 1) -> Verdict:
    """Read the scores that `evaluate` wrote, and write the verdict. The verdict `hold` raises no error.

    `look` is the position of the challenger among all models that were compared on this holdout, starting with 1.
    """
    scores = read_table(artifacts.SCORES)
    verdict = judge(scores, Evaluation.read(artifacts.EVALUATION), Release.read(artifacts.RELEASE), params, look)
    verdict.write(artifacts.VERDICT)
    return verdict


def judge(scores: pd.DataFrame, evaluation: Evaluation, release: Release, params: Params, look: int = 1) -> Verdict:
    """Return the verdict on the challenger, which is the `look`-th model compared on this holdout.

    `scores` has one row for each holdout row. The columns of `scores` are the losses
    `{champion,challenger,baseline}_loss`, the predictions `{champion,challenger}_0`, …, and one column of labels for
    each sliced column.
    """
    champion, challenger = evaluation.champion, evaluation.challenger
    rules = params.gate if champion else without_negative_margin(params.gate)
    reference = champion or evaluation.baseline
    words = Wording(params.task, evaluation.holdout)
    gains = (scores[f"{'champion' if champion else 'baseline'}_loss"] - scores["challenger_loss"]).to_numpy()
    comparison = compare(mean_by_block(gains, scores), rules.confidence, look)
    few = comparison.rows < rules.minimum_rows  # rows with the weight 0 do not count
    enough = not few and comparison.interval is not None
    floors = (*check_floors(challenger, rules.floors), *check_differences(scores, evaluation, rules))
    slices = check_slices(scores, gains, rules, evaluation.loss) if enough and champion else ()
    suspicions = find_suspicions(evaluation, rules.suspicious) if enough else ()

    same = sameness(scores, evaluation, rules.equality_tolerance)
    if same and not evaluation.server_changes:
        kind, reason = "unchanged", words.unchanged(same, rules.equality_tolerance)
    elif few:
        kind, reason = "hold", words.too_few(comparison, rules.minimum_rows)
    elif same:
        kind, reason = "ship", words.changes_server(same, rules.equality_tolerance, evaluation.server_changes)
    elif comparison.interval is None:
        kind, reason = "hold", f"{words.too_few_blocks(comparison)}{words.hold_out_more(comparison)}"
    elif broken := [floor for floor in floors if not floor.held]:
        kind, reason = "hold", words.below_floor(broken[0])
    elif not (challenger.loss < evaluation.baseline.loss or (champion and comparison.interval[0] > 0)):
        kind, reason = "hold", words.below_baseline(evaluation)
    elif not comparison.interval[0] > rules.margin * reference.loss:
        kind, reason = "hold", words.not_better(comparison, reference.loss, rules)
    elif worse := [part for part in slices if part.regressed]:
        kind, reason = "hold", words.worse_slice(comparison, reference.loss, worse[0])
    else:
        kind = "ship" if champion else "first"
        reason = words.better(comparison, evaluation, rules)
        if suspicions:
            kind, reason = "hold", f"{reason}{explain(suspicions)}"
    return Verdict(
        verdict=kind,
        reason=f"{reason}{words.looks(look)}{words.left_out(held=kind == 'hold')}",
        loss=evaluation.loss,
        holdout=evaluation.holdout,
        reference="champion" if champion else "baseline",
        champion_bundle=champion and champion.bundle,
        challenger_bundle=str(challenger.bundle),
        reference_loss=reference.loss,
        challenger_loss=challenger.loss,
        baseline_loss=evaluation.baseline.loss,
        comparison=comparison if enough else None,
        floors=floors,
        slices=slices,
        suspicions=suspicions,
        decay=decay(release, champion, evaluation),
        look=look,
        same_predictions=bool(same and evaluation.server_changes),
    )


def without_negative_margin(rules: Gate) -> Gate:
    """Replace a negative margin in the rules by 0, because a first model must beat the naive baseline."""
    return rules.model_copy(update={"margin": max(rules.margin, 0.0)})


def mean_by_block(values: Floats, rows: pd.DataFrame) -> Mean:
    """Return the mean of `values`, which has one value for each row. Return the weighted mean if rows have weights.

    The time and the group of a row define its blocks.
    """
    return mean_of(
        values,
        times=rows[TIME].to_numpy() if TIME in rows else None,
        groups=rows[GROUP].to_numpy() if GROUP in rows else None,
        weights=weights_of(rows),
    )


def weights_of(rows: pd.DataFrame) -> Floats | None:
    """Return the weights of scored rows, or None if rows have equal weights."""
    return rows[WEIGHT].to_numpy() if WEIGHT in rows else None


def compare(gain: Mean, confidence: float, looks: int = 1) -> Comparison:
    """Return the mean gain with its interval.

    The interval is wide enough for `looks` models that are compared on the same rows.
    """
    return Comparison(
        rows=gain.rows,
        effective_rows=gain.effective_rows,
        days=gain.days,
        groups=gain.groups,
        blocks=gain.blocks,
        difference=gain.value,
        interval=gain.interval(confidence, looks),
        confidence=confidence,
    )


def sameness(scores: pd.DataFrame, evaluation: Evaluation, within: float) -> str | None:
    """Return "bytes" if both models have the same bytes, or "answers" if only their predictions are the same.

    Return None if the predictions differ, if different decision rules give different losses, or if there is no
    champion.

    If two equal models are trained on different processors, rounding can make their bytes differ. Their predictions on
    the holdout then agree within the relative tolerance `within`.
    """
    champion, challenger = evaluation.champion, evaluation.challenger
    if champion is None:
        return None
    if champion.bundle == challenger.bundle:
        return "bytes"
    if evaluation.decides_differently and not scores["champion_loss"].equals(scores["challenger_loss"]):
        return None
    agree = answers_agree(answers_of("champion", scores), answers_of("challenger", scores), within)
    return "answers" if agree else None


def answers_agree(before: Floats, after: Floats, within: float) -> bool:
    """Return whether all predictions agree within the relative tolerance `within`.

    Both arrays have the shape [rows, outputs].
    """
    size = np.maximum(np.abs(before), 0.01 * np.abs(before).mean(axis=0))  # near 0: relative to 1% of the mean size
    return bool((np.abs(after - before) <= within * size).all())


def answers_of(contender: str, scores: pd.DataFrame) -> Floats:
    """Return the predictions of the champion or the challenger, with the shape [rows, 1] or [rows, classes]."""
    width = sum(name.startswith(f"{contender}_") for name in scores) - 1  # the loss column has the same prefix
    answers: Floats = scores[[f"{contender}_{index}" for index in range(width)]].to_numpy()
    return answers


def check_floors(challenger: Contender, floors: dict[str, Floor]) -> tuple[FloorVerdict, ...]:
    """Compare the challenger's metrics with the floors. Raises InputError if a floor names an unknown metric."""
    verdicts = []
    for metric, floor in floors.items():
        if metric not in challenger.metrics:
            raise InputError(
                f"params.yaml: `gate.floors.{metric}` is undefined on this holdout; name one of "
                f"{', '.join(challenger.metrics)}."
            )
        value = challenger.metrics[metric]
        bound = f"at most {floor.at_most:g}" if floor.at_most is not None else f"at least {floor.at_least:g}"
        held = value <= floor.at_most if floor.at_most is not None else value >= float(floor.at_least or 0)
        verdicts.append(FloorVerdict(metric=metric, value=value, bound=bound, held=held))
    return tuple(verdicts)


def check_differences(scores: pd.DataFrame, evaluation: Evaluation, rules: Gate) -> tuple[FloorVerdict, ...]:
    """Compare the largest difference between two slices of a column with its limit in `slices.maximum_difference`.

    A limit for a rate is compared with the difference of the two rates. A limit for the loss is compared with the
    difference divided by the loss on all rows. Slices with fewer than `slices.minimum_rows` rows are left out, and
    rows with the weight 0 do not count. Raises InputError if a column is not sliced, or if a rate has a limit and the
    task does not have two classes.
    """
    verdicts, loss, positive = [], evaluation.challenger.loss, evaluation.positive_index
    scores = scores[scores[WEIGHT] > 0].reset_index(drop=True) if WEIGHT in scores else scores
    for column, limits in rules.slices.maximum_difference.items():
        if SLICE + column not in scores:
            raise InputError(f"params.yaml: `{DIFFERENCE}.{column}` is not a column of `evaluate.slices`; add it.")
        for of, most in limits.items() if isinstance(limits, dict) else [("loss", limits)]:
            if of == "loss":
                means, unit = _losses_by_slice(scores, SLICE + column, rules, evaluation.loss), loss
            else:
                means, unit = _rates_by_slice(scores, SLICE + column, rules, of, positive), 1.0
            if len(means) < 2 or not unit:
                continue
            low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
            difference = (means[high] - means[low]) / unit
            name = f"difference of the {of} between {column} {high} and {low}"
            verdicts.append(
                FloorVerdict(
                    metric=name, value=difference, bound=f"at most {most:g}", held=difference <= most, of=DIFFERENCE
                )
            )
    return tuple(verdicts)


def _losses_by_slice(scores: pd.DataFrame, column: str, rules: Gate, loss: str) -> dict[str, float]:
    """Return the challenger's mean loss on each slice that has enough rows."""
    truth, answers = scores.get(TRUTH, scores["challenger_loss"]).to_numpy(), answers_of("challenger", scores)
    means = {}
    for value, rows in scores.groupby(column).indices.items():
        if len(rows) >= rules.slices.minimum_rows:
            inside = np.zeros(len(scores), dtype=bool)
            inside[rows] = True
            losses = losses_within(loss, scores["challenger_loss"].to_numpy(), truth, answers, inside)
            weights = weights_of(scores)
            means[str(value)] = average(losses, None if weights is None else weights[inside])
    return means


def _rates_by_slice(scores: pd.DataFrame, column: str, rules: Gate, rate: str, positive: int) -> dict[str, float]:
    """Return for each slice with enough rows how often the challenger chooses the positive class, as a share of rows.

    A true positive rate or a false positive rate uses only the rows of one class (Hardt, Price and Srebro 2016).
    """
    rules.slices.check_classes(answers_of("challenger", scores).shape[1] if ANSWER in scores else 0)
    counted = {
        "true_positive_rate": scores[TRUTH] == positive,
        "false_positive_rate": scores[TRUTH] != positive,
    }
    rows = scores[counted[rate]] if rate in counted else scores
    answered = (rows[ANSWER] == positive).to_numpy(np.float64)
    return {
        str(value): average(answered[inside], weights_of(rows.iloc[inside]))
        for value, inside in rows.groupby(column).indices.items()
        if len(inside) >= rules.slices.minimum_rows
    }


def check_slices(scores: pd.DataFrame, gains: Floats, rules: Gate, loss: str = "") -> tuple[SliceVerdict, ...]:
    """Compare the models on each slice. Return the verdicts on the slices, with the worst slice first.

    A slice regresses if the whole interval of its gain is below minus `slices.margin` times the champion's loss on the
    slice.
    """
    # Selecting rows copies every column, so only the columns that `mean_by_block` needs are kept.
    blocks = scores[[column for column in (TIME, GROUP, WEIGHT) if column in scores]]
    references = scores["champion_loss"].to_numpy()

    def compared(inside: NDArray[np.bool_]) -> tuple[Floats, float]:
        """Return the gain of each row of a slice, and the champion's loss on the slice."""
        if loss not in LOSSES_OF_PAIRS:
            return gains[inside], average(references[inside], weights_of(blocks[inside]))
        before, after = (
            losses_within(loss, gains, scores[TRUTH].to_numpy(), answers_of(name, scores), inside)
            for name in ("champion", "challenger")
        )
        return before - after, float(before.mean())

    parts = {
        (column.removeprefix(SLICE), str(value)): (mean_by_block(gain, blocks[inside]), reference)
        for column in scores.columns[scores.columns.str.startswith(SLICE)]
        for value in sorted(scores[column].unique())
        for inside in [(scores[column] == value).to_numpy()]
        for gain, reference in [compared(inside)]
    }
    judged = {key for key, (gain, _) in parts.items() if gain.judgeable and gain.rows >= rules.slices.minimum_rows}
    confidence = 1 - (1 - rules.confidence) / max(1, len(judged))
    verdicts = []
    for key, (gain, reference_loss) in parts.items():
        comparison = compare(gain, confidence)
        high = comparison.interval[1] if comparison.interval else np.inf
        verdicts.append(
            SliceVerdict(
                column=key[0],
                value=key[1],
                comparison=comparison,
                reference_loss=reference_loss,
                judged=key in judged,
                regressed=key in judged and high < -rules.slices.margin * reference_loss,
            )
        )
    return tuple(sorted(verdicts, key=lambda part: (not part.regressed, not part.judged, part.relative)))


def decay(release: Release, champion: Contender | None, evaluation: Evaluation) -> Decay | None:
    """Return the champion's loss at its release and its loss on the current holdout.

    Return None if these losses cannot be compared, or if the holdout has not changed since the release.
    """
    if champion is None or release.champion != champion.bundle or release.loss != evaluation.loss:
        return None
    if release.value is None or release.holdout is None or evaluation.holdout == release.holdout:
        return None
    return Decay(at_release=release.value, now=champion.loss, released_on=release.holdout)

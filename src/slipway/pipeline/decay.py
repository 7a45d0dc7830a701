"""Compare the champion's loss and bias on a delivery with its loss and bias at its release.

The champion predicts the rows of the delivery. The champion's training rows and the holdout rows of its release are
left out. The champion has decayed if its mean loss has risen or if a bias has grown. The loss has risen if its whole
confidence interval is above (1 + `decay.margin`) times the loss at release. The loss is tested on all rows, and in each
slice with enough rows. A bias has grown if its whole interval is above max(0, bias at release) plus the allowed bias. A
bias has also grown if its whole interval is below min(0, bias at release) minus the allowed bias.

Confidence intervals are computed by day and by group, as in the gate. The loss at release also has a sampling error.
The interval of the current loss therefore uses the standard error of the difference from the loss at release.

The probability of a false alarm is at most 1 - `decay.confidence`. Bonferroni's correction divides this probability
between the tests. Half of the probability is for the loss on all rows, a quarter for the biases, and a quarter for all
slices together. The test of a loss is one-sided, because a lower loss is not decay.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.stats import t as student

from slipway.artifacts import Artifact, Holdout, Release
from slipway.bundle import Bundle, Schema, check_columns
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import DELIVERY, GROUP, ROW_ID, SLICE, TIME, WEIGHT
from slipway.pipeline.evaluate import check_percentage, score, truth_of
from slipway.pipeline.gate import mean_by_block, weights_of
from slipway.pipeline.measure import measure_of
from slipway.pipeline.number_text import number, with_unit
from slipway.pipeline.row_ids import Ids, row_id_scheme
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.split import by_hash
from slipway.pipeline.verdict_text import Wording
from slipway.statistics.blocks import Estimate, Mean, average, relative_to
from slipway.statistics.metrics import LOSSES_OF_PAIRS, Floats

PERIODS = 6
SAME = 1e-4  # relative tolerance for equal losses, because another processor may round differently
FOUND = 0.9
"""`smallest_found` returns the rise of the loss that raises an alarm with this probability."""
LOSS = "loss"
ERROR, TRUTH = "error: ", "truth: "
"""Prefixes of the columns with the error and the truth of each output. The output of a regression is the target. A
classification has one output for each class, with the truth 1 or 0.
"""


class Measure(Artifact):
    """The mean of a loss or a bias, with its interval and its value at release.

    A measure without `at_least` and `at_most` raises no alarm.
    """

    value: float
    confidence: float
    interval: tuple[float, float] | None
    """None if the rows come from too few days or groups."""
    at_release: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def beyond(self) -> bool:
        """True if the whole interval is above `at_most` or below `at_least`."""
        if self.interval is None:
            return False
        low, high = self.interval
        return (self.at_most is not None and low > self.at_most) or (self.at_least is not None and high < self.at_least)


class Part(Artifact):
    """The champion's loss and biases on a part of the delivery."""

    column: str | None
    """The column that defines the slice, "from" if the part is a period, or None if the part is the whole delivery."""
    value: str
    rows: int
    loss: Measure
    biases: dict[str, Measure]
    """Maps each output to the mean of prediction minus truth."""
    sizes: dict[str, float]
    """Maps each output to the mean absolute value of its true values."""


class DeliveryDecay(Artifact):
    """The champion's decay on a delivery.

    `periods` divide the delivery by time. `periods` is empty if rows have no time, or if the loss compares pairs of
    rows.
    """

    delivery: str
    champion: str
    alarm: bool
    reason: str
    released_on: Holdout
    holdout: Holdout
    """The rows of the delivery that were checked."""
    trained_on: int
    """The number of rows left out because the champion was trained on them."""
    judged_on: int
    """The number of rows left out because they were in the holdout of the champion's release."""
    whole: Part
    slices: tuple[Part, ...]
    periods: tuple[Part, ...]


def decay_on(
    delivery: str, rows: pd.DataFrame, bundle: Bundle, release: Release, params: Params, model: Model
) -> DeliveryDecay | None:
    """Return the champion's decay on one delivery.

    Return None if all rows of the delivery were already used to train the champion, or to evaluate it at its release.
    `rows` are the accepted rows of all deliveries. These rows include the holdout of the release. The loss at release
    in each slice is computed from this holdout.
    """
    unseen, judged, then = _at_release(rows, bundle, release, params, model)
    delivered = unseen[unseen[DELIVERY] == delivery]
    fresh = delivered[~delivered.index.isin(judged.index)]
    if fresh.empty:
        return None
    now = answer_for(fresh, bundle, params, model)
    return judge(
        delivery,
        now,
        then,
        release,
        params,
        trained_on=int((rows[DELIVERY] == delivery).sum()) - len(delivered),
        judged_on=len(delivered) - len(fresh),
    )


def check_release(release: Release, bundle: Bundle, params: Params, model: Model) -> Holdout:
    """Return the holdout of the release. Raises InputError if later losses cannot be compared with its loss."""
    if release.value is None or release.holdout is None or release.loss != params.task.loss_name:
        name = params.task.loss_name.replace("_", " ")
        raise InputError(
            f"metrics/release.json lacks the {name} of the champion at its release, so "
            "its decay cannot be computed; release it again, or restore `task.loss` and `task.weight` in params.yaml."
        )
    if (bundle.schema.row_ids, bundle.schema.target) != (row_id_scheme(model), model.TARGET):
        raise InputError(
            f"{bundle.path} has a different KEY or TARGET than src/model/schema.py, so its decay cannot be computed; "
            "restore the champion's KEY and TARGET in src/model/schema.py, or release a model with the new ones."
        )
    return release.holdout


@dataclass(frozen=True)
class AtRelease:
    """The champion's losses at its release, and the rows that it was trained or evaluated on.

    `scored` is None if the holdout rows cannot be identified.
    """

    release: Release
    bundle: Bundle
    scored: pd.DataFrame | None
    """The result of `answer_for` for the holdout rows of the release."""
    seen: Ids
    """The sorted ids of the champion's training rows and, if they are available, of the holdout rows of its release."""


def at_release(rows: pd.DataFrame | None, bundle: Bundle, release: Release, params: Params, model: Model) -> AtRelease:
    """Return the champion's losses at its release, and the rows that it was trained or evaluated on.

    `rows` are the accepted rows of all deliveries, or None. Raises InputError if later losses cannot be compared with
    the loss at release.
    """
    if rows is None:
        check_release(release, bundle, params, model)
        return AtRelease(release, bundle, None, bundle.training_rows())
    _, judged, scored = _at_release(rows, bundle, release, params, model)
    seen = np.union1d(bundle.training_rows(), judged[ROW_ID].to_numpy())
    return AtRelease(release, bundle, scored, seen)


def _at_release(
    rows: pd.DataFrame, bundle: Bundle, release: Release, params: Params, model: Model
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """Return three tables: rows that the model was not trained on, the holdout of its release, and its losses there.

    If the holdout cannot be identified, return all rows that were possibly in it, and None for the losses.
    """
    holdout = check_release(release, bundle, params, model)
    check_columns(bundle, list(rows.columns))
    unseen = rows[~bundle.was_trained_on(rows[ROW_ID].to_numpy())]
    judged = _judged_at_release(unseen, holdout, params, model)
    then = answer_for(judged, bundle, params, model) if len(judged) == holdout.rows else None
    if then is not None and np.isclose(_mean(then, LOSS).value, release.value or 0, rtol=SAME):
        return unseen, judged, then
    return unseen, _perhaps_judged(rows, unseen, holdout, model), None


def _judged_at_release(unseen: pd.DataFrame, holdout: Holdout, params: Params, model: Model) -> pd.DataFrame:
    """Return the rows that were most likely in the holdout of the release.

    A row qualifies if the current split holds it out and its time is in the period of the release's holdout. If more
    rows qualify than the holdout had, the rows from the oldest deliveries are returned.
    """
    candidates = unseen[by_hash(unseen, params.split)]
    if model.TIME and holdout.first and holdout.last:
        first, last = (pd.Timestamp(day) for day in (holdout.first, holdout.last))
        candidates = candidates[candidates[model.TIME].dt.normalize().between(first, last)]
    return candidates.sort_values(DELIVERY, kind="stable").head(holdout.rows)


def _perhaps_judged(rows: pd.DataFrame, unseen: pd.DataFrame, holdout: Holdout, model: Model) -> pd.DataFrame:
    """Return all rows that were possibly in the holdout of the release.

    This function is used if the holdout cannot be identified, for example because the split has changed. The result is
    all rows of `unseen` from the days of the holdout. If the holdout has no days, the result is all rows of `unseen`
    from the deliveries that contain training rows.
    """
    if model.TIME and holdout.first and holdout.last:
        first, last = (pd.Timestamp(day) for day in (holdout.first, holdout.last))
        return unseen[unseen[model.TIME].dt.normalize().between(first, last)]
    trained = rows[~rows.index.isin(unseen.index)][DELIVERY].unique()
    return unseen[unseen[DELIVERY].isin(trained)]


def answer_for(rows: pd.DataFrame, bundle: Bundle, params: Params, model: Model) -> pd.DataFrame:
    """Predict `rows`. Return a frame with the champion's loss, and the slices, time and group of each row.

    If the loss compares pairs of rows, the slices are left out. The frame also has the champion's error and the truth
    for each output. Raises InputError if a percentage error is undefined because the truth is 0, or if a row has a
    class that the champion was not trained on.
    """
    truth = truth_of(rows, bundle.schema, "The delivery", "train and release a model with that class")
    check_percentage(truth, "rows of the delivery", bundle.schema.target, params.task)
    answers = score(bundle, rows)
    measure = measure_of(params.task, model, bundle.schema.classes)
    losses = measure.losses(truth, answers, measure.features(rows), bundle.schema.decision)
    scored = pd.DataFrame(scores(losses, truth, answers, bundle.schema), index=rows.index)
    if (weights := measure.weights(rows)) is not None:
        scored[WEIGHT] = weights
    if model.TIME:
        scored[TIME] = rows[model.TIME]
    if params.split.column:
        scored[GROUP] = rows[params.split.column].astype(str)
    if params.task.loss in LOSSES_OF_PAIRS:  # the mean of these losses in a slice is not the loss on the slice
        return scored
    labels = slice_labels(rows, params.evaluate.slices, model, params.train.minimum_value_rows)
    return pd.concat([scored, labels.add_prefix(SLICE)], axis=1)


def scores(losses: Floats, truth: Floats, answers: Floats, schema: Schema) -> dict[str, Floats]:
    """Return the numeric columns of `answer_for`: the loss of each row, and the error and the truth for each output.

    `truth` contains target values or class indices, with the shape [rows]. `answers` has the shape [rows, outputs].
    """
    classes = schema.classes
    truths = truth[:, None] if classes is None else np.eye(len(classes))[truth.astype(int)]
    columns = {LOSS: losses}
    for index, output in enumerate(classes or (schema.target,)):
        if classes and len(classes) == 2 and index == 0:
            continue  # the error of the second class has the same size
        columns |= {f"{ERROR}{output}": answers[:, index] - truths[:, index], f"{TRUTH}{output}": truths[:, index]}
    return columns


@dataclass(frozen=True)
class _Before:
    """The champion's loss and biases at its release. `mean` is None if the holdout of the release is not available."""

    rows: int
    loss: float
    mean: Mean | None
    biases: dict[str, float]


def judge(
    delivery: str,
    now: pd.DataFrame,
    then: pd.DataFrame | None,
    release: Release,
    params: Params,
    trained_on: int = 0,
    judged_on: int = 0,
) -> DeliveryDecay:
    """Decide whether the champion has decayed on a delivery, and return the reason and all measures.

    `now` and `then` are results of `answer_for`: `now` for the delivery, `then` for the holdout of the release. If
    `then` is None, slices are not tested.
    """
    if release.value is None or release.holdout is None:
        raise ValueError("the release has no loss")
    before = _Before(release.holdout.rows, release.value, None, {}) if then is None else _before(then)
    judged = [
        _enough(part, params) and past is not None and _enough(past, params) for *_, part, past in _slices(now, then)
    ]
    of_whole = _confidences(now, params)
    of_slice = _confidences(now, params, slices=max(1, sum(judged)))

    measures = ("loss", "bias") if len(now) >= params.decay.minimum_rows else ()
    whole = _part(None, "all", now, before, of_whole, params, measures)
    periods = [_part("from", day, part, before, of_whole, params, ()) for day, part in _periods(now)]
    if params.task.loss in LOSSES_OF_PAIRS:
        periods = []
    slices = [
        _part(column, value, part, None if past is None else _before(past), of_slice, params, ("loss",) * counts)
        for (column, value, part, past), counts in zip(_slices(now, then), judged, strict=True)
    ]
    slices.sort(key=lambda part: (not part.loss.beyond, part.loss.at_most is None, -_rise(part)))
    holdout = Holdout(rows=len(now), first=None, last=None)
    if TIME in now:
        holdout = Holdout(rows=len(now), first=now[TIME].min().date(), last=now[TIME].max().date())
    return DeliveryDecay(
        delivery=delivery,
        champion=str(release.champion),
        alarm=any(each.beyond for each in (whole.loss, *whole.biases.values(), *(part.loss for part in slices))),
        reason=_reason(whole, slices, _mean(now, LOSS), Wording(params.task, holdout), params),
        released_on=release.holdout,
        holdout=holdout,
        trained_on=trained_on,
        judged_on=judged_on,
        whole=whole,
        slices=tuple(slices),
        periods=tuple(periods),
    )


@dataclass(frozen=True)
class _Confidences:
    """The confidence level for the interval of the loss, and for the interval of each bias."""

    loss: float
    bias: float


def _confidences(rows: pd.DataFrame, params: Params, slices: int | None = None) -> _Confidences:
    """Return the confidence levels for the whole delivery or, if `slices` slices are tested, for each slice.

    Only the lower end of a loss's interval raises an alarm, but the interval is two-sided. The confidence level of a
    loss is therefore 1 minus twice the probability of a false alarm in its test.
    """
    chance = 1 - params.decay.confidence
    of_loss = chance / 2 if slices is None else chance / 4 / slices
    return _Confidences(loss=1 - 2 * of_loss, bias=1 - chance / 4 / len(_outputs(rows)))


def _mean(rows: pd.DataFrame, name: str) -> Mean:
    return mean_by_block(rows[name].to_numpy(), rows)


def _enough(rows: pd.DataFrame, params: Params) -> bool:
    """Return whether `rows` has enough rows, days and groups to test the loss."""
    return len(rows) >= params.decay.minimum_rows and _mean(rows, LOSS).judgeable


def _outputs(rows: pd.DataFrame) -> list[str]:
    return [name.removeprefix(ERROR) for name in rows if name.startswith(ERROR)]


def _before(then: pd.DataFrame) -> _Before:
    biases = {output: average(then[f"{ERROR}{output}"].to_numpy(), weights_of(then)) for output in _outputs(then)}
    mean = _mean(then, LOSS)
    return _Before(len(then), mean.value, mean, biases)


def _slices(
    now: pd.DataFrame, then: pd.DataFrame | None
) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame | None]]:
    """Yield for each slice its column, its value, its rows in the delivery, and its rows at release or None.

    The yielded rows are copies. Do not keep the copies for all slices, because all copies together can exceed the
    memory.
    """
    for column in [name for name in now if name.startswith(SLICE)]:
        for value, part in now.groupby(column):
            past = None if then is None else then[then[column] == value]
            yield column.removeprefix(SLICE), str(value), part, None if past is None or past.empty else past


def _periods(now: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split the delivery into at most `PERIODS` equally long periods.

    Yield the first day and the rows of each period.
    """
    if TIME not in now:
        return
    days = now[TIME].dt.normalize()
    length = -(-((days.max() - days.min()).days + 1) // PERIODS)
    for index, part in now.groupby((days - days.min()).dt.days // length):
        yield f"{days.min() + timedelta(days=index * length):%Y-%m-%d}", part


def _part(
    column: str | None,
    value: str,
    rows: pd.DataFrame,
    before: _Before | None,
    confidence: _Confidences,
    params: Params,
    judged: tuple[str, ...],
) -> Part:
    """Return the loss and the biases on `rows`. Only the measures that `judged` names get bounds."""
    loss = _mean(rows, LOSS)
    compared = _relative_to_release(loss, before, 1 + params.decay.margin) if before and loss.judgeable else loss
    biases, sizes = {}, {}
    for output in _outputs(rows):
        sizes[output] = average(rows[f"{TRUTH}{output}"].abs().to_numpy(), weights_of(rows))
        past = before.biases.get(output) if before else None
        allowed = allowed_bias(sizes[output], params)
        bounds = {"at_least": min(0.0, past or 0.0) - allowed, "at_most": max(0.0, past or 0.0) + allowed}
        bias = _mean(rows, f"{ERROR}{output}")
        biases[output] = Measure(
            value=bias.value,
            confidence=confidence.bias,
            interval=bias.interval(confidence.bias),
            at_release=past,
            **(bounds if "bias" in judged else {}),
        )
    return Part(
        column=column,
        value=value,
        rows=len(rows),
        loss=Measure(
            value=loss.value,
            confidence=confidence.loss,
            interval=compared.interval(confidence.loss),
            at_release=before.loss if before else None,
            at_most=before.loss * (1 + params.decay.margin) if before and "loss" in judged else None,
        ),
        biases=biases,
        sizes=sizes,
    )


def _relative_to_release(now: Mean, before: _Before, times: float) -> Estimate:
    """Return the current loss with the standard error of the difference from `times` * loss at release.

    If the holdout rows of the release are not available, the variance at release is estimated from the delivery's
    losses.
    """
    if before.mean is not None and before.mean.judgeable:
        return relative_to(now, before.mean, times)
    error = now.standard_error * math.sqrt(1 + times**2 * now.rows / before.rows)
    return Estimate(value=now.value, standard_error=error, parts=now.parts, blocks=now.blocks)


def smallest_found(
    now: pd.DataFrame, then: pd.DataFrame | None, release: Release, params: Params, probability: float = FOUND
) -> float | None:
    """Return the smallest increase of the loss that these rows detect with the given probability.

    The increase is a share of the loss at release. Return None if there are too few rows for a test. The standard error
    is assumed to rise in proportion to the loss.
    """
    if release.value is None or release.holdout is None:
        raise ValueError("the release has no loss")
    loss, before = _mean(now, LOSS), _Before(release.holdout.rows, release.value, None, {})
    if not _enough(now, params) or not release.value or not loss.value:
        return None
    before = before if then is None else _before(then)
    confidence, allowed = _confidences(now, params).loss, 1 + params.decay.margin
    level = allowed
    for _ in range(5):  # iterates, because the level and its standard error depend on each other
        scaled = replace(loss, standard_error=loss.standard_error * level * before.loss / loss.value)
        compared = _relative_to_release(scaled, before, allowed)
        quantiles = student.ppf([(1 + confidence) / 2, probability], compared.degrees_of_freedom)
        level = allowed + float(quantiles.sum()) * compared.standard_error / before.loss
    return level - 1


def allowed_bias(size: float, params: Params) -> float:
    """Return the allowed bias, in the unit of the target (regression) or as a probability (classification).

    For a regression, `decay.bias` is a share of `size`, the mean absolute truth.
    """
    return params.decay.bias * (size if params.task.kind == "regression" else 1.0)


def _rise(part: Part) -> float:
    """Return the increase of the loss since the release, as a share of the loss at release."""
    past = part.loss.at_release
    return part.loss.value / past - 1 if past else 0.0


def _reason(whole: Part, slices: list[Part], mean: Mean, words: Wording, params: Params) -> str:
    """Return a sentence that explains why there is an alarm or no alarm."""
    rules = params.decay
    if whole.loss.at_most is None:
        return f"{words.rows} are too few to judge; decay.minimum_rows asks for {rules.minimum_rows:,}"
    if whole.loss.interval is None:
        said = [words.too_few_blocks(mean)]
    else:
        over = f", and decay.margin allows {rules.margin:.1%}" if whole.loss.beyond else ""
        said = [f"{words.loss} {_loss(whole, words)}, on {words.rows}{over}"]
    if not whole.loss.beyond and (worse := [part for part in slices if part.loss.beyond]):
        others = f", and {len(worse) - 1} more slices are worse" if worse[1:] else ""
        where = f"where {worse[0].column} is {worse[0].value} it {_loss(worse[0], words)}"
        said.append(f"{where}, on {worse[0].rows:,} {params.task.row_noun}{others}")
    biased = {output: each for output, each in whole.biases.items() if each.beyond}
    for output, each in (biased or dict(list(whole.biases.items())[:1])).items():
        said.append(_bias(output, each, whole.sizes[output], params))
    return f"{'; '.join(said)}{words.counted(mean) if whole.loss.interval else ''}"


def _loss(part: Part, words: Wording) -> str:
    """Describe the loss, such as `rose by 39.5%, from $8,012 at release to $11,180, 95% interval [10,700, 11,700]`."""
    past, value = part.loss.at_release, words.amount(part.loss.value)
    rise = _rise(part)
    change = (
        f"{'rose' if rise > 0 else 'fell'} by {abs(rise):.1%}, from {words.amount(past)} at release to {value}"
        if past
        else f"is {value}"
    )
    return f"{change}{_ends(part.loss, number)}"


def _ends(measure: Measure, amount: Callable[[float], str], order: int = 1) -> str:
    """Return the confidence level and the interval as text that starts with a comma.

    With `order` -1, the upper end is written first.
    """
    if measure.interval is None:
        return ""
    return f", {measure.confidence * 100:.4g}% interval [{', '.join(map(amount, measure.interval[::order]))}]"


def _bias(output: str, bias: Measure, size: float, params: Params) -> str:
    """Describe a bias, such as `answers are too low by $3,725 (4.8%), 98.75% interval [2,995, 4,478]`."""
    regression = params.task.kind == "regression"
    sign, side = (1, "high") if bias.value >= 0 else (-1, "low")
    unit, scale = (params.task.unit, 1) if regression else ("points", 100)

    def amount(value: float) -> str:
        return number(0.0 + sign * scale * value)

    share = f" ({abs(bias.value) / size:.1%})" if regression and size else ""
    if not regression:
        share = f" ({number(size + bias.value)} where {number(size)} is true)"
    ends = _ends(bias, amount, sign)
    past = "" if bias.at_release is None else f" ({amount(bias.at_release)} at release)"
    allowed = f"{params.decay.bias:.1%}" if regression else f"{number(100 * params.decay.bias)} points"
    over = f", and decay.bias allows {allowed} more than at release" if bias.beyond else ""
    what = "answers" if regression else f"probabilities of {output}"
    return f"{what} are too {side} by {with_unit(abs(scale * bias.value), unit)}{share}{ends}{past}{over}"

"""Does the live model still do on a delivery what it did at its release?

It answers for the rows of the delivery that it was not trained on. It has decayed if the whole interval of its mean
loss, over all of them or in a slice, lies beyond that at release by more than a margin, or if that of its bias lies
beyond both none and that at release. Intervals are the gate's bootstrap; as the loss at release is the mean of a
sample too, those that are held against it are stretched. Bonferroni's correction keeps the chance of a false alarm to
what was asked for: half of it goes to the whole, half to the slices together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from slipway.artifacts import Artifact, Holdout, Release
from slipway.bundle import Bundle, Schema, check_columns
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import DELIVERY, GROUP, ROW_ID, SLICE
from slipway.pipeline.evaluate import score
from slipway.pipeline.gate import MINIMUM_GROUPS, compare
from slipway.pipeline.row_ids import row_id_scheme
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.verdict_text import Wording, number
from slipway.statistics.metrics import Floats, row_losses

PERIODS = 6
SAME = 1e-4  # relative; another processor may round differently
LOSS, TIME = "loss", "time"
ERROR, TRUTH = "error: ", "truth: "
"""Before the name of an output: the target, or a class, whose probability is held against 1 or 0."""


class Measure(Artifact):
    """A mean on some rows, with its interval, and what it was at release. Without bounds it is not judged."""

    value: float
    interval: tuple[float, float]
    at_release: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether the whole interval lies beyond a bound."""
        low, high = self.interval
        return (self.at_most is not None and low > self.at_most) or (self.at_least is not None and high < self.at_least)


class Part(Artifact):
    """The live model on some rows. The intervals have the confidence `confidence`."""

    column: str | None
    """What is sliced, "from" for a period, None for the whole."""
    value: str
    rows: int
    confidence: float
    loss: Measure
    biases: dict[str, Measure]
    """The mean of answer minus truth, by output."""
    sizes: dict[str, float]
    """The mean size of the truth, by output."""


class DeliveryDecay(Artifact):
    """How the live model does on a delivery. `periods` are parts of its time, none for data without time."""

    delivery: str
    champion: str
    alarm: bool
    reason: str
    released_on: Holdout
    holdout: Holdout
    """The rows that were looked at."""
    trained_on: int
    """How many rows of the delivery the model was trained on; they are left out."""
    whole: Part
    slices: tuple[Part, ...]
    periods: tuple[Part, ...]


def decay_on(
    delivery: str, rows: pd.DataFrame, bundle: Bundle, release: Release, params: Params, model: Model
) -> DeliveryDecay | None:
    """The decay of the live model on one delivery; None where it was trained on every row of it.

    `rows` are the accepted rows of all deliveries. Among them are those on which the model was judged at its release:
    the first, by delivery, that it was not trained on. They say how it did in each slice then.
    """
    if release.value is None or release.holdout is None or release.loss != params.task.loss:
        raise InputError(
            f"metrics/release.json does not say the {params.task.loss.replace('_', ' ')} of the live model at its "
            "release, so there is nothing to hold it against; release it, or set `task.loss` back in params.yaml."
        )
    if (bundle.schema.row_ids, bundle.schema.target) != (row_id_scheme(model), model.TARGET):
        raise InputError(
            f"{bundle.path} knows its rows by another KEY, or answers for another TARGET, than src/model/schema.py, "
            "so nobody can tell how it does on them; keep both until another model is live."
        )
    check_columns(bundle, list(rows.columns))
    seen = np.isin(rows[ROW_ID].to_numpy(), bundle.training_rows())
    unseen = rows[~seen].sort_values(DELIVERY, kind="stable")
    delivered = unseen[unseen[DELIVERY] == delivery]
    if delivered.empty:
        return None
    now = answer_for(delivered, bundle, params, model)
    then = answer_for(unseen.head(release.holdout.rows), bundle, params, model)
    reproduced = len(then) == release.holdout.rows and np.isclose(then[LOSS].mean(), release.value, rtol=SAME)
    trained_on = int((rows[DELIVERY] == delivery).sum()) - len(delivered)
    return judge(delivery, now, then if reproduced else None, release, params, trained_on)


def answer_for(rows: pd.DataFrame, bundle: Bundle, params: Params, model: Model) -> pd.DataFrame:
    """How wrong the live model is on each row: its loss, error and truth by output, slices, time and group."""
    answers, truth, classes = score(bundle, rows), _truth(rows, bundle.schema), bundle.schema.classes
    if params.task.loss == "mean_absolute_percentage_error" and not truth.all():
        raise InputError(f"Of a {bundle.schema.target} of 0 there is no percentage; choose another `task.loss`.")
    truths = truth[:, None] if classes is None else np.eye(len(classes))[truth.astype(int)]
    columns = {LOSS: row_losses(params.task.loss, truth, answers)}
    for index, output in enumerate(classes or (bundle.schema.target,)):
        if classes and len(classes) == 2 and index == 0:
            continue  # the other class says it all
        columns |= {f"{ERROR}{output}": answers[:, index] - truths[:, index], f"{TRUTH}{output}": truths[:, index]}
    scored = pd.DataFrame(columns, index=rows.index)
    if model.TIME:
        scored[TIME] = rows[model.TIME]
    if params.split.by == "group":
        scored[GROUP] = rows[params.split.column].astype(str)
    return pd.concat([scored, slice_labels(rows, params.evaluate.slices).add_prefix(SLICE)], axis=1)


def _truth(rows: pd.DataFrame, schema: Schema) -> Floats:
    target = rows[schema.target]
    if schema.classes is None:
        return np.asarray(target, dtype=np.float64)
    if unknown := set(target.astype(str)) - set(schema.classes):
        raise InputError(
            f"The live model does not know the class {min(unknown)!r} of {schema.target}, which the delivery has; "
            "train one that does."
        )
    return np.asarray(pd.Index(schema.classes).get_indexer(target.astype(str)), dtype=np.float64)


@dataclass(frozen=True)
class _Before:
    """What the model did at its release, and on how many rows. `biases` is empty where that cannot be told."""

    rows: int
    loss: float
    biases: dict[str, float]


def judge(
    delivery: str, now: pd.DataFrame, then: pd.DataFrame | None, release: Release, params: Params, trained_on: int = 0
) -> DeliveryDecay:
    """Whether the live model has decayed on a delivery, and why, from what `answer_for` gives of its rows.

    `then` are the rows of the release, or None where they are not there any more: slices are then shown and not judged.
    """
    if release.value is None or release.holdout is None:
        raise ValueError("the release says no loss")
    before = _Before(release.holdout.rows, release.value, {} if then is None else _before(then).biases)
    parts = list(_slices(now, then))
    judged = [_many(part, params) and past is not None and _many(past, params) for *_, part, past in parts]
    chance = (1 - params.decay.confidence) / 2
    of_whole, of_slice = 1 - chance / (1 + len(_outputs(now))), 1 - chance / max(1, sum(judged))

    asked = ("loss", "bias") if _many(now, params) else ()
    whole = _part(None, "all", now, before, of_whole, params, asked)
    periods = [_part("from", day, part, before, of_whole, params, ()) for day, part in _periods(now)]
    slices = [
        _part(column, value, part, None if past is None else _before(past), of_slice, params, ("loss",) * counts)
        for (column, value, part, past), counts in zip(parts, judged, strict=True)
    ]
    slices.sort(key=lambda part: (not part.loss.beyond, part.loss.at_most is None, -_rise(part)))
    holdout = Holdout(rows=len(now), first=None, last=None)
    if TIME in now:
        holdout = Holdout(rows=len(now), first=now[TIME].min().date(), last=now[TIME].max().date())
    return DeliveryDecay(
        delivery=delivery,
        champion=str(release.champion),
        alarm=any(each.beyond for each in (whole.loss, *whole.biases.values(), *(part.loss for part in slices))),
        reason=_reason(whole, slices, Wording(params.task, holdout), params),
        released_on=release.holdout,
        holdout=holdout,
        trained_on=trained_on,
        whole=whole,
        slices=tuple(slices),
        periods=tuple(periods),
    )


def _many(rows: pd.DataFrame, params: Params) -> bool:
    """Whether they are enough to judge."""
    groups = GROUP not in rows or rows[GROUP].nunique() >= MINIMUM_GROUPS
    return groups and len(rows) >= params.decay.minimum_rows


def _outputs(rows: pd.DataFrame) -> list[str]:
    return [name.removeprefix(ERROR) for name in rows if name.startswith(ERROR)]


def _before(then: pd.DataFrame) -> _Before:
    biases = {output: float(then[f"{ERROR}{output}"].mean()) for output in _outputs(then)}
    return _Before(len(then), float(then[LOSS].mean()), biases)


def _slices(
    now: pd.DataFrame, then: pd.DataFrame | None
) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame | None]]:
    """Each slice of the delivery, and the same of the release where it had rows there."""
    for column in [name for name in now if name.startswith(SLICE)]:
        for value, part in now.groupby(column):
            past = None if then is None else then[then[column] == value]
            yield column.removeprefix(SLICE), str(value), part, None if past is None or past.empty else past


def _periods(now: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """At most `PERIODS` parts of the time, equally long, with the first day of each."""
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
    confidence: float,
    params: Params,
    judged: tuple[str, ...],
) -> Part:
    """The measures of some rows, with bounds for those that are `judged` ("loss", "bias")."""
    rules, groups = params.decay, rows[GROUP].to_numpy() if GROUP in rows else None

    def mean(name: str) -> tuple[float, tuple[float, float]]:
        found = compare(rows[name].to_numpy(), confidence, params.gate, groups)
        return found.difference, found.interval

    loss, (low, high) = mean(LOSS)
    stretch = math.sqrt(1 + len(rows) / before.rows) if before else 1.0  # for a sample that varies as this one does
    biases, sizes = {}, {}
    for output in _outputs(rows):
        bias, interval = mean(f"{ERROR}{output}")
        sizes[output] = float(rows[f"{TRUTH}{output}"].abs().mean())
        past = before.biases.get(output) if before else None
        least, most = (
            min(0.0, past or 0.0) - rules.bias * sizes[output],
            max(0.0, past or 0.0) + rules.bias * sizes[output],
        )
        bounds = {"at_least": least, "at_most": most} if "bias" in judged else {}
        biases[output] = Measure(value=bias, interval=interval, at_release=past, **bounds)
    return Part(
        column=column,
        value=value,
        rows=len(rows),
        confidence=confidence,
        loss=Measure(
            value=loss,
            interval=(loss + (low - loss) * stretch, loss + (high - loss) * stretch),
            at_release=before.loss if before else None,
            at_most=before.loss * (1 + rules.margin) if before and "loss" in judged else None,
        ),
        biases=biases,
        sizes=sizes,
    )


def _rise(part: Part) -> float:
    """By which share of it the loss is above that at release."""
    past = part.loss.at_release
    return part.loss.value / past - 1 if past else 0.0


def _reason(whole: Part, slices: list[Part], words: Wording, params: Params) -> str:
    """Why there is an alarm, or none, as a sentence."""
    rules = params.decay
    if whole.loss.at_most is None:
        return f"{words.rows} are too few to judge; decay.minimum_rows asks for {rules.minimum_rows:,}"
    over = f", and decay.margin allows {rules.margin:.1%}" if whole.loss.beyond else ""
    said = [f"{words.loss} {_loss(whole, words)}, on {words.rows}{over}"]
    if not over and (worse := [part for part in slices if part.loss.beyond]):
        others = f", and {len(worse) - 1} more slices are worse" if worse[1:] else ""
        where = f"where {worse[0].column} is {worse[0].value} it {_loss(worse[0], words)}"
        said.append(f"{where}, on {worse[0].rows:,} {params.task.row_noun}{others}")
    biased = {output: each for output, each in whole.biases.items() if each.beyond}
    for output, each in (biased or dict(list(whole.biases.items())[:1])).items():
        over = f", and decay.bias allows {rules.bias:.1%} more than at release" if each.beyond else ""
        said.append(f"{_bias(output, each, whole.sizes[output], params)}{over}")
    return "; ".join(said)


def _loss(part: Part, words: Wording) -> str:
    past = part.loss.at_release
    then = "" if past is None else f" where it was {words.amount(past)} at release ({_rise(part):+.1%})"
    ends = ", ".join(map(number, part.loss.interval))
    return f"is {words.amount(part.loss.value)}{then}, {part.confidence * 100:.4g}% interval [{ends}]"


def _bias(output: str, bias: Measure, size: float, params: Params) -> str:
    of = f" for {output}" if params.task.kind == "classification" else ""
    sign, side = (1, "high") if bias.value >= 0 else (-1, "low")
    share = f" ({abs(bias.value) / size:.1%})" if size else ""
    ends = ", ".join(number(0.0 + sign * end) for end in bias.interval[::sign])
    past = "" if bias.at_release is None else f" ({number(0.0 + sign * bias.at_release)} at release)"
    return f"answers{of} are too {side} by {params.task.unit}{number(abs(bias.value))}{share}, interval [{ends}]{past}"

"""Signs of a leak: what makes a challenger too good to be true, though it is better on the holdout.

A leak is a feature that has the answer in training and holdout, but not when a prediction is requested. Both models are
judged on rows that have it, so that a leak looks like a large improvement.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from slipway.artifacts import Evaluation, FeatureScore, Suspicion
from slipway.config import Suspicious

LEARNED = 0.01
"""Sum of a model's importance, as a share of the naive baseline's loss, below which the model is like a constant."""
MATTERS = 0.1
"""Share of the importance that a feature has to gain to be a reason for a large improvement, or to be missed."""


@dataclass(frozen=True)
class _Feature:
    """A feature of the challenger, with its share of the importance in both models."""

    name: str
    alone: float
    share: float
    before: float | None
    """None if the champion does not read the feature, or if there is no champion."""
    has_champion: bool
    scored: FeatureScore

    @property
    def gained(self) -> float:
        return self.share - (self.before or 0.0)

    @property
    def has(self) -> str:
        new = ", which the champion does not read," if self.has_champion and self.before is None else ""
        before = "" if self.before is None else f" ({self.before:.0%} in the champion)"
        return f"{self.name}{new} has {self.share:.0%} of the importance{before}"


def find_suspicions(evaluation: Evaluation, rules: Suspicious | None) -> tuple[Suspicion, ...]:
    """Return the signs of a leak, the clearest of each feature, or none without rules."""
    if rules is None:
        return ()
    features = _features(evaluation)
    clearest: dict[str, Suspicion] = {}
    for find in (_determining, _dominating, _vanishing):
        for sign in find(features, rules, evaluation):
            clearest.setdefault(sign.feature, sign)
    return (*clearest.values(), *_implausible(features, rules, evaluation))


def explain(suspicions: Sequence[Suspicion]) -> str:
    """Return the part of a verdict's sentence about the first sign."""
    sign = suspicions[0]
    return f"; too good to be true: {sign.reason}; check that {sign.feature} is known when a prediction is requested"


def shares(rises: Mapping[str, float | None]) -> dict[str, float]:
    """Return the share of each feature in the importance of all. A feature that improves nothing has none."""
    gained = {name: max(0.0, rise or 0.0) for name, rise in rises.items()}
    total = sum(gained.values())
    return {name: rise / total if total else 0.0 for name, rise in gained.items()}


def _features(evaluation: Evaluation) -> list[_Feature]:
    now = shares({each.name: each.challenger for each in evaluation.features})
    rises = {each.name: each.champion for each in evaluation.features}
    # A champion that learned nothing rests on no feature, so that any feature would seem to gain importance.
    learned = sum(max(0.0, rise or 0.0) for rise in rises.values()) > LEARNED * evaluation.baseline.loss
    before = shares(rises) if learned else now
    return [
        _Feature(
            name=each.name,
            alone=each.alone,
            share=now[each.name],
            before=None if each.champion is None else before[each.name],
            has_champion=evaluation.champion is not None,
            scored=each,
        )
        for each in evaluation.features
        if each.alone is not None
    ]


def _determining(features: Sequence[_Feature], rules: Suspicious, _: Evaluation) -> Iterator[Suspicion]:
    """Find features that alone nearly determine the target. Those of the champion were accepted at its release."""
    for each in features:
        if each.before is None and each.share and each.alone > rules.alone:
            yield Suspicion(
                feature=each.name, reason=f"{each.name} alone removes {each.alone:.0%} of the naive baseline's loss"
            )


def _dominating(features: Sequence[_Feature], rules: Suspicious, _: Evaluation) -> Iterator[Suspicion]:
    """Find features that carry most of the model, unlike before, and predict well alone."""
    for each in features:
        if each.has_champion and each.gained > rules.importance and each.alone > rules.importance:
            reason = f"{each.has}, and alone removes {each.alone:.0%} of the naive baseline's loss"
            yield Suspicion(feature=each.name, reason=reason)


def _vanishing(features: Sequence[_Feature], rules: Suspicious, evaluation: Evaluation) -> Iterator[Suspicion]:
    """Find features that matter more than before, and that the newest rows lack."""
    for each in features:
        before, now = each.scored.missing_before, each.scored.missing_now
        if before is not None and now is not None and each.gained > MATTERS and now - before > rules.missing:
            newest = f"the rows of {evaluation.newest_delivery} ({before:.0%} of the earlier ones)"
            yield Suspicion(feature=each.name, reason=f"{each.has}, and is missing in {now:.0%} of {newest}")


def _implausible(features: Sequence[_Feature], rules: Suspicious, evaluation: Evaluation) -> Iterator[Suspicion]:
    """Find a loss that falls by too much, if it may come from a feature that is new, or that predicts well alone.

    More rows or better settings can halve the loss of a young model, too, but by the features that it had.
    """
    champion, challenger = evaluation.champion, evaluation.challenger
    may_leak = [each for each in features if each.before is None or each.alone > rules.importance]
    first = max(may_leak, key=lambda each: each.gained, default=None)
    if champion is None or first is None or first.gained <= MATTERS:
        return
    if challenger.loss < (1 - rules.improvement) * champion.loss:
        falls = f"the loss falls by more than {rules.improvement:.0%} (gate.suspicious.improvement)"
        yield Suspicion(feature=first.name, reason=f"{falls}, and {first.has}")

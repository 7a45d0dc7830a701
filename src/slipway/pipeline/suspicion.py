"""Find signs of a leak in a challenger that is better on the holdout.

A leak is a feature that reveals the true value in the training rows and the holdout, but is not known when a prediction
is requested. The holdout rows contain the feature too, so a leak appears as a large improvement.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from slipway.artifacts import Evaluation, FeatureScore, Suspicion
from slipway.config import Suspicious

LEARNED = 0.01
"""A model has learned something if its total feature importance is above this share of the baseline's loss."""
ONLY, STRONG = 0.95, 0.7
"""Limits for a first model. A feature is suspicious if its share of the importance is above `ONLY`, and its predictive
power score is above `STRONG`. The limits were chosen on the data sets in `benchmarks.leak`.
"""
MATTERS = 0.1
"""A feature has gained importance if its share is larger than in the champion by more than this number."""


@dataclass(frozen=True)
class _Feature:
    """A feature of the challenger, with its share of the importance in champion and challenger."""

    name: str
    alone: float
    share: float
    before: float | None
    """The feature's share of the importance in the champion. None if the champion does not read the feature."""
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
    """Return the clearest sign of a leak for each feature that has one. Return no signs if `rules` is None."""
    if rules is None:
        return ()
    features = _features(evaluation)
    clearest: dict[str, Suspicion] = {}
    for find in (_determining, _dominating, _vanishing):
        for sign in find(features, rules, evaluation):
            clearest.setdefault(sign.feature, sign)
    return (*clearest.values(), *_implausible(features, rules, evaluation))


def explain(suspicions: Sequence[Suspicion]) -> str:
    """Describe the first sign in words that are appended to the reason of the verdict."""
    sign = suspicions[0]
    return f"; too good to be true: {sign.reason}; check that {sign.feature} is known when a prediction is requested"


def shares(rises: Mapping[str, float | None]) -> dict[str, float]:
    """Return each feature's share of the total importance. A feature that does not reduce the loss has the share 0."""
    gained = {name: max(0.0, rise or 0.0) for name, rise in rises.items()}
    total = sum(gained.values())
    return {name: rise / total if total else 0.0 for name, rise in gained.items()}


def _features(evaluation: Evaluation) -> list[_Feature]:
    now = shares({each.name: each.challenger for each in evaluation.features})
    rises = {each.name: each.champion for each in evaluation.features}
    # If the champion learned nothing, none of its features is important, and any feature would seem to gain importance.
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
    """Find new features that nearly determine the target alone.

    Features that the champion reads are left out, because they were accepted at its release.
    """
    for each in features:
        if each.before is None and each.share and each.alone > rules.alone:
            yield Suspicion(
                feature=each.name, reason=f"{each.name} alone removes {each.alone:.0%} of the naive baseline's loss"
            )


def _dominating(features: Sequence[_Feature], rules: Suspicious, _: Evaluation) -> Iterator[Suspicion]:
    """Find features that now have most of the importance, did not have it in the champion, and predict well alone.

    A first model has no champion for comparison, so its limits are higher. A first model with only one feature is not
    suspicious.
    """
    is_single = len(features) == 1
    for each in features:
        share, alone = (rules.importance, rules.importance) if each.has_champion else (ONLY, STRONG)
        if each.gained > share and each.alone > alone and (each.has_champion or not is_single):
            reason = f"{each.has}, and alone removes {each.alone:.0%} of the naive baseline's loss"
            yield Suspicion(feature=each.name, reason=reason)


def _vanishing(features: Sequence[_Feature], rules: Suspicious, evaluation: Evaluation) -> Iterator[Suspicion]:
    """Find features that gained importance, and are missing much more often in the newest delivery than before."""
    for each in features:
        before, now = each.scored.missing_before, each.scored.missing_now
        if before is not None and now is not None and each.gained > MATTERS and now - before > rules.missing:
            newest = f"the rows of {evaluation.newest_delivery} ({before:.0%} of the earlier ones)"
            yield Suspicion(feature=each.name, reason=f"{each.has}, and is missing in {now:.0%} of {newest}")


def _implausible(features: Sequence[_Feature], rules: Suspicious, evaluation: Evaluation) -> Iterator[Suspicion]:
    """Find an implausibly large fall of the loss. A possible cause is a feature that is new or predicts well alone.

    More rows or better settings can also halve the loss, but they do not make a new feature important. A leak can also
    be in the content of a text, a vector or an image, which the score `alone` does not measure. Such a feature is a
    possible cause if it has most of the importance and also lowers the champion's loss.
    """
    champion, challenger = evaluation.champion, evaluation.challenger
    if champion is None or challenger.loss >= (1 - rules.improvement) * champion.loss:
        return
    falls = f"the loss falls by more than {rules.improvement:.0%} (gate.suspicious.improvement)"
    may_leak = [each for each in features if each.before is None or each.alone > rules.importance]
    first = max(may_leak, key=lambda each: each.gained, default=None)
    if first is not None and first.gained > MATTERS:
        yield Suspicion(feature=first.name, reason=f"{falls}, and {first.has}")
        return
    learned = LEARNED * evaluation.baseline.loss
    for each in features:
        if each.scored.has_content and each.share > rules.importance and (each.scored.champion or 0.0) > learned:
            content = "its content may have been changed to contain the answer"
            yield Suspicion(feature=each.name, reason=f"{falls}, and {each.has}; {content}")

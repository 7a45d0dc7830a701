"""Compute for each feature its permutation importance, how well it predicts alone, and how often it is missing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.artifacts import FeatureScore
from slipway.bundle import Bundle, Decision, Schema
from slipway.config import Params
from slipway.pipeline import single_feature
from slipway.pipeline.columns import DELIVERY
from slipway.pipeline.measure import Measure
from slipway.pipeline.single_feature import Sample, scores_alone, step_of
from slipway.pipeline.tensors import features, measured, tensors
from slipway.statistics.blocks import average
from slipway.statistics.metrics import Floats

Predict = Callable[[pd.DataFrame], Floats]

MAX_ROWS = 2_000
SHUFFLES = 5
MANY_FEATURES = 100
"""If a model has more features than this number, each feature is shuffled only once, to limit the run time."""


@dataclass(frozen=True)
class ScoredFeatures:
    """The scores of each feature in champion and challenger, and the name of the newest delivery.

    The features are sorted by their importance in the challenger, the most important first.
    """

    features: tuple[FeatureScore, ...]
    newest_delivery: str | None


class Missing:
    """The number of rows in each delivery, and for each column the number of rows without a value."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._missing: dict[str, pd.Series[int]] = {}

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows to the counts. The rows have a column with the name of their delivery."""
        for name, part in rows.groupby(DELIVERY, sort=False):
            counts = part.isna().sum()
            self._rows[str(name)] = self._rows.get(str(name), 0) + len(part)
            known = self._missing.get(str(name))
            self._missing[str(name)] = counts if known is None else known + counts

    def including(self, rows: pd.DataFrame) -> "Missing":
        """Return the counts with `rows` added. The original counts are not changed."""
        both = Missing()
        both._rows, both._missing = dict(self._rows), dict(self._missing)
        both.add(rows)
        return both

    @property
    def newest(self) -> str | None:
        """The name of the newest delivery, or None if there is only one delivery."""
        return max(self._rows) if len(self._rows) > 1 else None

    def share(self, column: str, *, newest: bool) -> float:
        """Return the share of rows without a value in a column: in the newest delivery, or in all others."""
        names = [name for name in self._rows if (name == self.newest) == newest]
        return float(sum(int(self._missing[name][column]) for name in names) / sum(self._rows[name] for name in names))


@dataclass(frozen=True)
class TrainingRows:
    """The training rows: the target of all rows, a sample of the rows, and counts of missing values.

    `weights` contains the weights of all rows, or is None if rows have equal weights.
    """

    truth: Floats
    sample: Sample
    missing: Missing
    weights: Floats | None = None


def score_features(
    bundles: Mapping[str, Bundle],
    training: TrainingRows,
    holdout: pd.DataFrame,
    truth: Floats,
    params: Params,
    measure: Measure,
) -> ScoredFeatures:
    """Compute the scores of each model's features. `holdout` has validated rows with the name of their delivery.

    The share of missing values in the newest delivery is computed separately, because future requests are most similar
    to this delivery.
    """
    judged = Sample(holdout, truth)
    rises = {name: _importance_of(bundle, judged, params, measure) for name, bundle in bundles.items()}
    before, now = rises.get("champion", {}), rises["challenger"]
    schema = bundles["challenger"].schema
    alone = _alone(schema, training.sample, judged, measure.stand_in)
    names = [*now, *(name for name in before if name not in now)]
    missing = training.missing.including(holdout[[*names, DELIVERY]])
    newest = missing.newest
    found = [
        FeatureScore(
            name=name,
            champion=before.get(name),
            challenger=now.get(name),
            alone=alone.get(name),
            has_content=name in {*schema.texts, *schema.arrays},
            missing_before=missing.share(name, newest=False) if newest else None,
            missing_now=missing.share(name, newest=True) if newest else None,
        )
        for name in names
    ]
    found.sort(key=lambda each: np.inf if each.challenger is None else -each.challenger)
    return ScoredFeatures(tuple(found), newest)


def permutation_importance(
    predict: Predict,
    frame: pd.DataFrame,
    truth: Floats,
    measure: Measure,
    seed: int,
    rows: pd.DataFrame | None = None,
    decision: Decision | None = None,
    weights: Floats | None = None,
) -> dict[str, float]:
    """Return for each feature how much the mean loss rises if its values are shuffled, on at most 2,000 rows.

    `rows` is the frame for `measure`, if it differs from `frame`. The values in `rows` are not shuffled. `weights`
    contains the weight of each row. A feature is shuffled in the same way for every model.

    See Breiman 2001, and Fisher, Rudin and Dominici 2019.
    """
    sample = Sample(frame, truth).every(MAX_ROWS)
    unshuffled = sample.frame if rows is None else Sample(rows, truth).every(MAX_ROWS).frame
    weights = None if weights is None else weights[:: step_of(len(frame), MAX_ROWS)]
    shuffles = SHUFFLES if len(frame.columns) <= MANY_FEATURES else 1

    def loss_of(changed: pd.DataFrame) -> float:
        return average(measure.losses(sample.truth, predict(changed), unshuffled, decision), weights)

    untouched = loss_of(sample.frame)
    rises = {}
    for name in map(str, frame):
        random = np.random.default_rng([seed, *name.encode()])
        values = sample.frame[name].to_numpy()
        losses = [loss_of(_with_values(sample.frame, name, random.permutation(values))) for _ in range(shuffles)]
        rises[name] = float(np.mean(losses)) - untouched
    return rises


def _with_values(frame: pd.DataFrame, name: str, values: NDArray[Any]) -> pd.DataFrame:
    """Return a copy of the frame with `values` in the column `name`. The name can be any text, even `self`."""
    changed = frame.copy()
    changed[name] = values
    return changed


def _importance_of(bundle: Bundle, holdout: Sample, params: Params, measure: Measure) -> dict[str, float]:
    def predict(frame: pd.DataFrame) -> Floats:
        return bundle.predict(tensors(frame, bundle.schema)).astype(np.float64)

    few = holdout.every(MAX_ROWS)  # sampled before the conversion, which is slow for many rows
    frame = features(few.frame, bundle.schema)
    rows, weights = measure.features(few.frame), measure.weights(few.frame)
    return permutation_importance(
        predict, frame, few.truth, measure, params.evaluate.seed, rows, bundle.schema.decision, weights
    )


def _alone(schema: Schema, training: Sample, holdout: Sample, measure: Measure) -> dict[str, float]:
    few = [rows.every(single_feature.MAX_ROWS) for rows in (training, holdout)]
    before, now = (Sample(_as_measured(features(rows.frame, schema), schema), rows.truth) for rows in few)
    return scores_alone(before, now, measure, len(schema.classes or ()), list(before.frame))


def _as_measured(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Replace each text, vector and image by one number, such as its length, because a tree can only read numbers."""
    return frame.assign(**{name: measured(frame[name]) for name in [*schema.texts, *schema.arrays]})

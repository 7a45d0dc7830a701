"""A leak inside a text, a vector or an image that the champion already reads is found. A better model is not held."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from slipway import artifacts
from slipway.artifacts import Contender, Evaluation, Suspicion
from slipway.bundle import Column, Schema
from slipway.config import Suspicious, Task, load_params
from slipway.pipeline.columns import DELIVERY
from slipway.pipeline.importance import Missing, TrainingRows, score_features
from slipway.pipeline.measure import Measure
from slipway.pipeline.single_feature import Sample
from slipway.pipeline.suspicion import find_suspicions
from slipway.pipeline.tensors import features, tensors
from slipway.statistics.metrics import Floats, naive_prediction, row_losses
from tests.slipway.conftest import ROOT
from tests.slipway.pipeline.test_gate import contest
from tests.slipway.serving.arrays import encoded

CLASSES = ("billing", "delivery", "technical")
ROWS, TRAINING = 900, 600
TRUTH = np.random.default_rng(0).integers(0, 3, ROWS)
WORDS = [f"word{number}" for number in range(60)]
COLUMNS = {
    "text": Column(name="content", type="text", required=True),
    "vector": Column(name="content", type="vector", required=True, shape=(8,)),
    "image": Column(name="content", type="image", required=True, shape=(4, 4, 1)),
}


@dataclass(frozen=True)
class Fitted:
    """A model of the content, fitted on rows, with the part of a bundle that the importance is computed from."""

    estimator: Any
    schema: Schema

    def predict(self, given: dict[str, Any]) -> Floats:
        content = given["content"] if "content" in given else given["categories"][:, 0]
        return np.asarray(self.estimator.predict_proba(content))


def contents(kind: str, *, leak: bool) -> list[Any]:
    """Return content that hints at the class. A leak adds one word, number or pixel that reveals the class."""
    random = np.random.default_rng(1)
    if kind == "text":
        own = [[*WORDS[20 * each : 20 * each + 20] * 4, *WORDS] for each in range(3)]
        bodies = [" ".join(random.choice(own[each], 9)) for each in TRUTH]
        return [
            f"{body} forwarded to team_{CLASSES[each]}" if leak else body
            for body, each in zip(bodies, TRUTH, strict=True)
        ]
    size = 8 if kind == "vector" else 16
    values = random.normal(size=(ROWS, size))
    values[np.arange(ROWS), TRUTH] += 1.2
    values[:, -1] = 0
    if leak:
        values[:, -1] = TRUTH - 1
    if kind == "vector":
        return [*values.astype("float32")]
    return [*(128 + 25 * values).clip(0, 255).astype("uint8").reshape(ROWS, 4, 4)]


def flat(values: Any) -> Any:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def fit(kind: str, *, leak: bool, rows: int = TRAINING) -> Fitted:
    schema = Schema(kind="classification", key=("id",), target="team", classes=CLASSES, columns=(COLUMNS[kind],))
    first = [TfidfVectorizer()] if kind == "text" else [FunctionTransformer(flat), StandardScaler()]
    given = contents(kind, leak=leak)[:rows]
    array = given if kind == "text" else np.stack(given)
    return Fitted(make_pipeline(*first, LogisticRegression(C=20, max_iter=500)).fit(array, TRUTH[:rows]), schema)


def signs(kind: str, champion: Any, challenger: Fitted, *, leak: bool) -> tuple[float, tuple[Suspicion, ...]]:
    """Return the share by which the loss falls on the holdout, and the signs of a leak."""
    given = contents(kind, leak=leak)
    delivered = [encoded(each) for each in given] if kind == "image" else given
    frame = pd.DataFrame({"content": delivered, DELIVERY: "first"})
    frame = frame.astype({"content": "str"}) if kind == "text" else frame
    held, truth = frame[TRAINING:].reset_index(drop=True), TRUTH.astype(float)
    task = Task(kind="classification", loss="log_loss")
    training = TrainingRows(truth[:TRAINING], Sample(frame[:TRAINING], truth[:TRAINING]), Missing())
    models: dict[str, Any] = {"challenger": challenger} | ({"champion": champion} if champion else {})
    params = load_params(ROOT / artifacts.PARAMS)
    scored = score_features(models, training, held, truth[TRAINING:], params, Measure(task))
    inputs = tensors(features(held, challenger.schema), challenger.schema)
    answers = {name: each.predict(inputs) for name, each in models.items()}
    constant = naive_prediction("log_loss", "classification", truth[:TRAINING], 3)
    answers["baseline"] = np.repeat(constant, len(held), axis=0)
    losses = {name: float(row_losses("log_loss", truth[TRAINING:], each).mean()) for name, each in answers.items()}
    _, evaluation = contest(champion="old" if champion else None)
    contenders = {name: Contender(bundle=None, bytes=None, loss=loss, metrics={}) for name, loss in losses.items()}
    evaluation = Evaluation.model_validate(evaluation.model_dump() | contenders | {"features": scored.features})
    fall = 1 - losses["challenger"] / losses["champion" if champion else "baseline"]
    return fall, find_suspicions(evaluation, Suspicious())


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_leak_in_content_that_the_champion_reads_is_found(kind: str) -> None:
    fall, found = signs(kind, fit(kind, leak=False), fit(kind, leak=True), leak=True)
    assert fall > 0.5
    assert [sign.feature for sign in found] == ["content"]
    assert "its content may have been changed to contain the answer" in found[0].reason


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_model_that_reads_content_better_is_not_suspicious(kind: str) -> None:
    fall, found = signs(kind, fit(kind, leak=False, rows=120), fit(kind, leak=False), leak=False)
    assert 0.05 < fall < 0.5
    assert found == ()


def test_a_first_model_and_a_champion_that_did_not_use_the_content_are_not_suspicious() -> None:
    challenger = fit("text", leak=False)
    constant = SimpleNamespace(
        schema=challenger.schema, predict=lambda given: np.full((len(given["categories"]), 3), 1 / 3)
    )
    for champion in (None, constant):
        fall, found = signs("text", champion, challenger, leak=False)
        assert fall > 0.5
        assert found == ()

"""The model card: its front matter, its content, and what is not in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from slipway.artifacts import EVALUATION, PARAMS, RELEASE, SCORES, Contender, Evaluation, Holdout, Release, SliceScore
from slipway.bundle import GOLDEN, Column, Decision, Schema, load_bundle
from slipway.provenance import Provenance
from slipway.release.image import _card
from slipway.release.model_card import CARD, _interval, _values, model_card, task_of
from tests.slipway.conftest import ROOT
from tests.slipway.serving import odd


def contender(bundle: str | None, loss: float) -> Contender:
    return Contender(bundle=bundle, bytes=1, loss=loss, metrics={"mean_absolute_error": loss, "r_squared": 0.5})


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bundle, the metrics of its evaluation, and its release."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    path = odd.write_bundle(tmp_path / "odd")
    np.save(path / "training_rows.npy", np.arange(1_234, dtype=np.uint64))
    found = load_bundle(path)
    Evaluation(
        loss="mean_absolute_error",
        holdout=Holdout(rows=917, first="1998-01-01", last="1998-03-01"),
        champion=contender("0" * 32, 5.0),
        challenger=contender(found.hash, 4.25),
        baseline=contender(None, 9.0),
        slices=(SliceScore(column="kind|", value="a", rows=40, champion=6.0, challenger=7.5),),
        churn=None,
    ).write(EVALUATION)
    return found


PROVENANCE = Provenance(bundle="", data="d" * 32, commit="c" * 40, verdict="ship", reason="it is better_by far")


def test_the_card_has_the_data_the_metrics_the_slices_the_limits_and_the_provenance(bundle: Any) -> None:
    card = model_card(bundle, PROVENANCE)
    for line in (
        "# Prediction of price",
        "- Training rows: 1,234",
        "- Holdout rows, which the model was not trained on: 917, from 1998-01-01 to 1998-03-01",
        r"| mean\_absolute\_error | 4.25 | 9 |",
        r"| kind\| | a | 40 | 7.5 |",
        "| rooms | number | any | no |",
        r"| area/m²\~'% | number | 0 to 9 | yes |",
        "| kind | category | 2 categories | no |",
        f"- Bundle: `{bundle.hash}`",
        f"- Data (hash in `data.dvc`): `{'d' * 32}`",
        f"- Commit: `{'c' * 40}`",
        r"- Verdict of the gate: ship, because it is better\_by far",
    ):
        assert line in card.splitlines()
    assert model_card(load_bundle(bundle.path), PROVENANCE) == card


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (Column(name="a", type="text", required=True, maximum=2000.0), "at most 2,000 characters"),
        (Column(name="a", type="text", required=True, minimum=5.0, maximum=9.0), "5 to 9 characters"),
        (Column(name="a", type="number", required=True, minimum=0.5), "at least 0.5"),
        (Column(name="a", type="date", required=True, maximum="2030-12-31"), "at most 2030-12-31"),
        (Column(name="a", type="number", required=True), "any"),
    ],
)
def test_the_limits_of_a_feature_are_words(column: Column, words: str) -> None:
    assert _values(column) == words


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("recall_at_precision_0.9", "0 to 1"),
        ("calibration_error", "0 to 1"),
        ("one_minus_auc", "0 to 1"),
        ("log_loss", "0 to 1.5"),
        ("own_profit", "0 to 1.5"),
        ("r_squared", "-0.5 to 1"),
        ("bias", "-0.5 to 1.5"),
    ],
)
def test_an_interval_has_no_values_that_the_metric_cannot_have(metric: str, text: str) -> None:
    assert _interval(metric, (-0.5, 1.5)) == text


@pytest.mark.parametrize("loss", [4.25, 4.5])
def test_the_metrics_have_intervals_if_the_scores_of_the_evaluation_exist(bundle: Any, loss: float) -> None:
    times = np.datetime64("1998-01-01") + (np.arange(917) % 60).astype("timedelta64[D]")
    errors = np.random.default_rng(0).normal(0, 1, 917)
    errors *= loss / np.abs(errors).mean()
    scores = pd.DataFrame({"challenger_loss": np.abs(errors), "challenger_0": errors, "truth": 0.0, "time": times})
    SCORES.parent.mkdir(parents=True)
    scores.to_parquet(SCORES)
    shutil.copy(ROOT / "params.yaml", PARAMS)
    lines = model_card(bundle, PROVENANCE).splitlines()
    if loss != 4.25:
        assert "| Metric | Model | Naive baseline |" in lines
        return
    assert "| Metric | Model | Naive baseline | 95% interval of the model |" in lines
    (line,) = [each for each in lines if each.startswith(r"| mean\_absolute\_error")]
    low, high = map(float, line.split("|")[4].split(" to "))
    assert low < 4.25 < high < 4.25 + 4 * np.abs(errors).std() / 917**0.5


def test_the_image_has_the_card_of_the_candidate(bundle: Any) -> None:
    card = model_card(bundle, PROVENANCE)
    file = bundle.path.parent / CARD
    for written, shown in ((f"{card}with intervals\n", f"{card}with intervals\n"), ("# Of another bundle\n", card)):
        file.write_text(written)
        assert _card(bundle.path, PROVENANCE) == shown


def test_the_front_matter_is_that_of_hugging_face(bundle: Any) -> None:
    _, matter, _ = model_card(bundle, PROVENANCE).split("---\n", 2)
    found = YAML(typ="safe").load(matter)
    assert (found["library_name"], found["pipeline_tag"]) == ("onnx", "tabular-regression")
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"] == "tabular-regression"
    assert {"type": "mean_absolute_error", "value": 4.25} in result["metrics"]
    assert result["dataset"] == {"type": "holdout", "name": "917 holdout rows"}


def test_the_verdict_is_that_of_the_release_of_the_bundle(bundle: Any) -> None:
    Release(champion=bundle.hash, verdict="first", reason="it was the first").write(RELEASE)
    assert "- Verdict of the gate: first, because it was the first" in model_card(bundle, Provenance(bundle=""))
    Release(champion="0" * 32, verdict="first", reason="it was the first").write(RELEASE)
    assert "it was the first" not in model_card(bundle, PROVENANCE)


def test_metrics_of_another_bundle_are_not_shown(bundle: Any) -> None:
    evaluation = Evaluation.read(EVALUATION)
    other = evaluation.challenger.model_copy(update={"bundle": "1" * 32})
    evaluation.model_copy(update={"challenger": other}).write(EVALUATION)
    card = model_card(bundle, PROVENANCE)
    assert "metrics/evaluation.json has no metrics of this bundle." in card
    assert "4.25" not in card
    assert "1998" not in card
    assert "model-index" not in card


def test_the_card_has_no_row_of_the_data(bundle: Any) -> None:
    """Golden rows are rows of the training data."""
    content = json.loads((bundle.path / GOLDEN).read_text())
    content["rows"][0] |= {"note": "planted secret", "rooms": 73_573}
    (bundle.path / GOLDEN).write_text(json.dumps(content))
    card = model_card(load_bundle(bundle.path), PROVENANCE)
    assert "planted secret" not in card
    assert "73573" not in card


def test_the_card_states_how_the_class_in_an_answer_is_chosen(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = Decision(costs=((0.0, 1.0), (9.0, 0.0)), threshold=0.125)
    schema = bundle.schema.model_copy(update={"kind": "classification", "classes": ("no", "yes"), "decision": decision})
    read: Callable[[Any], Schema] = lambda _: schema  # noqa: E731
    monkeypatch.setattr(Schema, "model_validate_json", read)
    card = model_card(load_bundle(bundle.path), PROVENANCE)
    assert "| yes | 9 | 0 |" in card
    assert "So the answer is yes if its probability is at least 0.125." in card


@pytest.mark.parametrize(
    ("kinds", "classes", "task"),
    [
        (("number", "image", "text"), ("no", "yes"), "image-classification"),
        (("number", "text"), ("no", "yes"), "text-classification"),
        (("number", "vector"), ("no", "yes"), "tabular-classification"),
        (("image", "text"), None, "tabular-regression"),
    ],
)
def test_the_task_of_hugging_face_depends_on_the_inputs(kinds: Any, classes: Any, task: str) -> None:
    kind: Any = "classification" if classes else "regression"
    columns = tuple(Column(name=each, type=each, required=True) for each in kinds)
    schema = Schema(kind=kind, key=("id",), target="y", classes=classes, columns=columns)
    assert task_of(schema) == task

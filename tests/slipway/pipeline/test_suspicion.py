"""A model that is too good to be true is held, and an honest one is not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

import model
from model.features import NUMBERS
from slipway import bundle
from slipway.artifacts import EVALUATION, VERDICT, Evaluation, FeatureScore, Suspicion, Verdict
from slipway.config import Suspicious, Task, load_params
from slipway.pipeline.gate import judge
from slipway.pipeline.importance import MAX_ROWS, permutation_importance
from slipway.pipeline.measure import Measure
from slipway.pipeline.single_feature import Sample, scores_alone
from slipway.pipeline.suspicion import find_suspicions
from tests.slipway.conftest import Result, edit
from tests.slipway.pipeline.test_gate import NEVER, contest, params

RULES = Suspicious()
AREA = FeatureScore(name="area", champion=60, challenger=50, alone=0.3, missing_before=0, missing_now=0)
AGE = FeatureScore(name="age", champion=40, challenger=30, alone=0.2, missing_before=0, missing_now=0)
TAX = FeatureScore(name="tax", champion=None, challenger=20, alone=0.2, missing_before=0, missing_now=0)


def evaluated(*features: FeatureScore, champion: bool = True, gain: float = 1) -> Evaluation:
    _, evaluation = contest(gain=gain, champion="old" if champion else None)
    return evaluation.model_copy(update={"features": features, "newest_delivery": "1997H2"})


def with_tax(**changes: Any) -> Evaluation:
    return evaluated(AREA, AGE, TAX.model_copy(update=changes))


def named(suspicions: tuple[Suspicion, ...]) -> list[str]:
    return [sign.feature for sign in suspicions]


def test_an_honest_new_feature_is_not_suspicious() -> None:
    assert find_suspicions(with_tax(), RULES) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alone": 0.86}, "tax alone removes 86% of the naive baseline's loss"),
        (
            {"challenger": 100, "alone": 0.51},
            "tax, which the champion does not read, has 56% of the importance, and alone removes 51% of the naive",
        ),
        (
            {"missing_before": 0.1, "missing_now": 0.31},
            "tax, which the champion does not read, has 20% of the importance, and is missing in 31% of the rows of "
            "1997H2 (10% of the earlier ones)",
        ),
    ],
)
def test_a_sign_of_a_leak_holds_the_model_and_names_the_feature(changes: dict[str, Any], words: str) -> None:
    scores, _ = contest(gain=1)
    given = judge(scores, with_tax(**changes), NEVER, params())
    assert (given.verdict, named(given.suspicions)) == ("hold", ["tax"])
    assert f"too good to be true: {words}" in given.reason
    assert given.reason.endswith("check that tax is known when a prediction is requested")
    assert judge(scores, with_tax(**changes), NEVER, params(suspicious=None)).verdict == "ship"


@pytest.mark.parametrize(
    "changes",
    [
        {"alone": 0.85},
        {"alone": 0.99, "challenger": 0.0},
        {"challenger": 100, "alone": 0.5},
        {"challenger": 80, "alone": 0.8},
        {"missing_before": 0.1, "missing_now": 0.3},
        {"missing_before": 0.0, "missing_now": 0.9, "challenger": 8},
        {"missing_before": None, "missing_now": None},
    ],
)
def test_a_feature_below_a_limit_is_not_suspicious(changes: dict[str, Any]) -> None:
    assert find_suspicions(with_tax(**changes), RULES) == ()


def test_a_feature_of_the_champion_that_alone_determines_the_target_is_not_held_again() -> None:
    """A maintainer accepted it at the release, and each delivery would be held otherwise."""
    known = TAX.model_copy(update={"champion": 900, "challenger": 900, "alone": 0.99})
    assert find_suspicions(evaluated(AREA, AGE, known), RULES) == ()


def test_a_feature_of_the_champion_that_new_data_turns_into_a_leak_is_held() -> None:
    leaked = TAX.model_copy(update={"champion": 1, "challenger": 900, "alone": 0.99})
    (sign,) = find_suspicions(evaluated(AREA, AGE, leaked), RULES)
    assert sign.reason.startswith("tax has 92% of the importance (1% in the champion)")


def test_a_feature_does_not_gain_from_a_champion_that_learned_nothing() -> None:
    """As from a handful of rows. The share of each feature is 0 then, or noise."""
    constant = [each.model_copy(update={"champion": 0.0}) for each in (AREA, AGE)]
    strong = TAX.model_copy(update={"champion": 1.0, "challenger": 900, "alone": 0.8})
    assert find_suspicions(evaluated(*constant, strong), RULES) == ()
    learned = [each.model_copy(update={"champion": 10.0}) for each in (AREA, AGE)]
    assert named(find_suspicions(evaluated(*learned, strong), RULES)) == ["tax"]


def test_a_loss_that_is_halved_by_a_new_feature_is_held() -> None:
    scores, _ = contest(gain=55)
    given = judge(scores, evaluated(AREA, AGE, TAX, gain=55), NEVER, params())
    assert (given.verdict, named(given.suspicions)) == ("hold", ["tax"])
    assert "the loss falls by more than 50% (gate.suspicious.improvement), and tax, which" in given.reason
    lenient = params(suspicious=Suspicious(improvement=0.6))
    assert judge(scores, evaluated(AREA, AGE, TAX, gain=55), NEVER, lenient).verdict == "ship"


def test_a_loss_that_is_halved_by_the_features_of_the_champion_ships() -> None:
    """As more rows do, for a young model."""
    scores, _ = contest(gain=55)
    assert judge(scores, evaluated(AREA, AGE, gain=55), NEVER, params()).verdict == "ship"


BODY = FeatureScore(
    name="body", champion=900, challenger=1_500, alone=-0.04, missing_before=0, missing_now=0, has_content=True
)


def test_a_loss_that_is_halved_by_the_content_of_a_known_text_is_held() -> None:
    scores, _ = contest(gain=55)
    given = judge(scores, evaluated(AREA, BODY, gain=55), NEVER, params())
    assert (given.verdict, named(given.suspicions)) == ("hold", ["body"])
    assert "the loss falls by more than 50% (gate.suspicious.improvement), and body has 97% of the" in given.reason
    assert "its content may have been changed to contain the answer; check that body is known" in given.reason


@pytest.mark.parametrize(
    ("changes", "gain"),
    [
        ({}, 45),
        ({"champion": 0}, 55),
        ({"champion": 9}, 55),
        ({"challenger": 70}, 55),
        ({"has_content": False}, 55),
    ],
    ids=[
        "normal fall",
        "not used",
        "hardly used",
        "others are as important",
        "a number",
    ],
)
def test_a_text_model_that_improves_honestly_ships(changes: dict[str, Any], gain: float) -> None:
    scores, _ = contest(gain=gain)
    text = BODY.model_copy(update=changes)
    assert judge(scores, evaluated(AREA, AGE, text, gain=gain), NEVER, params()).verdict == "ship"


def test_a_first_model_of_a_text_ships() -> None:
    scores, _ = contest(gain=500, champion=None)
    first = BODY.model_copy(update={"champion": None})
    assert judge(scores, evaluated(AREA, first, champion=False, gain=500), NEVER, params()).verdict == "first"


def test_a_leak_is_recorded_if_the_model_is_held_for_another_reason() -> None:
    scores, evaluation = contest(gain=-1)
    evaluation = evaluation.model_copy(update={"features": with_tax(alone=0.99).features})
    given = judge(scores, evaluation, NEVER, params())
    assert "too good to be true" not in given.reason
    assert named(given.suspicions) == ["tax"]


def test_a_first_model_is_held_for_a_feature_that_determines_the_target() -> None:
    scores, _ = contest(gain=500, champion=None)
    leak = TAX.model_copy(update={"challenger": 900, "alone": 0.9})
    given = judge(scores, evaluated(AREA, AGE, leak, champion=False, gain=500), NEVER, params())
    assert (given.verdict, named(given.suspicions)) == ("hold", ["tax"])
    strong = leak.model_copy(update={"alone": 0.8})
    assert judge(scores, evaluated(AREA, AGE, strong, champion=False, gain=500), NEVER, params()).verdict == "first"


@pytest.mark.parametrize(
    ("changes", "suspicious"),
    [({}, ["tax"]), ({"alone": 0.7}, []), ({"challenger": 1_500}, [])],
    ids=["almost all of the importance", "weaker alone", "others matter"],
)
def test_a_first_model_is_held_for_a_strong_feature_next_to_which_no_other_matters(
    changes: dict[str, Any], suspicious: list[str]
) -> None:
    noisy = TAX.model_copy(update={"challenger": 1_600, "alone": 0.8, **changes})
    signs = find_suspicions(evaluated(AREA, AGE, noisy, champion=False), RULES)
    assert named(signs) == suspicious
    assert all("tax has 95% of the importance, and alone removes 80% of the naive" in sign.reason for sign in signs)
    assert find_suspicions(evaluated(noisy, champion=False), RULES) == ()


def test_params_of_an_older_fork_get_the_default_limits(workplace: Path) -> None:
    text = (workplace / "params.yaml").read_text()
    start = text.index("  # A model that is too good")
    (workplace / "params.yaml").write_text(text[:start] + text[text.index("decay: #") :])
    assert load_params(workplace / "params.yaml").gate.suspicious == RULES


REGRESSION = Task(kind="regression", loss="mean_absolute_error")


def alone(values: Any, target: Any, task: Task = REGRESSION, classes: int = 0) -> float:
    frame, truth = pd.DataFrame({"x": values}), np.asarray(target, dtype=float)
    half = len(frame) // 2
    training, holdout = Sample(frame[:half], truth[:half]), Sample(frame[half:], truth[half:])
    return scores_alone(training, holdout, Measure(task), classes, ["x"])["x"]


def prices(rows: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).lognormal(11, 0.6, rows)


@pytest.mark.parametrize(
    "loss", ["mean_absolute_error", "mean_squared_error", "mean_absolute_percentage_error"], ids=lambda loss: loss
)
def test_a_feature_computed_from_the_target_scores_nearly_one(loss: str) -> None:
    task = Task(kind="regression", loss=loss)
    target = prices()
    assert alone(np.log(target).astype(np.float32), target, task) > 0.95
    assert alone((target * 0.004).astype(np.float32), target, task) > 0.95


@pytest.mark.parametrize("loss", ["log_loss", "brier_score", "error_rate"])
def test_a_category_that_stands_for_the_class_scores_nearly_one(loss: str) -> None:
    task = Task(kind="classification", loss=loss)
    classes = np.random.default_rng(0).integers(0, 3, 900)
    assert alone(np.array(["refunded", "paid", ""])[classes], classes, task, 3) > 0.95
    assert alone(np.random.default_rng(1).permutation(classes).astype(np.float32), classes, task, 3) < 0.05


def test_noise_lowers_the_score_of_a_leak() -> None:
    target = prices()
    noise = np.random.default_rng(1).normal(0, target.std(), len(target))
    scores = [alone((target + share * noise).astype(np.float32), target) for share in (0, 0.1, 0.5, 2)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > RULES.alone > 0.6 > scores[2]
    assert scores[3] < 0.2


def test_missing_values_and_new_categories_are_scored() -> None:
    target = prices()
    gaps = np.where(np.arange(len(target)) % 2, np.nan, target).astype(np.float32)
    assert 0.3 < alone(gaps, target) < 0.7
    assert alone([f"id {number}" for number in range(len(target))], target) < 0.05


def test_importance_is_the_same_for_equal_models_and_zero_for_an_unread_feature() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=5000) for name in ("read", "unread")})
    asked: list[int] = []

    def predict(rows: pd.DataFrame) -> np.ndarray:
        asked.append(len(rows))
        return rows[["read"]].to_numpy()

    truth = frame["read"].to_numpy()
    first = permutation_importance(predict, frame, truth, Measure(REGRESSION), 0)
    assert max(asked) <= MAX_ROWS
    assert first["unread"] == 0 < first["read"]
    assert permutation_importance(predict, frame[["read"]], truth, Measure(REGRESSION), 0)["read"] == first["read"]
    assert permutation_importance(predict, frame, truth, Measure(REGRESSION), 1) != first


def test_many_features_are_shuffled_once_each() -> None:
    frame = pd.DataFrame(np.zeros((10, 200)), columns=[f"x{number}" for number in range(200)])
    asked: list[int] = []

    def predict(rows: pd.DataFrame) -> np.ndarray:
        asked.append(len(rows))
        return np.zeros((len(rows), 1))

    permutation_importance(predict, frame, np.ones(10), Measure(REGRESSION), 0)
    assert len(asked) == 201


def leak(monkeypatch: pytest.MonkeyPatch, sales: pd.DataFrame, values: "pd.Series[float]") -> None:
    """Add a column to the deliveries, the schema and the features."""
    column = pa.Column(float, pa.Check.in_range(0, 1e7), nullable=True)
    monkeypatch.setattr(model, "SCHEMA", model.SCHEMA.add_columns({"tax": column}))
    monkeypatch.setattr(model, "FEATURES", (*model.FEATURES, "tax"))
    monkeypatch.setattr("model.features.NUMBERS", (*NUMBERS, "tax"))
    rows = sales.assign(tax=values)
    rows.iloc[:600].to_csv("data/1997A.csv", index=False)
    later = rows.iloc[600:]
    later[later["sale_date"] > sales["sale_date"][599]].to_csv("data/1997B.csv", index=False)


def run(slipway: Callable[..., Result], *verbs: str) -> Verdict:
    for verb in verbs:
        result = slipway(verb)
        assert result.code == 0, result.err
    return Verdict.read(VERDICT)


def test_the_pipeline_holds_a_leak_with_and_without_a_champion(
    workplace: Path, slipway: Callable[..., Result], sales: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = ("validate", "split", "train", "evaluate", "gate")
    prices = sales["price"].astype(float)
    with monkeypatch.context() as patch:
        leak(patch, sales, prices * 0)
        assert run(slipway, *stages).verdict == "first"
        shutil.copytree("build/bundle", "without")
    leak(monkeypatch, sales, prices * 0.004)
    first = run(slipway, *stages)
    assert (first.verdict, first.reference, named(first.suspicions)) == ("hold", "baseline", ["tax"])

    shutil.copytree("without", "champion", dirs_exist_ok=True)
    edit(workplace / "metrics/release.json", "null", f'"{bundle.folder_hash(Path("champion"))}"')
    second = run(slipway, "evaluate", "gate")
    assert (second.verdict, second.reference) == ("hold", "champion")
    assert "too good to be true: tax has 100% of the importance (0% in the champion), and alone" in second.reason
    scored = {each.name: each for each in Evaluation.read(EVALUATION).features}
    assert scored["tax"].champion == 0  # it is constant in the champion's training rows
    assert scored["living_area_sqft"].alone is not None
    assert scored["living_area_sqft"].alone < 0.5

"""The loss of src/model, the cost of answers, and the decision that belongs to it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from slipway.artifacts import BUNDLE, EVALUATION, SCORES, VERDICT, Evaluation, Verdict
from slipway.bundle import Decision, Schema, load_bundle
from slipway.config import Floor, Params, Task, load_params
from slipway.errors import InputError
from slipway.pipeline import gate, train
from slipway.pipeline.decay import LOSS, answer_for
from slipway.pipeline.measure import Measure, best_threshold, ideal_threshold, measure_of, own_losses
from slipway.pipeline.threshold import decide
from slipway.pipeline.training_rows import InMemory, Rows
from slipway.review.intervals import metric_intervals, metric_rows
from slipway.serving.openapi import add_predictions
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import ROOT
from tests.slipway.pipeline.test_unusual_models import make, rows, stages  # noqa: F401

COST = {"no": {"yes": 1.0}, "yes": {"no": 9.0}}
CLASSES = ("no", "yes")


def logistic(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
    return LogisticRegression().fit(features, target)


def mails(count: int = 600) -> pd.DataFrame:
    random = np.random.default_rng(1)
    x = random.normal(size=count).round(3)
    return pd.DataFrame(
        {"id": [f"r{n}" for n in range(count)], "x": x, "y": np.where(x + random.normal(size=count) > 1, "yes", "no")}
    )


def classifier(**names: Any) -> Any:
    return make(fit=logistic, target=str, **names)


@pytest.fixture
def costly(stages: Callable[..., Params]) -> Params:  # noqa: F811
    """A trained and evaluated classifier with costs."""
    return stages(classifier(), mails(), "classification", "cost", COST)


@pytest.mark.usefixtures("costly")
def test_the_loss_is_the_cost_of_the_answers_by_the_decision_of_the_bundle() -> None:
    decision, scores = load_bundle(BUNDLE).schema.decision, pd.read_parquet(SCORES)
    assert decision
    assert decision.threshold
    assert decision.threshold < 0.4  # to miss a mail costs nine times as much as a false alarm
    answer = scores["challenger_1"] >= decision.threshold
    assert (scores["answer"] == answer).all()
    expected = np.where(scores["truth"] == 1, np.where(answer, 0, 9), np.where(answer, 1, 0))
    np.testing.assert_array_equal(scores["challenger_loss"], expected)
    evaluation = Evaluation.read(EVALUATION)
    assert evaluation.loss == "cost"
    assert evaluation.challenger.metrics["cost"] == evaluation.challenger.loss == pytest.approx(expected.mean())
    share = (scores["truth"] == 1).mean()
    assert evaluation.baseline.loss == pytest.approx(min(1 - share, 9 * share))
    most_probable = scores["challenger_1"] >= 0.5
    assert expected.mean() < np.where(scores["truth"] == 1, np.where(most_probable, 0, 9), most_probable * 1).mean()


def test_costs_are_judged_and_reported_in_their_unit(costly: Params) -> None:
    params = costly.model_copy(update={"gate": costly.gate.model_copy(update={"floors": {}, "minimum_rows": 100})})
    verdict = gate.run(params)
    assert (verdict.verdict, verdict.loss) == ("first", "cost")
    assert "cost falls by $" in verdict.reason
    (row, *_) = metric_rows(pd.read_parquet(SCORES), Evaluation.read(EVALUATION), Verdict.read(VERDICT), params)
    assert row.metric == "cost"


@pytest.mark.usefixtures("costly")
def test_the_answers_of_all_protocols_follow_the_decision() -> None:
    model = ServedModel(BUNDLE, "mails", 10)
    decision = model.schema.decision
    assert decision
    records = [{"x": x / 4} for x in range(-4, 8)][:10]
    answers = json.loads(Predict(model)(json.dumps(records).encode()))
    given = [each["probabilities"]["yes"] for each in answers]
    expected = ["yes" if each >= np.float32(decision.threshold) else "no" for each in given]
    assert {"yes", "no"} == {*expected}
    assert any(each < 0.5 for each, answer in zip(given, expected, strict=True) if answer == "yes")
    assert [each["prediction"] for each in answers] == expected
    assert {each["threshold"] for each in answers} == {decision.threshold}
    frame = json.loads(Invocations(model)(json.dumps({"dataframe_records": records}).encode()))["predictions"]
    assert [each["decision"] for each in frame] == expected
    tensor = {"name": "x", "shape": [10, 1], "datatype": "FP32", "data": [each["x"] for each in records]}
    outputs = json.loads(Infer(model)(json.dumps({"inputs": [tensor]}).encode()))["outputs"]
    assert [each["name"] for each in outputs] == ["prediction", "decision"]
    assert outputs[1] == {"name": "decision", "datatype": "BYTES", "shape": [10], "data": expected}
    for name in ("prediction", "decision"):
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": name}]}).encode()
        assert [each["name"] for each in json.loads(Infer(model)(body))["outputs"]] == [name]
    counted = next(each for each in model.metrics.collect() if each.name == "slipway_decisions")
    assert {each.labels["output"]: each.value for each in counted.samples} == {
        name: 5 * expected.count(name) for name in CLASSES
    }
    schemas = add_predictions({"paths": {}}, model)["components"]["schemas"]
    assert schemas["Prediction"]["properties"]["threshold"] == {"const": decision.threshold}


def test_a_bundle_without_costs_has_no_decision_and_answers_as_before(stages: Callable[..., Params]) -> None:  # noqa: F811
    stages(classifier(), mails(), "classification", "log_loss")
    assert b"decision" not in (BUNDLE / "schema.json").read_bytes()
    model = ServedModel(BUNDLE, "mails", 10)
    assert {*json.loads(Predict(model)(b'{"x": 1}'))} == {"prediction", "probabilities"}
    assert [*json.loads(Invocations(model)(b'{"instances": [{"x": 1}]}'))["predictions"][0]] == [*CLASSES]
    assert "slipway_decisions" not in {each.name for each in model.metrics.collect()}


@pytest.mark.parametrize("positive", [None, "yes", "no"])
def test_the_metrics_and_their_intervals_are_those_of_the_positive_class(
    stages: Callable[..., Params],  # noqa: F811
    positive: str | None,
) -> None:
    floors = {"recall_at_precision_0.9": Floor(at_least=0.0)}
    params = stages(classifier(), mails(), "classification", "log_loss", floors=floors, positive=positive)
    evaluation, scores = Evaluation.read(EVALUATION), pd.read_parquet(SCORES)
    index = 0 if positive == "no" else 1
    truth, answers = scores["truth"] == index, scores[f"challenger_{index}"]
    assert evaluation.challenger.metrics["average_precision"] == sk.average_precision_score(truth, answers)
    low, high = metric_intervals(scores, params, "challenger", evaluation.positive_index)["average_precision"] or (0, 0)
    assert low < evaluation.challenger.metrics["average_precision"] < high
    assert ("positive" in EVALUATION.read_text()) == (positive is not None)
    assert evaluation.positive_note.startswith("" if positive is None else f"The positive class is {positive}: ")


def test_the_positive_class_does_not_change_the_bundle(stages: Callable[..., Params]) -> None:  # noqa: F811
    params = stages(classifier(), mails(), "classification", "log_loss")
    before = load_bundle(BUNDLE).hash
    train.run(params.model_copy(update={"task": params.task.model_copy(update={"positive": "no"})}), classifier())
    assert load_bundle(BUNDLE).hash == before


def unfit(*_: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positive": "spam"}, "`task.positive` is 'spam', which is not a class; the classes are no, yes."),
        ({"cost": {"no": {"yes": 1.0}}}, "`task.cost.yes` lacks the cost of the answer 'no'"),
        ({"loss": "own_profit"}, "lacks the function `loss`"),
    ],
)
def test_a_task_that_does_not_fit_the_model_is_refused_before_the_model_is_fitted(
    stages: Callable[..., Params],  # noqa: F811
    changes: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        stages(make(fit=unfit, target=str), mails(), "classification", **changes)


def test_more_than_two_classes_have_no_positive_one() -> None:
    task = Task(kind="classification", loss="log_loss", positive="b")
    with pytest.raises(InputError, match=r"`task\.positive` is 'b', but of 3 classes none is positive"):
        task.positive_index(("a", "b", "c"))
    with pytest.raises(ValueError, match="a regression has no classes, so it has no positive class"):
        Task(kind="regression", loss="mean_absolute_error", positive="b")


def test_a_positive_class_can_be_written_as_a_number() -> None:
    assert Task.model_validate({"kind": "classification", "loss": "log_loss", "positive": 0}).positive == "0"


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"no": {"yes": 1.0}}, "`task.cost.yes` lacks the cost of the answer 'no'"),
        (COST | {"maybe": {"no": 1.0}}, "`task.cost` names 'maybe', which is not a class; the classes are no, yes"),
    ],
)
def test_costs_that_do_not_fit_the_classes_are_refused(cost: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Task(kind="classification", loss="cost", cost=cost).costs(CLASSES)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"kind": "classification", "loss": "cost"}, "the loss `cost` needs `task.cost`"),
        ({"kind": "regression", "loss": "cost"}, "the loss of a regression is one of"),
        ({"kind": "regression", "loss": "mean_absolute_error", "cost": COST}, "a regression has no classes"),
        ({"kind": "classification", "loss": "cost", "cost": {"no": {"yes": 1.0, "no": 2.0}}}, "must cost more than"),
        ({"kind": "classification", "loss": "cost", "cost": {"no": {"yes": -1.0}}}, "greater than or equal to 0"),
    ],
)
def test_impossible_costs_are_refused(task: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Task.model_validate(task)


def test_more_than_two_classes_answer_with_the_smallest_expected_cost() -> None:
    costs = ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (50.0, 50.0, 0.0))
    decision = Decision(costs=costs, threshold=None)
    probabilities = np.array([[0.6, 0.3, 0.1], [0.6, 0.39, 0.01]], dtype=np.float32)
    assert decision.chosen(probabilities).tolist() == decision.chosen(probabilities.astype(float)).tolist() == [2, 0]
    measure = Measure(Task(kind="classification", loss="cost", cost={}), costs)
    losses = measure.losses(np.array([0.0, 2.0]), probabilities.astype(float), pd.DataFrame(), decision)
    assert losses.tolist() == [1, 50]


@given(st.integers(0, 9_999), st.floats(0.1, 10), st.integers(1, 40))
def test_no_other_threshold_costs_less_than_the_best_one(seed: int, missed: float, size: int) -> None:
    random, costs = np.random.default_rng(seed), ((0.0, 1.0), (missed, 0.0))
    second = random.random(size).astype(np.float32).astype(float).round(1 if seed % 2 else 6)
    truth = (random.random(size) < second).astype(float)
    probabilities = np.column_stack([1 - second, second])
    measure = Measure(Task(kind="classification", loss="cost", cost={}), costs)

    def cost(threshold: float) -> float:
        decision = Decision(costs=costs, threshold=threshold)
        return float(measure.losses(truth, probabilities, pd.DataFrame(), decision).sum())

    best = cost(best_threshold(costs, truth, probabilities))
    assert best <= min(cost(each) for each in [0.0, *second, 1.1, *random.random(5)]) + 1e-9


def test_a_threshold_that_is_as_good_as_others_is_the_ideal_one() -> None:
    costs = ((0.0, 1.0), (3.0, 0.0))
    assert ideal_threshold(costs) == 0.25
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert best_threshold(costs, np.array([0.0, 1.0]), probabilities) == 0.25
    assert best_threshold(costs, np.array([0.0, 1.0]), np.array([[0.9, 0.1], [0.88, 0.12]])) == pytest.approx(0.11)


def test_the_threshold_is_fitted_on_the_newest_training_rows_which_the_fit_leaves_out() -> None:
    count = 1_000
    training = pd.DataFrame({"at": np.arange(count), "y": np.tile(["no", "yes"], count // 2)}).sample(
        frac=1, random_state=0
    )
    seen = []

    class Fitted:
        def predict_proba(self, frame: pd.DataFrame) -> Any:
            assert sorted(frame["at"]) == [*range(800, 1_000)]
            second = np.where(frame["at"] % 2 == 1, 0.04, 0.02)  # far too low, but in the right order
            return np.column_stack([1 - second, second])

    def fit(rows: Rows) -> Any:
        frame, target = rows.arguments
        seen.append((sorted(frame["at"]), len(target)))
        return Fitted()

    task = Task(kind="classification", loss="cost", cost=COST)
    decision = decide(fit, InMemory(training, training[["at"]], "y"), CLASSES, task, classifier(TIME="at"))
    assert seen == [([*range(800)], 800)]
    assert decision
    assert decision.threshold == pytest.approx(0.03)
    few = training[training["at"] < 100]
    decision = decide(fit, InMemory(few, few[["at"]], "y"), CLASSES, task, classifier(TIME="at"))
    assert decision == Decision(costs=((0.0, 1.0), (9.0, 0.0)), threshold=float(np.float32(0.1)))
    assert len(seen) == 1  # too few rows


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (lambda _: 1 / 0, r"cannot predict the others \(ZeroDivisionError\); set `handle_unknown`"),
        (lambda frame: np.ones((len(frame), 3)), r"cannot predict the others \(ValueError\)"),
        (lambda frame: np.full((len(frame), 2), np.nan), "predicts infinite or missing probabilities for the others"),
    ],
)
def test_a_model_that_cannot_predict_the_rows_for_the_threshold_is_refused(answers: Any, words: str) -> None:
    training = pd.DataFrame({"at": np.arange(1_000), "y": np.tile(["no", "yes"], 500)})
    fitted = SimpleNamespace(predict_proba=answers)
    task = Task(kind="classification", loss="cost", cost=COST)
    with pytest.raises(InputError, match=words):
        decide(lambda _: fitted, InMemory(training, training[["at"]], "y"), CLASSES, task, classifier(TIME="at"))


def dear(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:
    """Return errors that count twice where x is positive."""
    return abs(answers[:, 0] - truth) * np.where(rows["x"] > 0, 2, 1)


def test_the_loss_of_the_model_is_judged_reported_and_used_for_decay(stages: Callable[..., Params]) -> None:  # noqa: F811
    model = make(loss=staticmethod(dear))
    params = stages(model, rows(), loss="own_dear_error")
    scores, evaluation = pd.read_parquet(SCORES), Evaluation.read(EVALUATION)
    holdout = pd.read_parquet("build/split/holdout.parquet")
    errors = (scores["challenger_0"] - holdout["y"]).abs()
    np.testing.assert_allclose(scores["challenger_loss"], errors * np.where(holdout["x"] > 0, 2, 1))
    assert evaluation.loss == "own_dear_error"
    assert evaluation.challenger.metrics["own_dear_error"] == evaluation.challenger.loss < evaluation.baseline.loss
    assert evaluation.features[0].challenger
    assert evaluation.features[0].challenger > 0
    params = params.model_copy(
        update={"gate": params.gate.model_copy(update={"floors": {}, "minimum_rows": 50, "suspicious": None})}
    )
    verdict = gate.run(params)
    assert (verdict.verdict, verdict.loss) == ("first", "own_dear_error")
    assert "own dear error falls by " in verdict.reason
    scored = answer_for(holdout, load_bundle(BUNDLE), params, model)
    np.testing.assert_allclose(scored[LOSS], scores["challenger_loss"])


def test_the_baseline_of_an_own_loss_is_its_best_constant(stages: Callable[..., Params]) -> None:  # noqa: F811
    def low(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
        error = truth - answers[:, 0]
        return np.maximum(0.9 * error, -0.1 * error)

    stages(make(loss=low), rows(), loss="own_low")
    own = Evaluation.read(EVALUATION).baseline.loss
    truth = pd.read_parquet("build/split/training.parquet")["y"].to_numpy()
    holdout = pd.read_parquet("build/split/holdout.parquet")["y"].to_numpy()
    error = holdout - np.quantile(truth, 0.9)
    assert own == pytest.approx(np.maximum(0.9 * error, -0.1 * error).mean(), rel=0.02)


def test_a_missing_own_loss_is_named() -> None:
    with pytest.raises(InputError, match=r"src/model/__init__\.py lacks the function `loss`, which `task.loss: own_x`"):
        measure_of(Task(kind="regression", loss="own_x"), make(), None)


def _changing(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
    answers[:, 0] -= 1
    return truth


def _widening(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
    rows["z"] = 1
    return truth


def _scaling(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
    for vector in rows["ink"]:
        vector *= 2
    return truth


def _narrowing(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
    del rows["x"]
    return truth


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda *given: given[1] - 1, r"returns the shape \(9, 1\) for 9 rows; return one number for each"),
        (lambda *given: given[0].mean(), r"returns the shape \(\) for 9 rows"),
        (lambda *_: None, r"returns the shape \(\) for 9 rows"),
        (lambda *_: "a" * 9, r"returns the shape \(\) for 9 rows"),
        (lambda *_: [[1], [2, 3]], r"failed \(ValueError\); correct it"),
        (lambda *_: ["a"] * 9, "returns values of the type <U1; return an array of real numbers"),
        (lambda *given: given[0] + 1j, "returns values of the type complex128; return"),
        (lambda *given: np.ma.masked_equal(given[0], 8), "returns a masked array; return an array of real numbers"),
        (lambda *_: np.full(9, 1e308), "is so large that its mean is infinite"),
        (lambda *given: given[2]["missing"], r"failed \(KeyError\); correct it"),
        (lambda *given: given[0] / 0, "is infinite or missing for 9 of 9 rows"),
        (lambda *given: -given[0], "is negative for 8 of 9 rows; add a constant"),
        (lambda *_: np.random.default_rng().random(9), "gives other numbers when it is called again"),
        (_changing, "changes its arguments"),
        (_widening, "changes its arguments"),
        (_scaling, "changes its arguments"),
        (_narrowing, "changes its arguments"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_invalid_own_loss_is_refused_in_one_sentence(own: Any, words: str) -> None:
    rows = pd.DataFrame({"x": np.arange(9.0), "ink": [np.ones(2, np.float32) for _ in range(9)]})
    with pytest.raises(InputError, match=f"^src/model: `loss` {words}"):
        own_losses(own, np.arange(9.0), np.ones((9, 1)), rows)
    assert np.array_equal(np.stack([*rows["ink"]]), np.ones((9, 2)))


def test_an_own_loss_may_read_vectors_that_are_missing() -> None:
    rows = pd.DataFrame({"ink": [np.full(2, np.nan, np.float32), np.ones(2, np.float32)]})

    def own(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:  # noqa: ARG001
        return np.nan_to_num(np.stack([*rows["ink"]])[:, 0])

    assert own_losses(own, np.zeros(2), np.zeros((2, 1)), rows).tolist() == [0.0, 1.0]


def test_an_own_loss_needs_the_features_of_today() -> None:
    model = make({"z": pa.Column(float)}, FEATURES=("x", "z"), loss=dear)
    measure = measure_of(Task(kind="regression", loss="own_x"), model, None)
    assert isinstance(measure.schema, Schema)
    with pytest.raises(InputError, match="these rows lack 'z'"):
        measure.features(pd.DataFrame({"x": [1.0]}))


def test_a_class_cannot_have_the_name_of_the_decision(stages: Callable[..., Params], tmp_path: Path) -> None:  # noqa: F811
    data = mails().replace({"y": {"yes": "decision"}})
    with pytest.raises(InputError, match="A class is named 'decision'"):
        stages(classifier(), data, "classification", "cost", {"no": {"decision": 1.0}, "decision": {"no": 9.0}})
    assert not (tmp_path / BUNDLE).exists()


def test_auc_decides_and_floors_can_be_set_on_recall(stages: Callable[..., Params]) -> None:  # noqa: F811
    model = classifier()
    floors = {"recall_at_precision_0.5": Floor(at_least=0.99), "roc_auc": Floor(at_least=0.5)}
    params = stages(model, mails(), "classification", "one_minus_auc", floors=floors)
    evaluation, scores = Evaluation.read(EVALUATION), pd.read_parquet(SCORES)
    metrics = evaluation.challenger.metrics
    assert evaluation.challenger.loss == metrics["one_minus_auc"] == pytest.approx(1 - metrics["roc_auc"])
    assert evaluation.baseline.loss == 0.5
    rules = params.gate.model_copy(update={"minimum_rows": 100})
    held = gate.run(params.model_copy(update={"gate": rules}))
    assert held.verdict == "hold"
    assert "recall at precision 0.5 is " in held.reason
    rules = rules.model_copy(update={"floors": {"roc_auc": floors["roc_auc"]}})
    shipped = gate.run(params.model_copy(update={"gate": rules}))
    assert shipped.verdict == "first"
    assert "one minus auc falls by " in shipped.reason
    scored = answer_for(pd.read_parquet("build/split/holdout.parquet"), load_bundle(BUNDLE), params, model)
    np.testing.assert_allclose(scored[LOSS], scores["challenger_loss"])


def test_a_loss_of_pairs_is_not_computed_from_a_log() -> None:
    content = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    task = {"kind": "classification", "loss": "one_minus_auc"}
    live = {"log": "s3://bucket/log", "labels": "s3://bucket/labels"}
    with pytest.raises(
        ValueError, match="the loss one_minus_auc compares pairs of rows, and `live` reads a log in parts"
    ):
        Params.model_validate(content | {"task": task, "live": live})
    gate = content["gate"] | {"floors": {}}
    assert Params.model_validate(content | {"task": task, "gate": gate}).task.loss == "one_minus_auc"

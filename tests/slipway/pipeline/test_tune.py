"""`slipway tune` searches settings on the training rows alone, and continues after an interruption."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from mlflow.entities import RunStatus, ViewType
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from slipway import atomic
from slipway.artifacts import HOLDOUT, TRAINING
from slipway.config import Params, Split, Tune, load_params
from slipway.errors import CheckFailed, InputError
from slipway.integrations.compute import LOCAL, Engine
from slipway.integrations.search_storage import Outcome, SearchStorage, Trial
from slipway.pipeline import tune
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.folds import make_folds
from slipway.pipeline.tune import STORAGE, Search, search_name
from slipway.release import registry
from tests.slipway.conftest import ROOT, Result
from tests.slipway.pipeline.test_unusual_models import make

RULES = {"trials": 7, "batch": 3, "folds": 2, "settings": {"alpha": {"low": 0.001, "high": 100.0, "log": True}}}


def ridge(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
    if settings["alpha"] > 20:
        raise ValueError("alpha is too large")
    return Ridge(alpha=settings["alpha"]).fit(features, target)


def params_with(rules: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **task: Any) -> Params:
    known = load_params(ROOT / "params.yaml")
    return known.model_copy(
        update={
            "task": known.task.model_copy(update=task),
            "split": Split(by="key"),
            "train": known.train.model_copy(update={"settings": settings or {"alpha": 0.5, "other": {"depth": 3}}}),
            "tune": Tune.model_validate(RULES | (rules or {})),
        }
    )


def table(count: int, seed: int, target: str = "y") -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=count)
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(count)], "x": x, "y": 3 * x + random.normal(size=count)})
    rows[ROW_ID] = random.integers(0, 2**63, count).astype(np.uint64)
    return rows if target == "y" else rows.assign(y=np.where(rows["y"] > 0, "yes", "no"))


@pytest.fixture
def split_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training rows and a holdout in build/split/, and a model whose setting `alpha` is searched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "load_model", lambda: make(fit=ridge))
    TRAINING.parent.mkdir(parents=True)
    table(60, 1).to_parquet(TRAINING)
    table(20, 2).to_parquet(HOLDOUT)


def search(params: Params, announce: Callable[[int, Trial], None] = lambda *_: None) -> Search:
    return tune.run(params, LOCAL, announce)


def start_again() -> None:
    STORAGE.unlink()


@pytest.mark.usefixtures("split_rows")
def test_a_poisoned_holdout_changes_nothing() -> None:
    params = params_with()
    found = search(params)
    assert len({trial.outcome.loss for trial in found.trials}) > 3
    assert found.best.outcome.loss == min(trial.outcome.loss for trial in found.trials if trial.outcome.loss)
    start_again()
    table(500, 3).assign(y=1e9, x=-1e9).to_parquet(HOLDOUT)
    assert search(params) == found
    start_again()
    HOLDOUT.unlink()
    assert search(params) == found
    start_again()
    table(60, 4).to_parquet(TRAINING)  # other training rows do change it
    assert search(params) != found


@pytest.mark.usefixtures("split_rows")
@pytest.mark.parametrize("stop", [1, 5])
def test_an_interrupted_search_that_continues_finds_the_same_best_trial(stop: int) -> None:
    def interrupt(number: int, _: Trial) -> None:
        if number == stop:
            raise KeyboardInterrupt

    params, done = params_with(), []
    whole = search(params)
    start_again()
    with pytest.raises(KeyboardInterrupt):
        search(params, interrupt)
    with STORAGE.open("a") as journal:
        journal.write('{"op_code": 4, "work')  # as a process leaves it that was killed in the middle of a line
    kept = SearchStorage(STORAGE, whole.name, params.tune or Tune.model_validate(RULES)).finished()
    assert [*whole.trials[: stop + 1]] == kept
    assert search(params, lambda number, _: done.append(number)) == whole
    assert done == [*range(7)]


@pytest.mark.usefixtures("split_rows")
def test_more_trials_continue_the_search() -> None:
    whole = search(params_with({"trials": 9}))
    start_again()
    few = search(params_with({"trials": 5}))
    assert few.trials == whole.trials[:5]
    better = params_with({"trials": 9}, settings={"alpha": few.best.settings["alpha"], "other": {"depth": 3}})
    assert search(better).trials == whole.trials


@pytest.mark.usefixtures("split_rows")
def test_the_engine_does_not_change_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_last_first(_: Engine, work: Callable[[Any], Outcome], items: Iterable[Any]) -> Iterator[Outcome]:
        sent = cloudpickle.loads(cloudpickle.dumps(work))  # as engines send it to another process
        return reversed([sent(each) for each in reversed([*items])])

    params = params_with()
    whole = search(params)
    start_again()
    monkeypatch.setattr(tune, "run_each", run_last_first)
    assert search(params) == whole


@pytest.mark.usefixtures("split_rows")
def test_a_setting_that_the_model_refuses_is_a_failed_trial() -> None:
    refused = {"settings": {"alpha": [30, 40]}, "trials": 2}
    with pytest.raises(CheckFailed, match=r"^All 2 trials failed, and the last one because .*alpha is too large"):
        search(params_with(refused))
    found = search(params_with({"settings": {"alpha": [30, 1.5, 0.5]}}))
    assert {trial.settings["alpha"]: trial.outcome.loss is None for trial in found.trials}[30]
    assert found.best.settings["alpha"] in (0.5, 1.5)


@pytest.mark.usefixtures("split_rows")
def test_a_wrong_task_is_reported_before_the_first_trial() -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    for task, words in (({"loss": "own_profit"}, "lacks the function `loss`"), ({"weight": "w"}, "no such column")):
        with pytest.raises(InputError, match=words):
            search(params_with(**task), never)


@pytest.mark.usefixtures("split_rows")
def test_a_model_that_predicts_missing_values_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most probable of missing probabilities is the first class, so the error rate would be a number."""

    class Missing(LogisticRegression):
        def predict_proba(self, features: Any) -> Any:
            return super().predict_proba(features) * np.nan

    def logistic(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
        return Missing(C=settings["alpha"]).fit(features, target)

    monkeypatch.setattr(tune, "load_model", lambda: make(fit=logistic, target=str))
    table(60, 1, "classes").to_parquet(TRAINING)
    with pytest.raises(CheckFailed, match="the last one because the fitted model predicts infinite or missing values"):
        search(params_with({"trials": 2}, kind="classification", loss="error_rate"))


@pytest.mark.usefixtures("split_rows")
def test_a_vocabulary_that_train_refuses_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
        counts = ColumnTransformer([("body", CountVectorizer(min_df=settings["min_df"]), "body")])
        return make_pipeline(counts, Ridge()).fit(features, target)

    text = pa.Column(str, pa.Check.str_length(max_value=99), metadata={"kind": "text"})
    known = make(columns={"body": text}, fit=words, FEATURES=("body",), EXAMPLES=({"body": "hello"},))
    monkeypatch.setattr(tune, "load_model", lambda: known)
    table(60, 1).assign(body=[f"often rare{n}" for n in range(60)]).to_parquet(TRAINING)
    rules = {"trials": 6, "settings": {"min_df": [1, 10]}}
    trials = search(params_with(rules, {"min_df": 1})).trials
    outcomes = {trial.settings["min_df"]: trial.outcome for trial in trials}
    assert outcomes[10].error == ""
    assert "fewer than 10 training rows have" in str(outcomes[1].error)


@pytest.mark.usefixtures("split_rows")
def test_nested_settings_whole_numbers_and_steps_are_searched() -> None:
    settings = {"alpha": {"low": 1.0, "high": 2.0, "step": 0.1}, "other.depth": {"low": 2, "high": 30, "step": 4}}
    found = search(params_with({"settings": settings}))
    assert found.current.settings == {"alpha": 0.5, "other.depth": 3}
    for trial in found.trials:
        assert len(str(trial.settings["alpha"])) <= 3
        assert trial.settings["other.depth"] in range(2, 31, 4)
    changed = tune.with_settings(params_with(), found.best.settings).train.settings
    assert changed == {"alpha": found.best.settings["alpha"], "other": {"depth": found.best.settings["other.depth"]}}


@pytest.mark.usefixtures("split_rows")
def test_the_search_uses_the_loss_of_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(truth: Any, answers: Any, rows: pd.DataFrame) -> Any:
        return np.abs(answers[:, 0] - truth) * np.where(rows["x"] > 0, 4, 1)

    def logistic(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:  # noqa: ARG001
        return LogisticRegression(C=settings["alpha"]).fit(features, target)

    plain = search(params_with()).current.outcome.loss
    monkeypatch.setattr(tune, "load_model", lambda: make(fit=ridge, loss=staticmethod(own)))
    weighted = search(params_with(loss="own_dear")).current.outcome.loss
    assert plain
    assert weighted
    assert 1.5 * plain < weighted < 4 * plain
    monkeypatch.setattr(tune, "load_model", lambda: make(fit=logistic, target=str))
    table(60, 1, "classes").to_parquet(TRAINING)
    cost = {"no": {"yes": 1.0}, "yes": {"no": 9.0}}
    for loss, largest in (("log_loss", 0.7), ("one_minus_auc", 0.5), ("cost", 1.0)):
        kind = {"kind": "classification", "loss": loss, "cost": cost if loss == "cost" else None}
        found = search(params_with({"trials": 2}, **kind)).best.outcome.loss
        assert found
        assert 0 < found < largest


def test_the_search_has_another_name_if_its_losses_may_differ(split_rows: None) -> None:  # noqa: ARG001
    params = params_with()
    assert params.tune
    name = search_name(params, params.tune)
    more = params_with({"trials": 50}, settings={"alpha": 7, "other": {"depth": 3}})
    assert search_name(more, params.tune) == name
    others = [params_with({"seed": 1}), params_with({"folds": 3}), params_with(loss="mean_squared_error")]
    others += [params_with(settings={"alpha": 0.5, "other": {"depth": 4}})]
    assert name not in [search_name(each, each.tune or params.tune) for each in others]
    table(60, 5).to_parquet(TRAINING)
    assert search_name(params, params.tune) != name


def test_folds_with_a_time_compare_on_the_days_after_those_that_they_fit_on() -> None:
    rows = pd.DataFrame({"day": pd.date_range("2026-01-01", periods=100)})
    model = make(TIME="day")
    first, second = make_folds(rows, Split(by="time", days=10, gap_days=5), model, 2)
    assert [*np.flatnonzero(second.validation)] == [*range(90, 100)]
    assert [*np.flatnonzero(second.training)] == [*range(85)]
    assert [*np.flatnonzero(first.validation)] == [*range(80, 90)]
    assert [*np.flatnonzero(first.training)] == [*range(75)]
    short = make_folds(rows, Split(by="time", days=60), model, 3)
    assert [fold.validation.sum() for fold in short] == [25, 25, 25]
    with pytest.raises(InputError, match=r"`tune.folds` is 2, but fold 1 has 0 rows to fit on and 10 to compare on"):
        make_folds(rows, Split(by="time", days=10, gap_days=90), model, 2)


@pytest.mark.parametrize("by", ["group", "time_and_group"])
def test_folds_by_group_never_divide_a_group(by: Any) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"day": pd.date_range("2026-01-01", periods=400), "who": random.integers(0, 40, 400)})
    model = make(TIME="day")
    for fold in make_folds(rows, Split(by=by, column="who", days=50), model, 3):
        assert not {*rows["who"][fold.training]} & {*rows["who"][fold.validation]}
        if by == "time_and_group":
            assert rows["day"][fold.training].max() < rows["day"][fold.validation].min()


def test_folds_without_a_time_divide_the_rows() -> None:
    rows = table(300, 1)
    folds = make_folds(rows, Split(by="key"), make(), 3)
    assert np.all(sum(fold.validation.astype(int) for fold in folds) == 1)
    assert all(np.array_equal(fold.training, ~fold.validation) for fold in folds)
    assert min(fold.validation.sum() for fold in folds) > 70


@pytest.mark.usefixtures("split_rows")
def test_a_search_is_recorded_once_with_a_run_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/mlflow.db")
    params = params_with({"trials": 2})
    first = registry.record_search(params, search(params))
    assert not first.already
    assert registry.record_search(params, search(params)) == registry.Recorded(first.run_id, already=True)
    client = mlflow.MlflowClient()
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name == "house-prices"]

    def children() -> list[Any]:
        return [*client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{first.run_id}'")]

    interrupted = children()[0].info.run_id
    client.update_run(interrupted, RunStatus.to_string(RunStatus.RUNNING))
    more = params_with({"trials": 3})
    found = search(more)
    assert registry.record_search(more, found) == first
    assert interrupted not in {run.info.run_id for run in children()}
    recorded = {run.data.tags["slipway.trial"]: run for run in children()}
    assert [*sorted(recorded)] == ["0", "1", "2"]
    for number, trial in enumerate(found.trials):
        run = recorded[str(number)]
        assert run.data.params == {"train.settings.alpha": str(trial.settings["alpha"])}
        assert run.data.metrics.get("mean_absolute_error") == trial.outcome.loss
    parent = client.get_run(first.run_id)
    assert parent.data.tags["train.settings.alpha"] == str(found.best.settings["alpha"])
    assert parent.data.metrics["current_mean_absolute_error"] == found.current.outcome.loss
    assert len(client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY)) == 4


SECTION = """
tune:
  trials: 3
  settings:
    max_iter: {low: 2, high: 4} # few
"""


def test_the_result_is_a_diff_of_params_yaml(
    workplace: Path, slipway: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Search] = []

    def record(_: Params, found: Search) -> registry.Recorded:
        recorded.append(found)
        return registry.Recorded("abc", already=False)

    monkeypatch.setattr(registry, "record_search", record)
    refused = slipway("tune")
    assert (refused.code, refused.err) == (
        2,
        "slipway: params.yaml has no section `tune`; add one as docs/tune.md describes.\n",
    )
    params = workplace / "params.yaml"
    params.write_text(params.read_text().replace("max_iter: 30", "max_iter: 1 # short") + SECTION)
    before = params.read_text()
    missing = slipway("tune")
    assert (missing.code, "build/split/training.parquet is missing; run `dvc repro split`." in missing.err) == (2, True)
    for verb in ("validate", "split"):
        assert slipway(verb).code == 0
    found = slipway("tune")
    assert found.code == 0, found.err
    best = max(trial.settings["max_iter"] for trial in recorded[0].trials)  # more iterations are better here
    after = before.replace("max_iter: 1 # short", f"max_iter: {best} # short")
    assert params.read_text() == after
    assert f"-    max_iter: 1 # short\n+    max_iter: {best} # short" in found.out
    assert "run abc in MLflow has the search" in found.out
    again = slipway("tune")
    assert "no trial is better, so params.yaml is unchanged" in again.out
    assert params.read_text() == after

    monkeypatch.setitem(sys.modules, "optuna", None)
    without = slipway("tune")
    assert without.code == 2
    assert without.err.startswith(
        "slipway: The package optuna is not installed, but `slipway tune` needs it; run `make"
    )


@pytest.mark.usefixtures("split_rows")
def test_a_second_search_at_the_same_time_is_refused() -> None:
    STORAGE.parent.mkdir(parents=True)
    with (
        atomic.locked(STORAGE.parent),
        pytest.raises(InputError, match=r"Another search writes to build/tune/trials\.log"),
    ):
        search(params_with())
    assert search(params_with()).best.outcome.loss is not None


@pytest.mark.usefixtures("split_rows")
def test_a_damaged_file_of_trials_is_reported() -> None:
    STORAGE.parent.mkdir(parents=True)
    STORAGE.write_bytes(b"damaged\n" * 1000)
    with pytest.raises(InputError, match=r"^build/tune/trials.log is damaged .*; delete it to start the search again"):
        search(params_with())

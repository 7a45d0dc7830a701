"""Both models are scored on the same rows, and an invalid comparison is rejected."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

import model
from slipway import bundle
from slipway.artifacts import (
    EVALUATION,
    HOLDOUT,
    LATENCY,
    PLOTS,
    SCORES,
    TRAINING,
    VERDICT,
    Evaluation,
    Latency,
    Verdict,
)
from slipway.config import load_params
from slipway.pipeline import evaluate, parquet, single_feature
from slipway.review.intervals import metric_rows
from tests.slipway.conftest import Result, edit

Run = Callable[..., Result]


@pytest.fixture
def challenged(trained_workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained challenger, and a champion that is a copy of it."""
    shutil.copytree(trained_workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree("build/bundle", "champion", dirs_exist_ok=True)
    release()
    return tmp_path


def release() -> None:
    """Record the bundle in champion/ as released."""
    Path("metrics/release.json").write_text(json.dumps({"champion": bundle.folder_hash(Path("champion"))}))


@pytest.mark.usefixtures("challenged")
def test_results_are_the_same_if_rows_are_read_and_scored_in_parts(
    slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (1_000_000, 70):
        monkeypatch.setattr(parquet, "GROUP_ROWS", size)
        monkeypatch.setattr(parquet, "PART_ROWS", size)
        monkeypatch.setattr(evaluate, "SCORED_ROWS", size)
        monkeypatch.setattr(single_feature, "MAX_ROWS", 40)  # the sample has some rows of each part
        for verb in ("split", "evaluate"):
            assert slipway(verb).code == 0
        tables = [pd.read_parquet(path) for path in (TRAINING, HOLDOUT, SCORES)]
        found.append((EVALUATION.read_bytes(), *(table.to_csv() for table in tables)))
        assert (pq.read_metadata(TRAINING).num_row_groups > 1) == (size == 70)
    assert found[0] == found[1]


@pytest.mark.usefixtures("challenged")
def test_a_copy_of_the_champion_scores_the_same_and_is_unchanged(slipway: Run) -> None:
    assert slipway("evaluate").code == 0
    evaluation = Evaluation.read(EVALUATION)
    assert evaluation.champion
    assert evaluation.champion.metrics == evaluation.challenger.metrics
    assert evaluation.churn
    assert evaluation.churn.largest_difference == 0
    scores = pd.read_parquet(SCORES)
    assert len(scores) == evaluation.holdout.rows
    assert scores["challenger_loss"].mean() == pytest.approx(evaluation.challenger.loss)
    assert Latency.read(LATENCY).challenger > 0
    assert {path.name for path in PLOTS.iterdir()} == {
        "importance.csv",
        "predicted_against_actual.csv",
        "residual_by_time.csv",
    }
    for column in {part.column for part in evaluation.slices}:
        parts = [part for part in evaluation.slices if part.column == column]
        assert sum(part.rows for part in parts) == evaluation.holdout.rows
    slipway("gate")
    assert Verdict.read(Path("metrics/verdict.json")).verdict == "unchanged"


@pytest.mark.usefixtures("challenged")
def test_a_bundle_with_other_marks_ships_although_its_predictions_are_equal(slipway: Run) -> None:
    file = Path("champion/schema.json")
    schema = bundle.Schema.model_validate_json(file.read_bytes())
    columns = tuple(column.model_copy(update={"private": "hash"}) for column in schema.columns)
    file.write_bytes(schema.model_copy(update={"columns": columns}).content())
    release()
    assert (slipway("evaluate").code, slipway("gate").code) == (0, 0)
    verdict = Verdict.read(VERDICT)
    assert (verdict.verdict, verdict.same_predictions) == ("ship", True)
    assert verdict.reason.startswith("every answer agrees with the champion's within 1e-05, on ")
    assert verdict.reason.endswith(
        f", and the bundle changes the server: the mark private of the columns sale_date and {len(columns) - 1} more"
    )


def test_a_model_is_judged_by_a_quantile(challenged: Path, slipway: Run) -> None:
    edit(challenged / "params.yaml", "loss: mean_absolute_error", "loss: pinball_0.9")
    assert slipway("evaluate").code == 0
    evaluation = Evaluation.read(EVALUATION)
    holdout, scores = pd.read_parquet("build/split/holdout.parquet"), pd.read_parquet(SCORES)
    expected = sk.mean_pinball_loss(holdout["price"], scores["challenger_0"], alpha=0.9)
    assert evaluation.loss == "pinball_0.9"
    assert evaluation.challenger.loss == evaluation.challenger.metrics["pinball_0.9"] == pytest.approx(expected)
    assert evaluation.baseline.loss > evaluation.challenger.loss
    assert slipway("gate").code == 0
    verdict = Verdict.read(VERDICT)
    assert (verdict.verdict, verdict.loss) == ("unchanged", "pinball_0.9")
    rows = metric_rows(scores, evaluation, verdict, load_params(challenged / "params.yaml"))
    assert rows[0].metric == "pinball_0.9"


@pytest.mark.usefixtures("challenged")
def test_scores_come_from_the_exported_graph(slipway: Run) -> None:
    slipway("evaluate")
    holdout = pd.read_parquet("build/split/holdout.parquet")
    scores = pd.read_parquet(SCORES)
    np.testing.assert_allclose(scores["champion_loss"], (scores["champion_0"] - holdout["price"]).abs())


@pytest.mark.usefixtures("challenged")
def test_without_a_champion_the_naive_baseline_is_the_reference(slipway: Run) -> None:
    shutil.rmtree("champion")
    Path("champion").mkdir()
    Path("metrics/release.json").write_text('{"champion": null}')
    assert slipway("evaluate").code == 0
    assert slipway("gate").code == 0
    verdict = Verdict.read(Path("metrics/verdict.json"))
    assert (verdict.reference, verdict.verdict, verdict.champion_bundle) == ("baseline", "first", None)


def rewrite(file: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = Path("champion") / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def expect_renamed(schema: dict[str, Any]) -> None:
    schema["columns"][0]["name"] = "sold_on"


def expect_fewer(schema: dict[str, Any]) -> None:
    schema["columns"].pop()


def expect_another_target(schema: dict[str, Any]) -> None:
    schema["target"] = "rent"


class TestChampionsThatCannotBeCompared:
    """The exit code is 2, the error is one sentence, and no evaluation is written."""

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda: Path("champion/model.onnx").write_bytes(b"not a graph"), "champion/model.onnx is corrupt"),
            (
                lambda: Path("champion/model.onnx").write_bytes(Path("champion/model.onnx").read_bytes()[:9000]),
                "champion/model.onnx is corrupt",
            ),
            (lambda: Path("champion/model.onnx").unlink(), "champion/model.onnx is missing"),
            (lambda: Path("champion/schema.json").write_text("{"), "champion/schema.json is corrupt"),
            (lambda: Path("champion/training_rows.npy").write_bytes(b"x"), "champion/training_rows.npy is corrupt"),
            (lambda: rewrite("schema.json", expect_renamed), "champion expects the columns sold_on"),
            (lambda: rewrite("schema.json", expect_fewer), "model.onnx takes"),
            (lambda: rewrite("schema.json", expect_another_target), "is for another task"),
        ],
    )
    @pytest.mark.usefixtures("challenged")
    def test_the_error_names_the_file_or_the_difference(
        self, slipway: Run, spoil: Callable[[], object], words: str
    ) -> None:
        spoil()
        release()
        result = slipway("evaluate")
        assert result.code == 2
        assert words in result.err
        assert result.err.count("\n") == 1
        assert not EVALUATION.exists()

    @pytest.mark.usefixtures("challenged")
    def test_no_pickle_is_loaded(self, slipway: Run) -> None:
        """NumPy saves an array of objects as a pickle, which could execute code."""
        np.save("champion/training_rows.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
        release()
        result = slipway("evaluate")
        assert (result.code, "training_rows.npy is corrupt" in result.err) == (2, True)


def empty() -> None:
    for path in Path("champion").iterdir():
        path.unlink()


def replace() -> None:
    rewrite("golden.json", lambda golden: golden.update(rows=[], predictions=[]))


def forget() -> None:
    Path("metrics/release.json").write_text('{"champion": null}')


@pytest.mark.parametrize(
    ("tamper", "code", "words"),
    [
        (empty, 2, "champion/schema.json is missing"),
        (replace, 1, "but metrics/release.json names"),
        (forget, 1, "names no release"),
    ],
)
@pytest.mark.usefixtures("challenged")
def test_a_champion_other_than_the_released_one_is_rejected(
    slipway: Run, tamper: Callable[[], None], code: int, words: str
) -> None:
    """Otherwise a model could ship because it is better than a weaker champion, or without a comparison."""
    tamper()
    result = slipway("evaluate")
    assert (result.code, words in result.err) == (code, True), result.err
    assert not EVALUATION.exists()


def train_on_a_holdout_row(folder: str) -> pd.DataFrame:
    """Add the eighth row of the holdout to the training rows of a bundle, and return the holdout."""
    holdout = pd.read_parquet("build/split/holdout.parquet")
    path = Path(folder) / bundle.TRAINING_ROWS
    np.save(path, np.sort(np.append(np.load(path), holdout["row_id"].to_numpy()[7])), allow_pickle=False)
    return holdout


@pytest.mark.usefixtures("challenged")
def test_a_challenger_is_not_judged_on_a_row_it_was_trained_on(slipway: Run) -> None:
    holdout = train_on_a_holdout_row("build/bundle")
    result = slipway("evaluate")
    assert result.code == 1
    assert f"build/bundle was trained on 1 of the {len(holdout)} holdout rows" in result.err
    assert not EVALUATION.exists()


@pytest.mark.usefixtures("challenged")
def test_no_model_is_judged_on_a_row_that_the_champion_was_trained_on(slipway: Run) -> None:
    holdout = train_on_a_holdout_row("champion")
    release()
    assert slipway("evaluate").code == 0
    assert list(pd.read_parquet(SCORES)["row_id"]) == list(holdout["row_id"].drop(index=7))


@pytest.mark.usefixtures("challenged")
def test_a_champion_with_another_key_is_rejected(slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key changes all row ids, so the champion's training rows could not be found in the holdout."""
    monkeypatch.setattr(model, "KEY", (*model.KEY, "rooms"))
    for verb in ("validate", "split", "train"):
        assert slipway(verb).code == 0
    result = slipway("evaluate")
    assert (result.code, "keep the KEY and its types" in result.err) == (1, True)


@pytest.mark.usefixtures("challenged")
def test_a_champion_with_row_ids_of_another_version_is_rejected(slipway: Run) -> None:
    """Its training rows could not be found in the holdout."""
    edit(Path("champion/schema.json"), '"row_ids": "1: ', '"row_ids": "0: ')
    release()
    result = slipway("evaluate")
    assert (result.code, "rows of the holdout that it was trained on cannot be found" in result.err) == (1, True)


@pytest.mark.usefixtures("challenged")
def test_the_gate_counts_the_groups_of_the_split(slipway: Run) -> None:
    edit(Path("params.yaml"), "by: time", "by: group\n  column: longitude")
    for verb in ("split", "train"):
        assert slipway(verb).code == 0
    empty()
    Path("metrics/release.json").write_text('{"champion": null}')
    for verb in ("evaluate", "gate"):
        assert slipway(verb).code == 0
    comparison = Verdict.read(Path("metrics/verdict.json")).comparison
    assert comparison
    assert comparison.groups == pd.read_parquet("build/split/holdout.parquet")["longitude"].nunique()


@pytest.mark.usefixtures("challenged")
def test_a_percentage_error_with_a_truth_of_0_is_rejected(slipway: Run) -> None:
    edit(Path("params.yaml"), "loss: mean_absolute_error", "loss: mean_absolute_percentage_error")
    assert slipway("evaluate").code == 0
    holdout = pd.read_parquet("build/split/holdout.parquet")
    holdout.loc[3, "price"] = 0
    holdout.to_parquet("build/split/holdout.parquet")
    result = slipway("evaluate")
    assert (result.code, "is undefined for" in result.err) == (2, True)


@pytest.mark.parametrize("verb", ["split", "train", "evaluate", "gate"])
@pytest.mark.usefixtures("workplace")
def test_a_stage_without_the_output_of_the_previous_one_names_the_missing_file(slipway: Run, verb: str) -> None:
    result = slipway(verb)
    assert result.code == 2
    assert "missing" in result.err
    assert "dvc" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.usefixtures("challenged")
def test_after_the_holdout_grows_training_rows_of_the_champion_are_left_out_until_a_release(slipway: Run) -> None:
    unseen = len(pd.read_parquet("build/split/holdout.parquet"))
    edit(Path("params.yaml"), "days: 20", "days: 40")
    for verb in ("split", "train", "evaluate", "gate"):
        assert slipway(verb).code == 0
    evaluation = Evaluation.read(EVALUATION)
    held_out = len(pd.read_parquet("build/split/holdout.parquet"))
    assert held_out > unseen
    assert (evaluation.holdout.rows, evaluation.holdout.left_out) == (unseen, held_out - unseen)
    assert len(pd.read_parquet(SCORES)) == unseen
    held = Verdict.read(VERDICT)
    assert held.verdict == "hold"
    assert "more were held out and do not count" in held.reason
    assert "after a raised split.days, accept a small loss by a negative gate.margin" in held.reason

    edit(Path("params.yaml"), "  margin: 0 #", "  margin: -0.5\n  margin_reason: a larger holdout #")
    edit(Path("params.yaml"), "    margin: 0.05", "    margin: 0.9")
    assert slipway("gate").code == 0
    shipped = Verdict.read(VERDICT)
    assert shipped.verdict == "ship", shipped.reason
    shutil.copytree("build/bundle", "champion", dirs_exist_ok=True)
    release()
    edit(Path("params.yaml"), "max_iter: 30", "max_iter: 31")
    for verb in ("train", "evaluate"):
        assert slipway(verb).code == 0
    counted = Evaluation.read(EVALUATION).holdout
    assert (counted.rows, counted.left_out) == (held_out, 0)


@pytest.mark.usefixtures("challenged")
def test_a_holdout_of_only_training_rows_of_the_champion_is_rejected(slipway: Run) -> None:
    """A change of the split can cause it, and no row is left for a comparison."""
    holdout = pd.read_parquet("build/split/holdout.parquet")
    np.save(Path("champion") / bundle.TRAINING_ROWS, np.sort(holdout["row_id"].to_numpy()), allow_pickle=False)
    release()
    result = slipway("evaluate")
    assert (result.code, "champion was trained on every one of the" in result.err) == (1, True)


@pytest.mark.usefixtures("challenged")
def test_a_model_that_predicts_nan_is_rejected(slipway: Run) -> None:
    import onnx

    path = Path("build/bundle/model.onnx")
    model = onnx.load(path)
    (trees,) = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    (weights,) = [attribute for attribute in trees.attribute if attribute.name == "leaf_weights"]
    weights.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights.t) * np.nan))
    onnx.save(model, path)
    result = slipway("evaluate")
    assert (result.code, "predicts an infinite or missing value" in result.err) == (1, True)


@pytest.mark.usefixtures("challenged")
def test_a_model_is_held_if_the_holdout_is_too_small(slipway: Run) -> None:
    edit(Path("params.yaml"), "minimum_rows: 50", "minimum_rows: 5000")
    edit(Path("params.yaml"), "max_iter: 30", "max_iter: 31")
    for verb in ("train", "evaluate", "gate"):
        assert slipway(verb).code == 0
    result = slipway("verdict")
    assert result.code == 1
    assert "are too few to judge; gate.minimum_rows asks for 5,000" in result.out

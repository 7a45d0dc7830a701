"""The seam: another model, another task, data without time; and not a line of src/slipway changes."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from conftest import Repository
from slipway import bundle
from slipway.artifacts import BUNDLE, EVALUATION, VERDICT, Evaluation, Parity, Verdict

PARAMS = """
task: {kind: classification, loss: log_loss, rows_are: tumours}
validate: {most_at_fault: 0.1}
split: {by: key, share: 0.4}
train: {seed: 0, threads: 1, parity_tolerance: 1.0e-3, settings: {C: 1.0}}
evaluate: {slices: {mean_radius: [12, 16]}}
gate:
  seed: 0
  confidence: 0.95
  resamples: 5000
  margin: 0
  minimum_rows: 50
  same_within: 1.0e-5
  floors: {balanced_accuracy: {at_least: 0.9}}
  slices: {minimum_rows: 30, margin: 0.5}
drift: {confidence: 0.99, psi: 0.1, minimum_rows: 200, prometheus: null, replicas: '', window: 1d}
decay: {confidence: 0.95, margin: 0.1, bias: 0.05, minimum_rows: 30}
record: {experiment: tumours}
release: {image: localhost:1/team/tumours, deploy: agent, patience: 60, urls: {}}
ingest: {source: sample/source}
"""


def verdict(fork: Repository) -> Verdict:
    return Verdict.read(fork.path / VERDICT)


def repro(fork: Repository) -> Verdict:
    fork.must("dvc", "repro")
    return verdict(fork)


def shown(fork: Repository) -> str:
    """What a reviewer sees; each chart is drawn, too."""
    fork.must("slipway", "report")
    assert (fork.path / "build/report/answers-dark.svg").is_file()
    return (fork.path / "build/report/report.md").read_text()


@pytest.fixture
def fork(origin: Repository, tmp_path: Path) -> Repository:
    """A clone with its model, data, params and champion replaced, and the machinery as it is."""
    fork = origin.clone(tmp_path / "fork")
    shutil.rmtree(fork.path / "src/model")
    shutil.copytree(Path(__file__).parent / "tumour_model", fork.path / "src/model")
    (fork.path / "params.yaml").write_text(PARAMS)
    (fork.path / "metrics/release.json").write_text('{"champion": null}')
    for folder in ("data", "champion", "sample/source"):
        shutil.rmtree(fork.path / folder, ignore_errors=True)
        (fork.path / folder).mkdir(parents=True)
    cancer = load_breast_cancer()
    tumours = pd.DataFrame(cancer.data, columns=[name.replace(" ", "_") for name in cancer.feature_names])
    tumours.insert(0, "diagnosis", cancer.target_names[cancer.target])
    tumours.insert(0, "sample", [f"s{number:03}" for number in range(len(tumours))])
    tumours[:300].to_csv(fork.path / "data/first.csv", index=False)
    tumours[300:].to_csv(fork.path / "sample/source/second.csv", index=False)
    fork.must("dvc", "add", "--quiet", "data", "champion")
    return fork


def test_a_second_model_goes_the_same_way(fork: Repository) -> None:
    first = repro(fork)
    assert first.verdict == "first"
    assert "log loss falls by 0." in first.reason
    assert Parity.read(fork.path / "build/parity.json").rows_beyond_tolerance == 0
    loaded = bundle.load_bundle(fork.path / BUNDLE)
    assert loaded.schema.classes == ("benign", "malignant")
    assert [each.name for each in loaded.session.get_inputs()] == ["numbers"]
    assert shown(fork).startswith("**FIRST**: there is no champion yet")
    fork.commit("A first model")
    fork.must("slipway", "candidate", MLFLOW_TRACKING_URI="")
    assert repro(fork).verdict == "unchanged"

    fork.must("slipway", "ingest")
    delivered = repro(fork)
    evaluation = Evaluation.read(fork.path / EVALUATION)
    assert delivered.rival == "champion"
    assert delivered.holdout.first is None
    assert evaluation.champion
    assert evaluation.challenger.metrics["balanced_accuracy"] > 0.9
    assert {part.value for part in evaluation.slices} == {"under 12", "12 to 16", "16 or more"}

    assert "How often answers of some certainty are right" in shown(fork)

    params = fork.path / "params.yaml"
    params.write_text(re.sub(r"C: [0-9.]+", "C: 0.001", params.read_text()))
    worse = repro(fork)
    assert worse.verdict == "hold"
    assert "balanced accuracy is 0.8" in worse.reason

    fork.commit("A worse model")
    fork.must("slipway", "record", MLFLOW_TRACKING_URI="")
    assert (fork.path / "mlflow.db").is_file()
    changed = fork.must("git", "diff", "--stat", "origin/main", "--", "src/slipway")
    assert changed == ""

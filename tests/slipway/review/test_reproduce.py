"""`slipway reproduce` and the report on its result, with git and DVC in temporary clones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.artifacts import BUNDLE, VERDICT, Verdict
from slipway.bundle import folder_hash
from slipway.review.report import REPORT, Report, read_report
from slipway.review.reproduce import STOPPED, stage_and_reason
from tests.slipway.conftest import Repository

Clone = Callable[[str], Repository]


def reported(repository: Repository) -> Report:
    repository.must("slipway", "report")
    return read_report(repository.path / REPORT)


def stopped(repository: Repository, stage: str) -> tuple[str, str, Report]:
    """Run a pipeline that stops at a stage. Return the error, the reason in the report, and the report."""
    result = repository.run("slipway", "reproduce")
    assert result.code == 1
    report = reported(repository)
    assert report.stopped
    assert report.stopped.stage == stage
    return result.err, report.stopped.reason, report


@pytest.fixture
def delivery(judged: Clone, tmp_path: Path) -> tuple[Repository, str]:
    """Return a change that adds 1997H2 without pipeline results, and a remote that has its run-cache."""
    known = judged("known")
    remote = str(tmp_path / "remote")
    known.must("dvc", "remote", "add", "--local", "shared", remote)
    known.must("dvc", "push", "--quiet", "--run-cache", "--remote", "shared")
    known.must("git", "checkout", "--quiet", "dvc.lock", "metrics")
    known.commit("Take in 1997H2")
    return known, remote


def test_a_delivery_is_restored_from_the_run_cache_of_an_external_remote(
    delivery: tuple[Repository, str], clone: Clone
) -> None:
    known, remote = delivery
    fresh = clone("fresh")
    fresh.must("git", "pull", "--quiet", str(known.path), "main")
    fresh.must("dvc", "remote", "add", "--local", "--default", "shared", remote)
    output = fresh.must("slipway", "reproduce")
    assert "Running stage 'train'" not in output, output
    assert not (fresh.path / STOPPED).exists()
    assert reported(fresh).changes.deliveries is None  # the data of the base was not pushed
    assert "are not in the DVC remote" in (fresh.path / "build/report/report.md").read_text()

    known.must("dvc", "push", "--quiet", "--all-commits", "--remote", "shared")
    report = reported(fresh)
    assert report.result
    assert (report.result.verdict.verdict, report.held) == ("ship", False)
    assert report.revision.lock == "not in this change"
    assert report.changes.deliveries
    (arrived,) = report.changes.deliveries
    assert (arrived.name, arrived.change, arrived.added, arrived.removed) == ("1997H2", "added", 2694, 0)
    assert arrived.quarantined == sum(arrived.reasons.values()) == 30
    assert {each.column for each in report.changes.drift} >= {"living_area_sqft", "wall", "price"}
    (live,) = report.changes.decay
    assert (live.delivery, live.alarm, "from $11,644 at release" in live.reason) == ("1997H2", False, True)
    assert not report.changes.parameters
    assert report.changes.model
    assert not report.changes.files
    assert not report.changes.rules
    main = next(row for row in report.result.metrics if row.metric == "mean_absolute_error")
    assert report.result.verdict.comparison
    low, high = report.result.verdict.comparison.interval
    assert main.interval == (-high, -low)
    for row in report.result.metrics:
        assert row.interval
        assert row.champion is not None
        assert row.interval[0] <= row.challenger - row.champion <= row.interval[1], row.metric

    # The author commits the results, which are then verified.
    fresh.commit("Commit the run")
    assert reported(fresh).revision.lock == "as committed"


def test_results_committed_in_a_change_are_ignored(delivered: Repository, judged: Clone) -> None:
    """The change has a held model, and a forged verdict, dvc.lock and run-cache."""
    forger = judged("forger")
    forger.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    honest = delivered.path / BUNDLE
    forger.must("dvc", "repro", "--quiet")
    weak = folder_hash(forger.path / BUNDLE)
    # Commit the bundle of the strong model as the result of the weak settings.
    forger.must("cp", "-r", "--remove-destination", f"{honest}/.", str(BUNDLE))
    forger.must("dvc", "commit", "--quiet", "--force", "train")
    forger.must("dvc", "repro", "--quiet", "evaluate", "gate")
    assert Verdict.read(forger.path / VERDICT).verdict == "ship"
    forger.must("dvc", "push", "--quiet", "--run-cache")
    assert (forger.path / "sample/remote/runs").is_dir()
    forger.commit("An honest improvement")

    forger.must("rm", "-rf", ".dvc/cache", "build", "data", "champion")
    result = forger.run("slipway", "reproduce")
    assert result.code == 0, result.err
    assert folder_hash(forger.path / BUNDLE) == weak
    report = reported(forger)
    assert report.held
    assert report.revision.lock == "not as committed"
    (change,) = report.changes.parameters
    assert (change.key, change.old, change.new) == ("train.settings.max_iter", "200", "20")
    text = (forger.path / "build/report/report.md").read_text()
    assert text.startswith("**HOLD**: mean absolute error rises by")
    assert "The pipeline writes another dvc.lock than the one in this change" in text


def test_a_parameter_that_the_pipeline_does_not_read_does_not_change_the_model(clone: Clone) -> None:
    repository = clone("settings")
    repository.must("git", "switch", "--quiet", "--create", "settings")
    repository.edit("params.yaml", "timeout_seconds: 600", "timeout_seconds: 500")
    repository.commit("Wait less")
    repository.must("slipway", "reproduce")
    left_alone = reported(repository).changes
    assert ([each.key for each in left_alone.parameters], left_alone.model) == (["release.timeout_seconds"], False)
    repository.edit("params.yaml", "minimum_rows: 300", "minimum_rows: 400")
    repository.commit("Ask for more rows")
    repository.must("slipway", "reproduce")
    assert reported(repository).changes.model


def test_a_change_of_the_champion_is_refused(clone: Clone) -> None:
    repository = clone("usurper")
    release = json.loads((repository.path / "metrics/release.json").read_text())
    (repository.path / "metrics/release.json").write_text(json.dumps({**release, "value": 1e9}))
    repository.commit("Make the champion look weak")
    error, _, report = stopped(repository, "reproduce")
    assert "metrics/release.json is changed here, but only a release may change which model is live" in error
    assert report.held


def test_a_stopped_pipeline_is_reported_with_its_error_and_deliveries(clone: Clone) -> None:
    repository = clone("faulty")
    repository.must("dvc", "pull", "--quiet", "data.dvc")
    source = repository.path / "sample/source/1997H2.csv"
    header, *rows = source.read_text().splitlines()
    (repository.path / "data/1997H2.csv").write_text("\n".join([header.replace("price", "cost"), *rows]) + "\n")
    repository.must("dvc", "add", "--quiet", "data")
    repository.commit("Take in 1997H2 by hand")
    _, reason, _ = stopped(repository, "validate")
    assert "price" in reason
    text = (repository.path / "build/report/report.md").read_text()
    assert text.startswith("**NO VERDICT**: validate stopped:")
    assert f"| 1997H2 | added | +{len(rows):,} / -0 |" in text
    assert "No data, parameter or code" not in text
    assert "NO VERDICT" in (repository.path / "build/report/report.html").read_text()


def test_data_in_git_instead_of_dvc_is_reported(clone: Clone) -> None:
    repository = clone("in-git")
    repository.must("dvc", "pull", "--quiet", "data.dvc")
    repository.must("git", "rm", "--quiet", "data.dvc")
    with (repository.path / "data/1997H1.csv").open("a") as delivery:
        delivery.write("a row\n")
    repository.must("git", "add", "--force", "data")
    repository.commit("Keep the data in Git")
    error, _, _ = stopped(repository, "reproduce")
    assert "data.dvc" in error
    assert "| 1997H1 | changed | +1 / -0 |" in (repository.path / "build/report/report.md").read_text()


def test_data_that_was_not_pushed_is_reported_with_the_cure(clone: Clone) -> None:
    repository = clone("unpushed")
    repository.must("git", "rm", "-r", "--quiet", "sample/remote")
    repository.commit("Lose the remote")
    error, reason, _ = stopped(repository, "reproduce")
    assert "`dvc pull data.dvc champion.dvc` failed: failed to pull data from the cloud" in error
    assert "run `dvc push` where it is" in error
    assert "failed to pull data" in reason


def test_invalid_parameters_are_reported(clone: Clone) -> None:
    repository = clone("unreadable")
    repository.edit("params.yaml", "kind: regression", "kind: [regression")
    repository.commit("Break")
    assert repository.run("slipway", "reproduce").code == 1
    report = reported(repository)
    assert report.stopped
    assert "params.yaml" in report.stopped.reason
    assert report.held


def test_changed_rules_are_reported_even_after_an_interruption(clone: Clone) -> None:
    """A run that is killed leaves no verdict, even if one came with the change."""
    repository = clone("lenient")
    repository.edit("params.yaml", "confidence: 0.95\n  margin: 0 ", "confidence: 0.5\n  margin: 0 ")
    repository.edit("src/slipway/statistics/blocks.py", "MINIMUM_PARTS = 10", "MINIMUM_PARTS = 2")
    repository.commit("Be lenient")
    (repository.path / "build").mkdir()
    (repository.path / STOPPED).write_text('{"stage": "reproduce", "reason": "it was interrupted"}')
    report = reported(repository)
    assert report.result is None
    assert report.changes.rules == ("gate.confidence", "src/slipway/statistics/blocks.py")


@pytest.mark.parametrize(
    ("output", "stage", "reason"),
    [
        (
            "Running stage 'train':\n> slipway train\nslipway: fit failed; do so.\nERROR: failed",
            "train",
            "fit failed; do so.",
        ),
        ("ERROR: Could not acquire lock", "dvc", "Could not acquire lock"),
        ("", "dvc", "it printed nothing"),
    ],
)
def test_stage_and_reason_come_from_the_output_of_dvc(output: str, stage: str, reason: str) -> None:
    assert stage_and_reason(output) == (stage, reason)

"""Each model that is judged on a holdout is counted, and widens the interval of the next one."""

import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from slipway.artifacts import EVALUATION, RELEASE, SCORES, VERDICT, Holdout, Release, Verdict
from slipway.pipeline import gate
from slipway.pipeline.parquet import write_table
from slipway.review.looks import Look, line_about, looks_in, number_of
from slipway.review.reproduce import count_looks
from tests.slipway.conftest import ROOT
from tests.slipway.pipeline.test_gate import PARAMS, contest

A, B, C, D = (letter * 32 for letter in "abcd")
SPRING = Holdout(rows=900, first=date(2026, 3, 1), last=date(2026, 5, 31))
Judge = Callable[..., Verdict]


def message(bundle: str, holdout: Holdout = SPRING) -> str:
    days = f" from {holdout.first} to {holdout.last}" if holdout.first else ""
    return f"Add the charts of 7/a1\n\nJudged: {bundle}{days}\n"


def holdout(first: date | None, last: date | None) -> Holdout:
    return Holdout(rows=900, first=first, last=last)


def verdict(bundle: str = A, kind: str = "hold", of: Holdout = SPRING) -> Verdict:
    scores, evaluation = contest(gain=0.1, challenger=bundle)
    found = gate.judge(scores, evaluation, Release(champion=None), PARAMS)
    return found.model_copy(update={"verdict": kind, "holdout": of})


def test_a_message_names_the_model_and_its_holdout() -> None:
    for of in (SPRING, holdout(None, None)):
        (look,) = looks_in([f"Add the charts of 7/a1\n\n{line_about(verdict(of=of))}\n"])
        assert look == Look(A, of.first, of.last)


@pytest.mark.parametrize("bundle", ["", "a" * 31, f"{A}\nJudged: {B}", "A" * 32])
def test_an_invalid_bundle_in_a_report_is_not_recorded(bundle: str) -> None:
    assert line_about(verdict(bundle)) == ""


def test_a_model_that_is_equal_to_the_champion_does_not_count() -> None:
    assert line_about(verdict(kind="unchanged")) == ""
    assert looks_in(["Add the charts of 7/a1", f"Judged: {A[1:]}"]) == []


def test_each_other_model_that_was_judged_before_counts_as_a_look() -> None:
    log = looks_in([message(A), message(B), message(A), message(C), message(B)])
    assert [number_of(log, bundle, SPRING) for bundle in (A, B, C, D)] == [1, 2, 3, 4]
    assert number_of(looks_in([]), A, SPRING) == 1


@pytest.mark.parametrize(
    ("first", "last", "number"),
    [
        (date(2026, 6, 1), date(2026, 8, 31), 1),  # a later delivery
        (date(2026, 5, 31), date(2026, 7, 30), 3),  # some of the rows are the same
        (date(2025, 6, 1), date(2026, 2, 28), 1),
        (None, None, 3),
    ],
)
def test_newer_days_start_a_new_count(first: date | None, last: date | None, number: int) -> None:
    log = looks_in([message(A), message(B)])
    assert number_of(log, C, holdout(first, last)) == number


def test_a_look_without_days_counts_for_every_holdout() -> None:
    assert number_of(looks_in([f"Judged: {A}"]), B, SPRING) == 2


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judge a model that is just significantly better, after others that the branch `reports` of origin has."""
    monkeypatch.chdir(tmp_path)

    def git(*command: str) -> str:
        identity = ["-c", "user.name=T", "-c", "user.email=t@localhost"]
        return subprocess.run(
            ["git", *identity, *command], capture_output=True, text=True, check=True, input=""
        ).stdout.strip()

    def run(*before: str, setting: str = "  count_looks: true\n", challenger: str = D) -> Verdict:
        git("init", "--quiet")
        git("commit", "--quiet", "--allow-empty", "-m", "Start")
        parent: list[str] = []
        for bundle in before:
            tree = git("hash-object", "-t", "tree", "-w", "--stdin")
            parent = ["-p", git("commit-tree", tree, *parent, "-m", message(bundle, evaluation.holdout))]
        if parent:
            git("update-ref", "refs/remotes/origin/reports", parent[1])
        text = (ROOT / "params.yaml").read_text().replace("gate:\n", f"gate:\n{setting}", 1)
        Path("params.yaml").write_text(text.replace("r_squared: {at_least: 0.6}", "{}"))
        named = evaluation.challenger.model_copy(update={"bundle": challenger})
        evaluation.model_copy(update={"challenger": named}).write(EVALUATION)
        gate.run(params)
        count_looks()
        return Verdict.read(VERDICT)

    scores, evaluation = contest(gain=0.1, noise=1.2)  # 2.6 standard errors
    params = PARAMS.model_copy(update={"gate": PARAMS.gate.model_copy(update={"floors": {}})})
    SCORES.parent.mkdir(parents=True)
    write_table(SCORES, scores)
    Release(champion="old").write(RELEASE)
    return run


def test_a_model_that_would_ship_is_held_after_many_looks(judge: Judge) -> None:
    alone = judge()
    assert (alone.verdict, alone.look) == ("ship", 1)
    assert '"look"' not in VERDICT.read_text()
    after = judge(A, B, A, C)
    assert (after.verdict, after.look) == ("hold", 4)
    assert "that does not show an improvement" in after.reason
    assert after.reason.endswith("; 3 other models were judged on this holdout before, so the interval is wider")
    assert after.comparison
    assert alone.comparison
    assert after.comparison.interval
    assert alone.comparison.interval
    assert after.comparison.interval[0] < 0 < alone.comparison.interval[0]
    assert after.comparison.difference == alone.comparison.difference


def test_a_model_that_was_judged_before_the_others_keeps_its_number(judge: Judge) -> None:
    """So a release does not hold a model because other pull requests were judged after its review."""
    assert (judge(D, A, B, C).verdict, judge(D, A, B, C).look) == ("ship", 1)


def test_looks_are_not_counted_unless_params_yaml_asks_for_it(judge: Judge) -> None:
    assert (judge(A, B, C, setting="").verdict, judge(A, B, C, setting="").look) == ("ship", 1)


def test_a_model_that_is_equal_to_the_champion_stays_unchanged(judge: Judge) -> None:
    assert judge(A, B, C, challenger="old").verdict == "unchanged"

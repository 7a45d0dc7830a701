"""A report, and a fake of GitHub."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub, State
from slipway import artifacts
from slipway.artifacts import Evaluation, Latency, Parity, Verdict
from slipway.review.report import (
    Changes,
    DecayCheck,
    DeliveryChange,
    FeatureDrift,
    FileChange,
    MetricRow,
    ParameterChange,
    PeriodLoss,
    PipelineResult,
    Point,
    Report,
    Revision,
)
from tests.slipway.conftest import ROOT

HEAD = "a1" * 20
PULL = 7


@pytest.fixture
def report() -> Report:
    """A report on pull request 7, with the committed evaluation and verdict."""
    verdict, evaluation = Verdict.read(ROOT / artifacts.VERDICT), Evaluation.read(ROOT / artifacts.EVALUATION)
    champion, challenger = evaluation.champion, evaluation.challenger
    return Report(
        pull_request=PULL,
        revision=Revision(commit="c0" * 20, head=HEAD, base="b0" * 20, data="d0" * 16, lock="not in this change"),
        changes=Changes(
            parameters=(ParameterChange(key="model.max_iter", old="200", new="300"),),
            deliveries=(
                DeliveryChange(
                    name="1997H2", change="added", added=1200, removed=0, quarantined=3, reasons={"no price": 3}
                ),
            ),
            drift=(FeatureDrift(column="rooms", psi=0.02, missing_before=0.0, missing_now=0.01),),
            decay=(DecayCheck(delivery="1997H2", alarm=True, reason="answers are too low by $9"),),
            files=(FileChange(path="src/model/train.py", added=3, removed=1),),
            rules=(),
        ),
        override=None,
        result=PipelineResult(
            verdict=verdict,
            evaluation=evaluation,
            latency=Latency(champion=31.0, challenger=32.0),
            parity=Parity(rows=1000, tolerance=1e-4, largest_relative_difference=3e-6, rows_beyond_tolerance=0),
            metrics=tuple(
                MetricRow(
                    metric=name,
                    champion=champion.metrics[name] if champion else None,
                    challenger=value,
                    baseline=evaluation.baseline.metrics[name],
                    interval=None,
                )
                for name, value in challenger.metrics.items()
            ),
            periods=tuple(
                PeriodLoss(first=date(1997, month, 1), rows=100, champion=900.0 + month, challenger=800.0 + month)
                for month in (5, 6, 7)
            ),
            points=tuple(Point(actual=each, champion=each * 1.1, challenger=each * 0.95) for each in (1e4, 5e4, 9e4)),
            unit="$",
            row_noun="sales",
        ),
        stopped=None,
    )


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    """A fake of GitHub with one open pull request, 7, from a branch of the repository itself."""
    state = State(pulls={str(PULL): {"head": HEAD, "from": "team/houses"}})
    folder = tmp_path / "github"
    folder.mkdir()
    with GitHub(state, folder).serving() as server:
        yield server

"""The report: all that a reviewer is shown, as data. Words, tables and pictures are made of it elsewhere.

It crosses from a run that anybody can start to one that may write to pull requests, so it is read there as a
stranger's: bounded in size, of these types and no others, and never as markup.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from slipway.artifacts import Artifact, Evaluation, Latency, Parity, Verdict
from slipway.errors import InputError

FOLDER = Path("build/report")
REPORT = FOLDER / "report.json"
MOST_BYTES = 2_000_000

Name = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2_000)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class MetricRow(Artifact):
    """A metric of both models and the baseline; the interval is of challenger minus champion."""

    metric: Name
    champion: float | None
    challenger: float
    baseline: float
    interval: tuple[float, float] | None


class ParameterChange(Artifact):
    """`old` or `new` is None where the key is not there."""

    key: Name
    old: Name | None
    new: Name | None


class DeliveryChange(Artifact):
    """A delivery that is not as it was. `reasons`: how many of its rows were quarantined for each."""

    name: Name
    change: Literal["added", "changed", "removed"]
    added: Annotated[int, Field(ge=0)]
    removed: Annotated[int, Field(ge=0)]
    quarantined: Annotated[int, Field(ge=0)]
    reasons: dict[Name, int] = Field(max_length=100)


class FeatureDrift(Artifact):
    """How far a column of the new rows lies from the old ones: `slipway.statistics.psi.population_stability`."""

    column: Name
    psi: float
    missing_before: float
    missing_now: float


class LiveModel(Artifact):
    """Whether the live model has decayed on a delivery that is added, and why: `slipway.pipeline.decay`."""

    delivery: Name
    alarm: bool
    reason: Sentence


class FileChange(Artifact):
    """A file that the pipeline depends on; None for the lines of a binary one."""

    path: Name
    added: int | None
    removed: int | None


class PeriodError(Artifact):
    """The mean loss of both models on a part of the holdout's time."""

    first: date
    rows: int
    champion: float | None
    challenger: float


class Point(Artifact):
    """A holdout row: the truth, and what each model answers.

    For a classification a tenth of the rows, by how certain one model is of its answers: the share that is right, and
    how certain it was.
    """

    actual: float
    champion: float | None
    challenger: float | None


class Override(Artifact):
    """A maintainer has said that a model ships though it is held."""

    by: Name
    at: datetime


class Stopped(Artifact):
    """The pipeline gave no verdict: the stage at which it stopped, and its last words."""

    stage: Name
    words: Sentence


class Judged(Artifact):
    """What the pipeline gave."""

    verdict: Verdict
    evaluation: Evaluation
    latency: Latency
    parity: Parity
    metrics: tuple[MetricRow, ...] = Field(max_length=50)
    periods: tuple[PeriodError, ...] = Field(max_length=60)
    points: tuple[Point, ...] = Field(max_length=500)
    unit: Annotated[str, Field(max_length=10)]
    row_noun: Annotated[str, Field(max_length=50)]


class Changes(Artifact):
    """What differs from the base. `rules` names what it is judged by and has changed.

    `deliveries` is None where the data of the base cannot be had.
    """

    parameters: tuple[ParameterChange, ...] = Field(max_length=500)
    deliveries: Annotated[tuple[DeliveryChange, ...], Field(max_length=500)] | None
    drift: tuple[FeatureDrift, ...] = Field(max_length=2_000)
    decay: tuple[LiveModel, ...] = Field(default=(), max_length=500)
    files: tuple[FileChange, ...] = Field(max_length=500)
    rules: tuple[Name, ...] = Field(max_length=500)


class Lineage(Artifact):
    """What was judged, and against what."""

    commit: Sha
    """What was checked out: for a pull request, its merge into the base."""
    head: Sha
    """The last commit of the pull request."""
    base: Sha
    data: Hash | None
    lock: Literal["as committed", "not as committed", "not in this change"]
    """Whether the pipeline gives the dvc.lock that the change has."""


class Report(Artifact):
    """One of `judged` and `stopped` is there."""

    pull_request: Annotated[int, Field(gt=0)] | None
    lineage: Lineage
    changes: Changes
    override: Override | None
    judged: Judged | None
    stopped: Stopped | None

    @property
    def held(self) -> bool:
        """Whether there is no model that may be merged as it is."""
        return self.judged is None or self.judged.verdict.verdict == "hold"


def read_report(path: Path = REPORT) -> Report:
    """The report that `slipway report` wrote, perhaps in a run of strangers; raises InputError for anything else."""
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} is missing; `slipway report` writes it.")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise InputError(f"{path} has {size:,} bytes and a report at most {MOST_BYTES:,}; it is not read.")
    try:
        report = Report.model_validate_json(path.read_bytes())
        report = Report.model_validate_json(report.model_dump_json())  # where what is not finite is null, and no number
    except ValidationError as error:
        where = ascii(".".join(str(each) for each in error.errors()[0]["loc"]))[1:-1][:200]  # a log obeys some lines
        raise InputError(
            f"{path}: {where or 'the file'} is not as `slipway report` writes it; it is not read."
        ) from None
    if (report.judged is None) == (report.stopped is None):
        raise InputError(f"{path} must say either a verdict or where the pipeline stopped; it is not read.")
    return report

"""The report as data: everything that a reviewer sees. Other modules turn it into text, tables and charts.

Any user can start the run that writes it, and another run, which may write to pull requests, reads it. So it is read as
untrusted input: bounded in size, of these types only, and never as markup.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from slipway.artifacts import Artifact, Evaluation, Latency, Parity, Verdict
from slipway.errors import InputError
from slipway.integrations.actions import Sha

FOLDER = Path("build/report")
REPORT = FOLDER / "report.json"
MAX_BYTES = 2_000_000
ACCEPTED = "accepted"
"""The effect on old requests of a changed field that does not refuse them."""

Name = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2_000)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class MetricRow(Artifact):
    """One metric of both models and the baseline. `interval` is that of challenger minus champion."""

    metric: Name
    champion: float | None
    challenger: float
    baseline: float
    interval: tuple[float, float] | None


class ParameterChange(Artifact):
    """A changed key of params.yaml. `old` or `new` is None where the key does not exist."""

    key: Name
    old: Name | None
    new: Name | None


class DeliveryChange(Artifact):
    """A delivery that differs from the base branch: rows added and removed.

    `quarantined` is the number of its rows in quarantine, and `reasons` counts them by reason. Both are None and empty
    if the delivery was not validated.
    """

    name: Name
    change: Literal["added", "changed", "removed"]
    added: Annotated[int, Field(ge=0)]
    removed: Annotated[int, Field(ge=0)]
    quarantined: Annotated[int, Field(ge=0)] | None
    reasons: dict[Name, int] = Field(max_length=100)


class FeatureDrift(Artifact):
    """The population stability index of a column between the new deliveries and the others, and the missing shares."""

    column: Name
    psi: float
    missing_before: float
    missing_now: float


class DecayCheck(Artifact):
    """The check of the champion for decay on an added delivery, and the sentence that explains it."""

    delivery: Name
    alarm: bool
    reason: Sentence


class FileChange(Artifact):
    """A changed file that the pipeline depends on. The numbers of lines are None for a binary file."""

    path: Name
    added: int | None
    removed: int | None


class PeriodLoss(Artifact):
    """The mean loss of both models in one period of the holdout."""

    first: date
    rows: int
    champion: float | None
    challenger: float


class Point(Artifact):
    """Regression: the truth of one holdout row, and the prediction of each model.

    Classification: a tenth of the rows by the certainty of one model. `actual` is the share of correct predictions, the
    model's field its mean certainty.
    """

    actual: float
    champion: float | None
    challenger: float | None


class Override(Artifact):
    """The maintainer who overruled the gate with the label `ship-anyway`, and when."""

    by: Name
    at: datetime


class Stopped(Artifact):
    """The stage at which the pipeline stopped without a verdict, and its error."""

    stage: Name
    reason: Sentence


class FieldChange(Artifact):
    """A change of a field of requests, and the effect on requests that were valid before."""

    field: Name
    change: Sentence
    old_requests: Name


class ClientChanges(Artifact):
    """The changes for clients, and how many of the champion's golden records the challenger refuses."""

    fields: tuple[FieldChange, ...] = Field(max_length=2_000)
    records: int
    refused: int
    reason: Sentence | None


class PipelineResult(Artifact):
    """The verdict, and what the pipeline measured for it."""

    verdict: Verdict
    evaluation: Evaluation
    latency: Latency
    parity: Parity
    metrics: tuple[MetricRow, ...] = Field(max_length=50)
    periods: tuple[PeriodLoss, ...] = Field(max_length=60)
    points: tuple[Point, ...] = Field(max_length=500)
    clients: ClientChanges | None = None
    """None if clients can send the same requests as before."""
    unit: Annotated[str, Field(max_length=10)]
    row_noun: Annotated[str, Field(max_length=50)]


class Changes(Artifact):
    """The differences from the base branch.

    `deliveries` is None if the data before or after the change is not available. `rules` names the changed parameters
    and files by which the gate judges. `model` is false if nothing that the pipeline reads has changed.
    """

    parameters: tuple[ParameterChange, ...] = Field(max_length=500)
    deliveries: Annotated[tuple[DeliveryChange, ...], Field(max_length=500)] | None
    drift: tuple[FeatureDrift, ...] = Field(max_length=2_000)
    decay: tuple[DecayCheck, ...] = Field(default=(), max_length=500)
    files: tuple[FileChange, ...] = Field(max_length=500)
    rules: tuple[Name, ...] = Field(max_length=500)
    model: bool = True


class Revision(Artifact):
    """The commits and the data that the report is about."""

    commit: Sha
    """The commit that was checked out. For a pull request it is the merge with the base branch."""
    head: Sha
    """The last commit of the pull request."""
    base: Sha
    data: Hash | None
    lock: Literal["as committed", "not as committed", "not in this change"]
    """Compares the dvc.lock that the change committed with the one that the pipeline writes."""


class Report(Artifact):
    """A report on a change. It has either a `result` or the place where the pipeline `stopped`.

    `lands` is true if the data of a delivery may be merged though its model is held. `waits` is the reason if it may
    not, although `ingest.when_held` is `land`.
    """

    pull_request: Annotated[int, Field(gt=0)] | None
    revision: Revision
    changes: Changes
    override: Override | None
    result: PipelineResult | None
    stopped: Stopped | None
    lands: bool = False
    waits: Sentence | None = None

    @property
    def held(self) -> bool:
        """True if no model may be merged, unless a maintainer overrules the gate."""
        return self.result is None or self.result.verdict.verdict == "hold"

    @property
    def champion_stays(self) -> bool:
        """True if the change may be merged though its model is held, without a release."""
        held = self.result is not None and self.held and self.override is None
        return held and (self.lands or not self.changes.model)


def read_report(path: Path = REPORT) -> Report:
    """Read an untrusted report. Raises InputError for anything that `slipway report` does not write."""
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} is missing; `slipway report` writes it.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes, and a report has at most {MAX_BYTES:,}; write it again.")
    try:
        report = Report.model_validate_json(path.read_bytes())
        report = Report.model_validate_json(report.model_dump_json())  # refuses infinite numbers, which become null
    except ValidationError as error:
        # The location holds untrusted keys, and a log interprets some lines.
        where = ascii(".".join(str(each) for each in error.errors()[0]["loc"]))[1:-1][:200]
        raise InputError(
            f"{path}: {where or 'the file'} is not valid; write the report again with `slipway report`."
        ) from None
    if (report.result is None) == (report.stopped is None):
        raise InputError(f"{path} must have either a result or a stopped stage; write it again with `slipway report`.")
    return report

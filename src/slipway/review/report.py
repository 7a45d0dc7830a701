"""The report as data: everything that a reviewer sees. Other modules turn it into text, tables and charts.

Any user can start a workflow run that writes a report. A different workflow run, which is allowed to write to pull
requests, reads the report. The report is therefore untrusted input. It has a limited size, only the types in this
module, and no markup.
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
"""Value of `FieldChange.old_requests` if requests that were valid before are still accepted."""

Name = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2_000)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class MetricRow(Artifact):
    """One metric: its values, and the interval for the challenger's value minus the champion's."""

    metric: Name
    champion: float | None
    challenger: float
    baseline: float
    interval: tuple[float, float] | None


class ParameterChange(Artifact):
    """A changed key of params.yaml. `old` is None for an added key. `new` is None for a removed key."""

    key: Name
    old: Name | None
    new: Name | None


class DeliveryChange(Artifact):
    """A delivery that differs from the base branch, with the numbers of added and removed rows.

    `quarantined` is the number of its rows in quarantine, and `reasons` has the number of these rows for each reason.
    If the delivery was not validated, `quarantined` is None and `reasons` is empty.
    """

    name: Name
    change: Literal["added", "changed", "removed"]
    added: Annotated[int, Field(ge=0)]
    removed: Annotated[int, Field(ge=0)]
    quarantined: Annotated[int, Field(ge=0)] | None
    reasons: dict[Name, int] = Field(max_length=100)
    notes: tuple[Sentence, ...] = Field((), max_length=10)
    """Sentences about replaced rows, and about columns that differ from the schema."""


class FeatureDrift(Artifact):
    """The drift of a column from the old to the new deliveries: the PSI, and the shares of missing values."""

    column: Name
    psi: float
    missing_before: float
    missing_now: float


class DecayCheck(Artifact):
    """The result of checking the champion for decay on an added delivery, and the sentence that explains it."""

    delivery: Name
    alarm: bool
    reason: Sentence


class FileChange(Artifact):
    """A changed file that the pipeline reads, and its numbers of changed lines.

    For a binary file, both numbers of lines are None.
    """

    path: Name
    added: int | None
    removed: int | None


class PeriodLoss(Artifact):
    """The mean losses of champion and challenger in one period of the holdout."""

    first: date
    rows: int
    champion: float | None
    challenger: float


class Point(Artifact):
    """A point in the prediction chart.

    Regression: each point is one holdout row. `actual` is the truth, and the other fields are the models' predictions.

    Classification: each point belongs to one model, and to a tenth of the holdout rows, which are sorted by the model's
    certainty. `actual` is the share of correct predictions in this tenth. The field of the point's model is the mean
    certainty in this tenth, and the field of the other model is None.
    """

    actual: float
    champion: float | None
    challenger: float | None


class Override(Artifact):
    """The maintainer who overruled the gate with the label `ship-anyway`, and the time of the label."""

    by: Name
    at: datetime


class Stopped(Artifact):
    """The stage at which the pipeline stopped without a verdict, and its error."""

    stage: Name
    reason: Sentence


class FieldChange(Artifact):
    """A changed field of requests, and how the challenger treats requests that were valid before."""

    field: Name
    change: Sentence
    old_requests: Name


class ClientChanges(Artifact):
    """Changed fields of requests, and how many of the champion's golden `records` the challenger refuses."""

    fields: tuple[FieldChange, ...] = Field(max_length=2_000)
    records: int
    refused: int
    reason: Sentence | None


class ReplaySlice(Artifact):
    """A slice of the replayed requests, and the share of predictions in it that the challenger changes."""

    column: Name
    value: Name
    requests: int
    moved: float


class ReplayTruth(Artifact):
    """The mean losses of champion and challenger on replayed requests whose truth is known.

    If `unavailable` is set, it is the reason why the predictions for the `requests` are not compared with the truth.
    """

    requests: Annotated[int, Field(ge=0)]
    trained_on: Annotated[int, Field(ge=0)]
    """The number of requests that are left out, because a model was trained on their rows."""
    champion: float
    challenger: float
    difference: float
    """The champion's mean loss minus the challenger's."""
    interval: tuple[float, float] | None
    """The interval of `difference`, or None if the requests come from too few days or groups."""
    confidence: float
    unavailable: Name | None = None


class SlowestRequest(Artifact):
    """The replayed request with the longest duration in production. `at` is the time of the response (UTC)."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    at: datetime
    records: Annotated[int, Field(ge=1)]
    """The number of replayed records of this request."""


class Replay(Artifact):
    """The challenger's predictions for logged production requests, compared with the champion's.

    `moved` is the share of predictions that change. `changes` are the median, the 95th percentile and the maximum of
    the absolute changes. For a classification, `changes` are changes of probabilities, and a prediction changes if its
    class changes.
    """

    requests: Annotated[int, Field(ge=0)]
    first: date | None
    last: date | None
    refused: Annotated[int, Field(ge=0)]
    """The number of requests that only the champion accepts. The predictions for these requests are not compared."""
    moved: float
    changes: tuple[float, float, float]
    slices: tuple[ReplaySlice, ...] = Field(max_length=20)
    feedback: Literal["none", "possible"]
    truth: ReplayTruth | None = None
    """The comparison with the truth, or None if no truth is known."""
    slowest: SlowestRequest | None = None
    """The slowest replayed request, or None if the log has no times."""
    unavailable: Sentence | None = None
    """The reason why the log was not replayed."""


class PipelineResult(Artifact):
    """The verdict, and the measurements that it is based on."""

    verdict: Verdict
    evaluation: Evaluation
    latency: Latency
    parity: Parity
    metrics: tuple[MetricRow, ...] = Field(max_length=50)
    periods: tuple[PeriodLoss, ...] = Field(max_length=60)
    points: tuple[Point, ...] = Field(max_length=500)
    clients: ClientChanges | None = None
    """The changes for clients, or None if both models accept the same fields and values."""
    replay: Replay | None = None
    """The replay, or None if `replay` is not set in params.yaml, or for a pull request from a fork."""
    unit: Annotated[str, Field(max_length=50)]
    row_noun: Annotated[str, Field(max_length=50)]

    @property
    def is_regression(self) -> bool:
        """True if the models predict numbers, and not classes."""
        return self.evaluation.challenger.metrics.get("r_squared") is not None


class Changes(Artifact):
    """The differences from the base branch.

    `deliveries` is None if the data before or after the change is not available. `rules` names the changed parameters
    and files that define how the gate decides. `model` is false if nothing that the pipeline reads has changed.
    """

    parameters: tuple[ParameterChange, ...] = Field(max_length=500)
    deliveries: Annotated[tuple[DeliveryChange, ...], Field(max_length=500)] | None
    drift: tuple[FeatureDrift, ...] = Field(max_length=2_000)
    decay: tuple[DecayCheck, ...] = Field(default=(), max_length=500)
    files: tuple[FileChange, ...] = Field(max_length=500)
    rules: tuple[Name, ...] = Field(max_length=500)
    model: bool = True


class Revision(Artifact):
    """The commits and the data that the report was made from."""

    commit: Sha
    """The commit that was checked out.

    For a pull request, this commit is the merge of the pull request into the base branch.
    """
    head: Sha
    """The last commit of the pull request."""
    base: Sha
    data: Hash | None
    lock: Literal["as committed", "not as committed", "not in this change"]
    """The result of comparing the committed dvc.lock with the dvc.lock that the pipeline writes."""


class Report(Artifact):
    """A report on a change. If the pipeline gave a verdict, `result` is set. Without a verdict, `stopped` is set.

    `lands` is true if the data of a delivery may be merged although its model is held. If `ingest.when_held` is `land`
    and the data must still not be merged, `waits` is the reason. Otherwise, `waits` is None.
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
        """True if the gate blocks the merge, or if there is no verdict. A maintainer can still overrule the gate."""
        return self.result is None or self.result.verdict.verdict == "hold"

    @property
    def champion_stays(self) -> bool:
        """True if the change may be merged although its model is held. Such a merge releases no model."""
        held = self.result is not None and self.held and self.override is None
        return held and (self.lands or not self.changes.model)


def read_report(path: Path = REPORT) -> Report:
    """Read an untrusted report. Raises InputError if `slipway report` cannot have written it."""
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path} is missing; `slipway report` writes it.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes, and a report has at most {MAX_BYTES:,}; write it again.")
    try:
        report = Report.model_validate_json(path.read_bytes())
        report = Report.model_validate_json(report.model_dump_json())  # refuses infinite numbers, which become null
    except ValidationError as error:
        # The location contains untrusted keys, and GitHub interprets some lines of a log as commands.
        where = ascii(".".join(str(each) for each in error.errors()[0]["loc"]))[1:-1][:200]
        raise InputError(
            f"{path}: {where or 'the file'} is not valid; write the report again with `slipway report`."
        ) from None
    if (report.result is None) == (report.stopped is None):
        raise InputError(f"{path} must have either a result or a stopped stage; write it again with `slipway report`.")
    return report

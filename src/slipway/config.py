"""Read and check params.yaml. An invalid key or value is reported with its line."""

import math
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from slipway.errors import InputError

Share = Annotated[float, Field(gt=0, lt=1)]
Kind = Literal["regression", "classification"]
ADDRESS = r"^https?://[^\s@?#]+$"
IMAGE = r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$"
DIGEST = "@sha256:[0-9a-f]{64}"
PINNED_IMAGE = rf"{IMAGE[:-1]}(:[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}({DIGEST})?|{DIGEST})$"
SAMPLE_SOURCE = "sample/source"
"""The folder with the deliveries of the sample data."""
SCHEDULER = r"^(tcp|tls|ws|wss)://[^\s@/]+:[0-9]{1,5}$"
DATABASE = r"^(postgresql|mysql|mariadb|oracle|mssql|sqlite|snowflake|redshift|duckdb)(\+\w+)?://"
MAX_DAYS = 36_500
MAX_WHOLE = 2**53
"""The largest whole number that `slipway tune` tries. Larger whole numbers are rounded as floats."""
PERIOD_DAYS = 30
"""Default number of days in a period of requests. Decay on requests is checked for each period."""
FILE_PREFIX = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
WINDOW = r"^[1-9][0-9]{0,3}[smhd]$"
QUERY = r"\S"
MATCHERS = r"^[^{}]*$"
REASON = r"^\S.{0,199}$"
LOG_ADDRESS = r"^(/|[a-z0-9+.-]+://)\S+$"
FORMS = {
    ADDRESS: "it must be an HTTP address without a password, such as https://example.com:9090",
    IMAGE: "it must be the name of an image without a tag, such as ghcr.io/your-team/house-prices",
    PINNED_IMAGE: "it must be the name of an image with a tag or a digest, such as ghcr.io/your-team/log-shipper:1",
    SCHEDULER: "it must be the address of a Dask scheduler, such as tcp://dask.example.com:8786",
    FILE_PREFIX: "it must start with a letter or digit, and contain only letters, digits, `_`, `-` and `.`",
    WINDOW: "it must be a whole number and s, m, h or d, such as 12h",
    QUERY: "it must be a SQL query",
    MATCHERS: "it must be labels without braces",
    REASON: "it must be a text of at most 200 characters on one line",
    LOG_ADDRESS: "it must be a URL such as s3://logs/houses, or an absolute path",
}
"""The explanation of each pattern, for messages."""
REGRESSION_LOSSES = ("mean_absolute_error", "mean_squared_error", "mean_absolute_percentage_error")
ONE_MINUS_AUC = "one_minus_auc"
CLASSIFICATION_LOSSES = ("log_loss", "brier_score", "error_rate", ONE_MINUS_AUC)
OWN_LOSS = r"own_[a-z][a-z0-9_]{0,40}"
"""Matches the name of a loss that the function `loss` in src/model computes."""
METRICS = {
    "regression": (
        "mean_absolute_error",
        "mean_squared_error",
        "root_mean_squared_error",
        "median_absolute_error",
        "mean_absolute_percentage_error",
        "bias",
        "r_squared",
    ),
    "classification": (
        "log_loss",
        "brier_score",
        "error_rate",
        "balanced_accuracy",
        "f1_macro",
        "roc_auc",
        "average_precision",
        "calibration_error",
    ),
}
"""The metrics of each kind of task, besides the loss and `recall_at_precision_0.9`. docs/metrics.md describes them."""
RECALL_AT_PRECISION = re.compile(r"recall_at_precision_(0\.\d+)")
"""Matches the name of a classification metric with a precision, such as `recall_at_precision_0.9`."""
LOSS_WITH_NUMBER = re.compile(r"(pinball|huber)_(\d\S*)")
"""Matches the name of a regression loss with a number: `pinball_0.9` (90% quantile) or `huber_1000` (threshold)."""


def loss_number(loss: str) -> tuple[str, float] | None:
    """Return the name and the parameter of a loss such as `pinball_0.9`. Return None for any other text.

    The quantile of `pinball` is between 0 and 1, and the threshold of `huber` is above 0. Only the shortest spelling of
    a parameter is valid (`0.9`, not `0.90`), because metrics and releases identify a loss by its name.
    """
    found = LOSS_WITH_NUMBER.fullmatch(loss)
    try:
        name, number = (found[1], float(found[2])) if found else ("", 0.0)
    except ValueError:
        return None
    valid = 0 < number < (1 if name == "pinball" else float("inf"))
    return (name, number) if valid and loss == f"{name}_{number:.10g}" else None


SECRET_PARAMETERS = re.compile(r"(?:^|&)[^=&]*(?:passw|pwd|secret|token|key|sig)[^=&]*=", re.IGNORECASE)
"""Matches a parameter with a secret in the query string of an address."""


def has_secret(address: str) -> bool:
    """Return True if an address contains a password, a token or a signature.

    Over HTTP, each user is possibly a token, and each query string possibly has a signature.
    """
    scheme, _, rest = address.partition("://")
    if not rest:
        return False
    user, query = rest.rpartition("@")[0], rest.partition("?")[2]
    if scheme in ("http", "https"):
        return bool(user or query)
    return ":" in user or bool(SECRET_PARAMETERS.search(query))


def _without_password(address: str) -> str:
    if has_secret(address):
        raise ValueError("the address contains a password; put the credentials into the environment")
    return address


Address = Annotated[str, Field(min_length=1), AfterValidator(_without_password)]
"""The address of a folder or a bucket. An address with a password is invalid, because params.yaml is in git."""


def _label(value: Any) -> Any:
    """Return a number or a boolean as the text that names its class."""
    return str(value) if isinstance(value, bool | int | float) else value


def _on_or_off(value: Any) -> Any:
    """Return on and off as booleans, which they were before YAML 1.2."""
    return value == "on" if value in ("on", "off") else value


class Section(BaseModel):
    """A section of params.yaml. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Task(Section):
    """The prediction task and the loss.

    `unit` is the unit of the target, and `row_noun` is the word for rows in the text of verdicts.
    """

    kind: Kind
    loss: str
    unit: Annotated[str, Field(max_length=50)] = ""
    row_noun: Annotated[str, Field(max_length=50)] = "rows"
    cost: dict[str, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    """`cost[true][answer]` is the cost of an answer for a true class. The default cost of a correct answer is 0."""
    positive: Annotated[str, BeforeValidator(_label)] | None = None
    """The positive class of two classes, for metrics and rates. None means the second class in sorted order."""
    weight: Annotated[str, Field(min_length=1)] | None = None
    """The column with the weight of each row in the loss and in all metrics. None means equal weights for all rows."""

    @property
    def loss_name(self) -> str:
        """The name of the mean loss in metrics and releases. Losses with different names are not compared."""
        return self.loss if self.weight is None else f"{self.loss}_weighted_by_{self.weight}"

    @property
    def unit_of_loss(self) -> str:
        """The unit of the loss: `unit` if the loss is measured in the unit of the target, otherwise an empty text."""
        return self.unit if self.loss in ("mean_absolute_error", "cost") or self.loss.startswith("pinball_") else ""

    @property
    def loss_is_own(self) -> bool:
        """True if the function `loss` in src/model computes the loss."""
        return re.fullmatch(OWN_LOSS, self.loss) is not None

    def costs(self, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        """Return the cost matrix: a row for each true class, a column for each predicted class, ordered as `classes`.

        Raises InputError if `cost` does not fit the classes.
        """
        known = self.cost or {}
        if unknown := {*known, *(answer for answers in known.values() for answer in answers)} - {*classes}:
            raise InputError(
                f"params.yaml: `task.cost` names {min(unknown)!r}, which is not a class; "
                f"the classes are {', '.join(classes)}."
            )
        for true in classes:
            for answer in classes:
                if answer != true and answer not in known.get(true, {}):
                    raise InputError(
                        f"params.yaml: `task.cost.{true}` lacks the cost of the answer {answer!r}; add it."
                    )
        return tuple(tuple(known[true].get(answer, 0.0) for answer in classes) for true in classes)

    def positive_index(self, classes: Sequence[str]) -> int:
        """Return the index of the positive class of two classes. Raises InputError if `positive` is not one of them."""
        if self.positive is None:
            return 1
        if self.positive not in classes:
            raise InputError(
                f"params.yaml: `task.positive` is {self.positive!r}, which is not a class; "
                f"the classes are {', '.join(classes)}."
            )
        if len(classes) > 2:
            raise InputError(
                f"params.yaml: `task.positive` is {self.positive!r}, but of {len(classes)} classes none is positive, "
                "and metrics are means over the classes; remove the key."
            )
        return classes.index(self.positive)

    @field_validator("positive")
    @classmethod
    def _is_a_class(cls, positive: str | None, others: ValidationInfo) -> str | None:
        if positive is not None and others.data.get("kind") == "regression":
            raise ValueError("a regression has no classes, so it has no positive class")
        return positive

    @field_validator("cost")
    @classmethod
    def _correct_answers_cost_least(
        cls, cost: dict[str, dict[str, float]] | None, others: ValidationInfo
    ) -> dict[str, dict[str, float]] | None:
        if cost is not None and others.data.get("kind") == "regression":
            raise ValueError("a regression has no classes, so it has no cost for each class")
        for true, answers in (cost or {}).items():
            for answer, value in answers.items():
                if answer != true and value <= answers.get(true, 0.0):
                    raise ValueError(f"if {true!r} is true, the answer {answer!r} must cost more than the correct one")
        return cost

    @model_validator(mode="after")
    def _rows_can_be_weighted(self) -> "Task":
        if self.weight is not None and self.loss == ONE_MINUS_AUC:
            raise ValueError("the loss one_minus_auc compares pairs of rows, so it cannot be weighted; remove `weight`")
        return self

    @model_validator(mode="after")
    def _loss_fits_kind(self) -> "Task":
        known = REGRESSION_LOSSES if self.kind == "regression" else CLASSIFICATION_LOSSES
        if self.loss in known or self.loss_is_own or (self.kind == "regression" and loss_number(self.loss)):
            return self
        if self.kind == "classification" and self.loss == "cost":
            if self.cost is None:
                raise ValueError("the loss `cost` needs `task.cost`, the cost of each answer for each true class")
            return self
        others = "pinball_0.9 (any quantile), huber_1000 (any threshold)" if self.kind == "regression" else "cost"
        others = f", {others}, own_NAME (the function `loss` in src/model)"
        raise ValueError(f"the loss of a {self.kind} is one of {', '.join(known)}{others}, not {self.loss!r}")


class Validate(Section):
    """The rules for checking deliveries (docs/data.md)."""

    max_invalid_share: Share
    unknown_columns: Literal["ignore", "refuse"] = "ignore"
    repeated_keys: Literal["quarantine", "replace"] = "quarantine"
    late_rows: Literal["quarantine", "accept"] = "quarantine"
    deletions: Literal["refuse", "accept"] = "refuse"


class Split(Section):
    """The settings that choose the rows of the holdout.

    If `column` is set, rows with the same value in this column form one group. This applies to every value of `by`.
    """

    by: Literal["time", "key", "group", "time_and_group"]
    days: int = Field(default=60, gt=0, le=MAX_DAYS)
    gap_days: int = Field(default=0, ge=0, le=MAX_DAYS)
    share: Share = 0.2
    column: str | None = None

    @property
    def by_time(self) -> bool:
        return self.by in ("time", "time_and_group")

    @property
    def by_group(self) -> bool:
        return self.by in ("group", "time_and_group")

    @model_validator(mode="after")
    def _complete(self) -> "Split":
        if self.by_group and self.column is None:
            raise ValueError(f"a split by {self.by} needs `column`, the column that holds the group")
        if self.gap_days and not self.by_time:
            raise ValueError(f"a split by {self.by} has no `gap_days`, which lie before the newest days")
        if self.by == "time" and self.share != type(self).model_fields["share"].default:
            raise ValueError("a split by time has no `share`: the holdout is the rows of the newest `days`")
        return self


class Train(Section):
    """The settings for training the model.

    `unknown_fields` defines what the server does if a request contains fields that the model does not read.
    """

    seed: int = Field(ge=0)
    threads: int = Field(ge=1)
    parity_tolerance: float = Field(gt=0, le=0.01)
    minimum_value_rows: int = Field(default=10, ge=1)
    """Minimum number of training rows that contain a category value or a text token. Values and tokens in fewer rows
    are left out of the bundle.
    """
    max_metric_series: int = Field(default=396, ge=100)
    """Maximum number of time series for features and predictions in the metrics of one server."""
    check_determinism: Annotated[bool, BeforeValidator(_on_or_off)] = True
    """Fit twice with the same arguments, on at most 5,000 rows, and fail if the two models differ."""
    settings: dict[str, Any]
    unknown_fields: Literal["refuse", "ignore"] = "refuse"


Edges = Annotated[list[float], Field(min_length=1)]
SliceRule = Annotated[
    Annotated[Edges, Tag("list[edges]")] | Annotated[Literal["values"], Tag("literal[values]")],
    Discriminator(lambda value: "list[edges]" if isinstance(value, list) else "literal[values]"),
]


class Evaluate(Section):
    seed: int = Field(ge=0)
    slices: dict[str, SliceRule]


class Floor(Section):
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "Floor":
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("a floor has either `at_most` or `at_least`")
        return self


Rate = Literal["positive_rate", "true_positive_rate", "false_positive_rate"]
"""The share of rows for which the model predicts the positive class. `positive_rate` is a share of all rows.
`true_positive_rate` is a share of the rows whose true class is the positive class. `false_positive_rate` is a share of
the rows whose true class is the other class.
"""


LossLimit = Annotated[float, Field(gt=0)]
RateLimits = dict[Rate, Annotated[float, Field(gt=0, lt=1)]]
Limits = Annotated[
    Annotated[LossLimit, Tag("constrained-loss")] | Annotated[RateLimits, Tag("constrained-rates")],
    Discriminator(lambda value: "constrained-rates" if isinstance(value, dict) else "constrained-loss"),
]


class SliceGate(Section):
    minimum_rows: int = Field(gt=1)
    margin: float = Field(ge=0, lt=1)
    maximum_difference: dict[str, Limits] = {}
    """For each column, the maximum difference between the challenger's losses on two slices of this column.

    The difference is a share of the challenger's loss on the whole holdout. For a classification with two classes, a
    mapping limits the differences between rates instead of losses.
    """

    def check_classes(self, number: int) -> None:
        """Raise InputError if a rate has a limit, unless the task has two classes. A regression has 0 classes."""
        for column, limits in self.maximum_difference.items():
            if isinstance(limits, dict) and number != 2:
                raise InputError(
                    f"params.yaml: `gate.slices.maximum_difference.{column}` limits the {next(iter(limits))}, which "
                    "needs a classification with two classes; limit the difference of the loss instead, by a number."
                )


class Suspicious(Section):
    """The limits beyond which the gate suspects a data leak in a model (`slipway.pipeline.suspicion`)."""

    improvement: Share = 0.5
    alone: Share = 0.85
    importance: Share = 0.5
    missing: Share = 0.2


class Gate(Section):
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    margin_reason: Annotated[str, Field(pattern=REASON)] | None = None
    margin: float = Field(gt=-1, lt=1)
    minimum_rows: int = Field(gt=1)
    equality_tolerance: float = Field(ge=0, le=0.001)
    floors: dict[str, Floor]
    slices: SliceGate
    suspicious: Suspicious | None = Suspicious()
    count_looks: bool = False
    """Widen the confidence interval each time a model is evaluated on the same holdout (`slipway.review.looks`)."""

    @field_validator("margin")
    @classmethod
    def _reason_if_negative(cls, margin: float, others: ValidationInfo) -> float:
        reason = others.data.get("margin_reason")
        if margin < 0 and reason is None:
            raise ValueError("a negative margin ships a model that may be worse, so it needs `gate.margin_reason`")
        if margin >= 0 and reason is not None:
            raise ValueError("`gate.margin_reason` is set, but the margin is not negative")
        return margin


class Record(Section):
    experiment: str = Field(min_length=1)


class Releases(Section):
    """The settings for releases. With `deploy: agent`, an agent in the cluster applies the overlays.

    With `deploy: kubectl`, the workflow `Ship` applies the overlays with kubectl.
    """

    image: Annotated[str, Field(pattern=IMAGE)] | None
    deploy: Literal["agent", "kubectl"]
    timeout_seconds: int = Field(gt=0, le=2_700)  # below the limit of 60 minutes for the job
    urls: dict[str, Annotated[str, Field(pattern=ADDRESS)]]


class Ingest(Section):
    """The source of deliveries, and how the pull requests with deliveries are merged.

    If `source` is empty, nothing is ingested. `when_held` applies if the model that is trained on a delivery is held.
    With `when_held: wait`, the pull request waits for a person. With `when_held: land`, the data is merged, and the
    champion stays.
    """

    source: str
    auto_merge: bool = False
    when_held: Literal["wait", "land"] = "wait"
    format: Literal["files", "delta"] = "files"
    """With `files`, each file or folder of the source is a delivery. With `delta`, the source is a Delta Lake table.
    The rows that a version of the table adds are one delivery.
    """
    query: Annotated[str, Field(pattern=QUERY)] | None = None
    """SQL query that returns the delivered rows. With a query, `source` is the SQLAlchemy URL of a database."""
    watermark: Annotated[str, Field(min_length=1)] | None = None
    """Column of the query's result that has higher values in newer rows, such as a time of change."""
    overlap: int | str = 0
    """How far the watermark of a late row may be below the highest watermark in data/. A time such as 12h, or a whole
    number.
    """
    prefix: Annotated[str, Field(pattern=FILE_PREFIX)] | Literal[""] = ""
    """Prefix for the names of deliveries from a query or a Delta Lake table. The names of new deliveries must sort
    after the names in data/.
    """

    @field_validator("source")
    @classmethod
    def _no_password(cls, source: str) -> str:
        if has_secret(source):
            raise ValueError("the address contains a password; put it into the variable SLIPWAY_SOURCE_PASSWORD")
        return source

    @field_validator("overlap")
    @classmethod
    def _number_or_time(cls, overlap: int | str) -> int | str:
        if (isinstance(overlap, str) and not re.match(WINDOW, overlap)) or (isinstance(overlap, int) and overlap < 0):
            raise ValueError("it must be a time such as 12h or 3d, or a whole number from 0")
        return overlap

    @model_validator(mode="after")
    def _complete(self) -> "Ingest":
        if self.query and not self.watermark:
            raise ValueError("a query needs `watermark`, a column whose values grow from row to row")
        if self.query and "://" not in self.source:
            raise ValueError("a query needs a database as `source`, such as postgresql+psycopg://db.example.com/sales")
        if not self.query and (self.watermark or self.overlap):
            raise ValueError("`watermark` and `overlap` need `query`")
        if self.prefix and not self.query and self.format == "files":
            raise ValueError("`prefix` needs `query` or `format: delta`, because files have names of their own")
        if self.query and self.format != "files":
            raise ValueError("a source has either `query` or `format: delta`")
        if not self.query and re.match(DATABASE, self.source):
            raise ValueError("a database as `source` needs `query` and `watermark`")
        return self


def label_problem(address: str, query: str | None, is_delta: bool) -> str | None:
    """Return a sentence about what is wrong with the settings of a label source, or None if the settings are valid."""
    if has_secret(address):
        return "the address of the labels contains a password; put the credentials into the environment"
    if query and is_delta:
        return "labels come either from a query or from a Delta Lake table"
    if query and "://" not in address:
        return "a query needs the address of a database, such as postgresql+psycopg://db.example.com/sales"
    if not query and re.match(DATABASE, address):
        return "the address of the labels is a database, so it needs a query"
    return None


def duration(text: str) -> int:
    """Convert a time such as 12h to seconds. Raises InputError for another format."""
    if not re.search(WINDOW, text):
        raise InputError(f"{text!r} is not a length of time; use the form 90m, 12h or 7d.")
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[text[-1]]


class Decay(Section):
    """The limits for decay: how much worse the champion may be than at its release.

    `margin` is the allowed rise of the loss, as a share of the loss at release. `bias` is a share of the mean absolute
    target for a regression, and a probability for a classification.
    """

    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    margin: float = Field(ge=0, lt=10)
    bias: float = Field(ge=0, lt=1)
    minimum_rows: int = Field(gt=1)


class Drift(Section):
    """The limits for drift, and the settings of the Prometheus query that counts the champion's requests."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    psi: float = Field(gt=0, le=10)
    minimum_rows: int = Field(gt=1)
    prometheus: Annotated[str, Field(pattern=ADDRESS)] | None
    label_matchers: str = Field(pattern=MATCHERS)
    window: str = Field(pattern=WINDOW)


class PredictionLog(Section):
    """The prediction log of the servers in a cluster. `make manifests` writes these settings to kustomize/components/.

    Each environment has its own folder below `address`, named after the environment.
    """

    address: Annotated[str, Field(min_length=1, pattern=LOG_ADDRESS), AfterValidator(_without_password)]
    image: Annotated[str, Field(pattern=PINNED_IMAGE)]
    """The image that runs `slipway ship-log`, with its tag or digest."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the keys whose rows are logged."""
    keep_days: int | None = Field(default=None, ge=1, le=MAX_DAYS)
    """Number of days after which `slipway ship-log` deletes rows. None keeps all rows."""


class Live(Section):
    """The prediction log and the labels from which `slipway monitor` computes decay and training-serving skew.

    If `joined` is set, the logged requests are also written to this address, together with their labels. Decay is
    checked once for each period of `days` days.
    """

    log: Address
    labels: Address
    labels_format: Literal["files", "delta"] = "files"
    """With `files`, `labels` is a file or a folder of files. With `delta`, `labels` is a Delta Lake table."""
    labels_query: Annotated[str, Field(pattern=QUERY)] | None = None
    """SQL query that returns the labels. With a query, `labels` is the SQLAlchemy URL of a database."""
    joined: Address | None = None
    days: int = Field(default=PERIOD_DAYS, ge=10, le=366)
    pushgateway: Annotated[str, Field(pattern=ADDRESS)] | None = None
    """Pushgateway of Prometheus for the loss by bundle and day, which the component canary-loss reads."""
    deliver: Annotated[str, Field(pattern=FILE_PREFIX)] | None = None
    """Prefix for the names of deliveries. If set, the labelled requests of each period are written to `ingest.source`
    as one delivery.
    """

    @model_validator(mode="after")
    def _labels_fit_their_source(self) -> "Live":
        if problem := label_problem(self.labels, self.labels_query, self.labels_format == "delta"):
            raise ValueError(problem)
        return self


class Replay(Section):
    """The settings for replaying a prediction log. For the report, the challenger predicts the logged requests again.

    `requests` is the maximum number of requests to replay. Set `feedback` to `possible` if a prediction can influence
    the true value that is observed later.
    """

    log: Address
    requests: int = Field(default=10_000, gt=0, le=100_000)
    feedback: Literal["none", "possible"]


class Range(Section):
    """The range of a setting for `slipway tune`. If `low` and `high` are whole, only whole numbers are tried."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _valid(self) -> "Range":
        if self.low >= self.high:
            raise ValueError("`low` must be smaller than `high`")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("`log` needs `low` above 0, and no `step`")
        if self.step is not None and (self.step <= 0 or (self.whole and not isinstance(self.step, int))):
            raise ValueError("`step` must be above 0, and a whole number if both ends are")
        if any(isinstance(each, int) and abs(each) > MAX_WHOLE for each in (self.low, self.high, self.step)):
            raise ValueError(f"a whole number must be at most {MAX_WHOLE:,}")
        if not math.isfinite(self.high - self.low):
            raise ValueError("the range from `low` to `high` is too wide")
        if self.step is not None and not 1 <= (self.high - self.low) / self.step <= MAX_WHOLE:
            raise ValueError("`step` is too large or too small for the range from `low` to `high`")
        return self


def _different(choices: list[Any]) -> list[Any]:
    if len({(type(each), each) for each in choices}) < len(choices):
        raise ValueError("a choice is in the list twice")
    return choices


Choices = Annotated[list[bool | int | float | str | None], Field(min_length=2), AfterValidator(_different)]
Searched = Annotated[
    Annotated[Choices, Tag("Choices")] | Annotated[Range, Tag("Range")],
    Discriminator(lambda value: "Choices" if isinstance(value, list) else "Range"),
]


class Tune(Section):
    """The search of `slipway tune` for better values of some `train.settings` (docs/tune.md)."""

    trials: int = Field(gt=0, le=1_000)
    folds: int = Field(default=3, ge=2, le=20)
    batch: int = Field(default=4, ge=1, le=100)
    """The number of trials that can run at the same time. The settings of these trials are chosen together."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    settings: Annotated[dict[str, Searched], Field(min_length=1)]
    """The range or the choices of each setting to search, by its name. A nested setting has a name such as `a.b`."""


class Compute(Section):
    """Where independent parts of the work run: on the local machine, or on a Dask cluster (docs/scale.md)."""

    engine: Literal["local", "dask"] = "local"
    processes: int = Field(default=1, ge=1, le=1_000)
    address: Annotated[str, Field(pattern=SCHEDULER)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Compute":
        if self.engine == "dask" and self.address is None:
            raise ValueError("`engine: dask` needs `address`, the Dask scheduler, such as tcp://dask.example.com:8786")
        if self.engine == "local" and self.address is not None:
            raise ValueError("`address` needs `engine: dask`")
        if self.engine == "dask" and self.processes > 1:
            raise ValueError("`processes` applies only to `engine: local`; start more Dask workers instead")
        return self


class Params(Section):
    """The content of params.yaml."""

    task: Task
    validate_: Validate = Field(alias="validate")
    split: Split
    train: Train
    evaluate: Evaluate
    gate: Gate
    decay: Decay
    drift: Drift
    record: Record
    release: Releases
    ingest: Ingest
    prediction_log: PredictionLog | None = None
    live: Live | None = None
    replay: Replay | None = None
    compute: Compute = Compute()
    tune: Tune | None = None

    @model_validator(mode="after")
    def _logs_are_read_in_parts(self) -> "Params":
        if self.live and self.task.loss == ONE_MINUS_AUC:
            raise ValueError("the loss one_minus_auc compares pairs of rows, and `live` reads a log in parts")
        if self.live and self.task.weight is not None:
            raise ValueError(
                "`task.weight` is a column of deliveries, which the requests that `live` reads do not have"
            )
        return self

    @model_validator(mode="after")
    def _floors_are_metrics(self) -> "Params":
        known, is_classification = METRICS[self.task.kind], self.task.kind == "classification"
        for name in self.gate.floors:
            if name in (*known, self.task.loss) or (is_classification and RECALL_AT_PRECISION.fullmatch(name)):
                continue
            others = ", recall_at_precision_0.9 (any precision)" if is_classification else ""
            raise ValueError(
                f"`gate.floors.{name}` is not a metric of this {self.task.kind}, whose metrics are "
                f"{', '.join(dict.fromkeys([self.task.loss, *known]))}{others}"
            )
        return self

    @model_validator(mode="after")
    def _compared_slices_exist(self) -> "Params":
        slices = self.evaluate.slices
        for name in self.gate.slices.maximum_difference:
            if name not in slices:
                raise ValueError(
                    f"`gate.slices.maximum_difference.{name}` needs the same key in `evaluate.slices`, which has "
                    f"{', '.join(slices) or 'no key'}"
                )
        return self

    @model_validator(mode="after")
    def _tuned_settings_exist(self) -> "Params":
        for name in self.tune.settings if self.tune else ():
            value: Any = self.train.settings
            for part in name.split("."):
                value = value.get(part, value) if isinstance(value, dict) else {}
            nested = isinstance(value, dict | list)
            if nested:
                raise ValueError(f"`tune.settings.{name}` is not a setting with one value in `train.settings`")
        return self

    @model_validator(mode="after")
    def _requests_are_delivered_as_files(self) -> "Params":
        if self.live and self.live.deliver and (self.ingest.query or self.ingest.format != "files"):
            raise ValueError("`live.deliver` writes files, so `ingest.source` must be a folder of files")
        return self


def load_params(path: Path) -> Params:
    """Read params.yaml. Raises InputError with the line and the key of the first problem."""
    tree = _parse(path)
    try:
        return Params.model_validate(_plain(tree))
    except ValidationError as error:
        raise InputError(_problems(path.name, tree, error)[0]) from None


def replace_settings(text: str, changes: Mapping[str, Any]) -> str:
    """Return the text of params.yaml with new values in `train.settings`. All other characters stay the same.

    The keys of `changes` are names of settings. A nested setting has a name such as `a.b`. Raises KeyError if
    the text has no such setting.
    """
    parts = []
    for name, value in changes.items():
        node = YAML().compose(text)
        for part in ("train", "settings", *name.split(".")):
            node = {key.value: each for key, each in node.value}[part]
        parts.append((node.start_mark.index, node.end_mark.index, _scalar(value)))
    for start, end, fresh in sorted(parts, reverse=True):
        text = text[:start] + fresh + text[end:]
    return text


def _scalar(value: Any) -> str:
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # YAML 1.1 reads 1e-05 as a text
    yaml, file = YAML(), StringIO()
    yaml.dump([value], file)
    return file.getvalue().removeprefix("- ").rstrip("\n") or "null"


def params_problems(path: Path) -> list[str]:
    """Return all problems of params.yaml, each with its line and key."""
    try:
        tree = _parse(path)
        Params.model_validate(_plain(tree))
    except InputError as error:
        return [str(error)]
    except ValidationError as error:
        return _problems(path.name, tree, error)
    return []


def _parse(path: Path) -> Any:
    try:
        return YAML().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.name} is missing in {path.resolve().parent}; change to a repository made from the Slipway template."
        ) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path.name}, line {line}: not YAML ({error.problem}); correct that line.") from None
    except YAMLError as error:
        raise InputError(f"{path.name}: not YAML ({str(error).splitlines()[0]}); correct it.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8.") from None


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    # ruamel.yaml returns subclasses of numbers and strings, but strict types refuse subclasses.
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _problems(name: str, tree: Any, error: ValidationError) -> list[str]:
    """Describe all errors. Unknown keys come first, because a misspelt key also causes the error of a missing key."""
    found = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    return [_problem(name, tree, each) for each in found]


def _problem(name: str, tree: Any, problem: Mapping[str, Any]) -> str:
    keys = [
        key
        for key in problem["loc"]
        if not str(key).startswith(("list[", "literal[", "constrained-", "[key]", "Choices", "Range"))
    ]
    line = 1
    node: Any = tree
    message = problem["msg"].removeprefix("Value error, ")
    for key in keys or _named_key(tree, message):
        if isinstance(node, CommentedMap) and key in node:
            line, node = node.lc.key(key)[0] + 1, node[key]
    where = f"{name}, line {line}: `{'.'.join(map(str, keys))}`" if keys else f"{name}, line {line}"
    match problem["type"]:
        case "extra_forbidden":
            return f"{where} is not a valid key; correct its spelling or remove it."
        case "missing":
            return f"{where} is missing below this line; add it."
        case "string_pattern_mismatch":
            return f"{where}: {FORMS[problem['ctx']['pattern']]}; correct the value."
        case "bool_type":
            return f"{where}: it must be true or false; correct the value."
        case "model_type" | "dict_type":
            return f"{where}: it must contain keys with values; correct it."
    return f"{where}: {message[0].lower()}{message[1:]}; correct the value."


def _named_key(tree: Any, message: str) -> list[str]:
    """Return the path of the key that a message about several sections begins with, or [] if it names no key."""
    rest, keys = message.removeprefix("`").partition("`")[0] if message.startswith("`") else "", []
    while rest and isinstance(tree, dict):
        # A key may contain dots.
        key = max((key for key in map(str, tree) if f"{rest}.".startswith(f"{key}.")), key=len, default="")
        if not key:
            break
        keys.append(key)
        tree, rest = tree.get(key), rest[len(key) + 1 :]
    return keys

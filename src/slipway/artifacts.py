"""Define the paths of the files that the packages of `slipway` exchange, and the content of the JSON files.

Paths are relative to the top directory of the repository, which is the working directory of all `slipway` verbs.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import atomic
from slipway.errors import InputError

PARAMS = Path("params.yaml")
DATA = Path("data")
DATA_DVC = Path("data.dvc")
LOCK = Path("dvc.lock")

CHECKED = Path("build/deliveries")
VALIDATED = Path("build/validated.parquet")
QUARANTINE = Path("build/quarantine.csv")
VALIDATION = Path("build/validation.json")
TRAINING = Path("build/split/training.parquet")
HOLDOUT = Path("build/split/holdout.parquet")
BUNDLE = Path("build/bundle")
PARITY = Path("build/parity.json")
SCORES = Path("build/evaluation/scores.parquet")
PLOTS = Path("build/evaluation/plots")
LATENCY = Path("build/latency.json")

CHAMPION = Path("champion")
CHAMPION_DVC = Path("champion.dvc")
EVALUATION = Path("metrics/evaluation.json")
VERDICT = Path("metrics/verdict.json")
RELEASE = Path("metrics/release.json")

CHAMPION_FILES = (str(CHAMPION_DVC), str(RELEASE))
"""Files that record the champion and its loss at release. Only a release may change these files."""
PIPELINE_FILES = (str(LOCK), str(EVALUATION), str(VERDICT))
"""Files that record the results of the pipeline. Both pull requests and releases may change these files."""

SOURCES = (
    "Dockerfile",
    "requirements/images.txt",
    "requirements/serve.txt",
    "src/slipway/__init__.py",
    "src/slipway/errors.py",
    "src/slipway/bundle.py",
    "src/slipway/images.py",
    "src/slipway/provenance.py",
    "src/slipway/statistics/__init__.py",
    "src/slipway/statistics/bins.py",
    "src/slipway/serving",
)
"""The files in git that the image is built from. The image also contains the bundle, its provenance and its model card.
"""
BATCH_SOURCES = (
    "requirements/batch.txt",
    "src/slipway/atomic.py",
    "src/slipway/delivery_names.py",
    "src/slipway/image_archives.py",
    "src/slipway/integrations/__init__.py",
    "src/slipway/integrations/batch_storage.py",
    "src/slipway/integrations/compute.py",
    "src/slipway/integrations/storage.py",
    "src/slipway/pipeline/__init__.py",
    "src/slipway/pipeline/columns.py",
    "src/slipway/pipeline/csv_records.py",
    "src/slipway/pipeline/delivery.py",
    "src/slipway/pipeline/image_folder.py",
    "src/slipway/scoring",
    "src/slipway/statistics/psi.py",
)
"""The files in git that the batch image is built from, in addition to `SOURCES`."""

EMPTY = "d751713988987e9331980363e24189ce"
"""DVC's hash of an empty directory, such as data/ before the first delivery, or champion/ before the first release."""


def data_hash() -> str | None:
    """Return the hash of the folder data/ from data.dvc, without the suffix `.dir`.

    Return None if data.dvc does not exist. Raises InputError if data.dvc is not valid.
    """
    try:
        content = DATA_DVC.read_bytes()
    except FileNotFoundError:
        return None
    if (stated := stated_hash(content)) is None:
        raise InputError(f"{DATA_DVC} is not a valid DVC file; restore it with `git checkout {DATA_DVC}`.")
    return stated


def check_data_directory() -> None:
    """Raise InputError if data/ is a symbolic link, which DVC cannot track."""
    if DATA.is_symlink():
        raise InputError(
            f"{DATA}/ is a symbolic link, which DVC does not track; replace it by the directory, and move DVC's cache "
            "to the other disk with `dvc cache dir`."
        )


def stated_hash(content: bytes) -> str | None:
    """Return the hash in the content of a .dvc file, without the suffix `.dir`.

    Return None if the content is not valid.
    """
    try:
        return str(YAML(typ="safe").load(content.decode())["outs"][0]["md5"]).removesuffix(".dir")
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        return None


class Artifact(BaseModel):
    """A JSON file that one module of `slipway` writes and other modules read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        atomic.write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises InputError if it is missing or not valid."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path} is missing; run `dvc repro`.") from None
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise InputError(f"{path}: {where}: {problem['msg']}; run `dvc repro --force`.") from None


def listed(names: Sequence[str]) -> str:
    """Join the first ten names for a message. If there are more than ten names, append how many are left out."""
    shown = ", ".join(
        name[:50] if name and name == name.strip() and name.isprintable() else repr(name[:50]) for name in names[:10]
    )
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


class DeliveryCounts(Artifact):
    rows: int
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    """The number of quarantined rows for each reason. A row with several reasons is counted for each of them."""
    replaced: int = 0
    """The number of accepted rows that replace a row of an earlier delivery."""
    changed: int | None = 0
    """The number of `replaced` rows whose values differ from the earlier row. None if these rows were not counted."""
    lists_keys: bool = False
    """True if the delivery is a list of keys. `rows`, `accepted` and `quarantined` then count keys."""
    deleted: int = 0
    """The number of rows in earlier deliveries that a list of keys deletes."""
    unmatched: int = 0
    """The number of keys in a list of keys that match no row."""
    unknown_columns: tuple[str, ...] = ()
    """Columns of the delivery that are not in the schema. These columns are ignored."""
    missing_columns: tuple[str, ...] = ()
    """Nullable columns of the schema that are not in the delivery. All values of these columns are missing."""

    @property
    def notes(self) -> list[str]:
        """Short texts about replaced rows, deleted rows, and columns that differ from the schema."""
        notes = []
        if self.lists_keys:
            notes.append(f"{self.accepted:,} keys delete {self.deleted:,} rows, {self.unmatched:,} keys match no row")
        if self.replaced:
            changed = "" if self.changed is None else f", {self.changed:,} of them with other values"
            notes.append(f"{self.replaced:,} rows replace earlier ones{changed}")
        for names, what in ((self.unknown_columns, "ignored"), (self.missing_columns, "missing")):
            if names:
                notes.append(f"{what} column{'s' * (len(names) > 1)}: {listed(names)}")
        return notes


class Validation(Artifact):
    rows: int
    accepted: int
    quarantined: int
    deliveries: dict[str, DeliveryCounts]
    not_taken: dict[str, str] = {}
    """The files in data/ that are not read as deliveries, each with the reason."""

    @property
    def deliveries_by_note(self) -> dict[str, list[str]]:
        """For each note, the names of the deliveries that have this note."""
        found: dict[str, list[str]] = {}
        for name, counts in self.deliveries.items():
            for note in counts.notes:
                found.setdefault(note, []).append(name)
        return found

    @property
    def reasons(self) -> Counter[str]:
        """The number of quarantined rows for each reason, summed over all deliveries."""
        return sum((Counter(each.reasons) for each in self.deliveries.values()), Counter())


class Parity(Artifact):
    """How much the ONNX graph's predictions differ from the fitted model's, on training and holdout rows."""

    rows: int
    tolerance: float
    largest_relative_difference: float
    rows_beyond_tolerance: int
    cause: str = ""
    """A sentence that names the row and the feature that cause the difference. Empty if no row differs."""


class Holdout(Artifact):
    """The rows on which the gate compares models: their number, and their first and last date.

    `left_out` is the number of rows that are left out of the holdout, because the champion was trained on them.
    """

    rows: int
    first: date | None
    last: date | None
    left_out: int = 0


class Contender(Artifact):
    """The loss and metrics of a model on the holdout.

    `bundle` is the hash of the model, and `bytes` is its size. Both are None for the naive baseline.
    """

    bundle: str | None
    bytes: int | None
    loss: float
    metrics: dict[str, float]


class SliceScore(Artifact):
    """The mean losses of champion and challenger on one slice of the holdout. The first model has no `champion`."""

    column: str
    value: str
    rows: int
    champion: float | None
    challenger: float


class Churn(Artifact):
    """How much the challenger's predictions on the holdout differ from the champion's predictions.

    For a classification, the fields `..._difference` compare probabilities, and `moved` is the share of rows with
    another predicted class. For a regression, the fields `..._difference` are shares of the champion's prediction, and
    `moved` is the share of rows whose prediction changes by more than 5%.
    """

    mean_difference: float
    largest_difference: float
    moved: float


class FeatureScore(Artifact):
    """How much a feature improves predictions on the holdout, and how often its value is missing."""

    name: str
    champion: float | None
    """Increase of the champion's loss if the feature's values are shuffled. None if the champion lacks the feature."""
    challenger: float | None
    alone: float | None
    """The score of a model that reads only this feature: the reduction of the naive baseline's loss, as a share of that
    loss (`slipway.pipeline.single_feature`). The model reads only one number of a text, a vector or an image, such as
    the length.
    """
    has_content: bool = False
    """True for a text, a vector or an image. `alone` does not measure the content of these values."""
    missing_before: float | None
    missing_now: float | None
    """The share of rows without a value. `missing_before` is the share in all earlier deliveries, and `missing_now` is
    the share in the newest delivery. Both are None if there is only one delivery.
    """


class Evaluation(Artifact):
    """The loss and metrics of champion, challenger and naive baseline. The gate uses them to compute its verdict."""

    loss: str
    holdout: Holdout
    champion: Contender | None
    challenger: Contender
    baseline: Contender
    slices: tuple[SliceScore, ...]
    churn: Churn | None
    features: tuple[FeatureScore, ...] = ()
    """The features of champion and challenger, sorted by their importance for the challenger."""
    newest_delivery: str | None = None
    """Name of the newest delivery. None if all rows come from one delivery."""
    server_changes: tuple[str, ...] = Field(default=(), exclude_if=lambda changes: not changes)
    """The challenger's changes for the server, apart from predictions (`slipway.pipeline.server_changes`)."""
    positive: str | None = Field(default=None, exclude_if=lambda name: name is None)
    """The class in `task.positive`. None if metrics use the default, the second of two classes."""
    positive_index: int = Field(default=1, exclude_if=lambda index: index == 1)
    """The index of the positive class of two classes."""
    decides_differently: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True if the two models have different rules for choosing a class from the probabilities."""

    @property
    def positive_note(self) -> str:
        """A sentence that names the class in `task.positive` and what it applies to, or "" if it is not set."""
        if self.positive is None:
            return ""
        return (
            f"The positive class is {listed([self.positive])}: average precision, recall at a precision, calibration "
            "error and rates are computed for it."
        )


class Latency(Artifact):
    """The median time that each model needs to score one row on one thread, in microseconds.

    A value is None if it was not measured on this machine.
    """

    champion: float | None
    challenger: float | None


class Comparison(Artifact):
    """The difference between two models: the mean loss of the reference minus the mean loss of the challenger.

    The difference is above zero if the challenger is better.
    """

    rows: int
    effective_rows: float
    """The number of independent rows that would give `difference` the same standard error."""
    days: int | None
    groups: int | None
    """The number of days (`days`) and the number of groups. Rows of one day or group have correlated errors."""
    blocks: float
    """The number of independent days or groups. A comparison with too few of them has no `interval`."""
    difference: float
    interval: tuple[float, float] | None
    """Confidence interval of `difference`. None if the rows come from too few days or groups."""
    confidence: float


class SliceVerdict(Artifact):
    column: str
    value: str
    comparison: Comparison
    reference_loss: float
    """The mean loss of the reference on the slice."""
    judged: bool
    """False if the slice has too few rows, days or groups for a decision."""
    regressed: bool

    @property
    def relative(self) -> float:
        """The difference of the mean losses on the slice (reference minus challenger), relative to the reference."""
        return self.comparison.difference / self.reference_loss if self.reference_loss else 0.0


class FloorVerdict(Artifact):
    metric: str
    value: float
    bound: str
    held: bool
    of: str = Field(default="gate.floors", exclude_if=lambda key: key == "gate.floors")
    """The key in params.yaml that sets the bound."""


class Decay(Artifact):
    """The champion's loss on the holdout of its release (`at_release`), and on the current holdout (`now`)."""

    at_release: float
    now: float
    released_on: Holdout


class Suspicion(Artifact):
    """A sign of a data leak, and the feature that shows this sign."""

    feature: str
    reason: str


class Verdict(Artifact):
    """The result of the gate: whether the challenger ships, and the reason."""

    verdict: Literal["ship", "hold", "unchanged", "first"]
    reason: str
    loss: str
    holdout: Holdout
    reference: Literal["champion", "baseline"]
    champion_bundle: str | None
    challenger_bundle: str
    reference_loss: float
    challenger_loss: float
    baseline_loss: float
    comparison: Comparison | None
    floors: tuple[FloorVerdict, ...]
    slices: tuple[SliceVerdict, ...]
    suspicions: tuple[Suspicion, ...] = ()
    """Signs of a data leak. A model with such a sign is held, even if it would otherwise ship."""
    decay: Decay | None
    look: int = Field(default=1, exclude_if=lambda look: look == 1)
    """1 for the first model evaluated on this holdout, 2 for the second. Always 1 without `gate.count_looks`."""
    same_predictions: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True if the predictions are those of the champion, but the bundle changes the server in another way."""

    @property
    def may_ship(self) -> bool:
        return self.verdict in ("ship", "first")


class Release(Artifact):
    """The champion, and its loss and verdict at its release. `champion` is None before the first release."""

    champion: str | None
    loss: str | None = None
    value: float | None = None
    verdict: Literal["ship", "first", "hold"] | None = None
    """`hold` if the champion was released because a maintainer overruled the gate."""
    reason: str | None = None
    holdout: Holdout | None = None

    @classmethod
    def of_challenger(cls, verdict: Verdict, before: "Release") -> Self:
        """Return the release of the challenger that `verdict` is about. `before` is the release of the champion.

        If both models give the same predictions, decay is still measured from the champion's earlier release.
        """
        is_same = verdict.same_predictions and before.loss == verdict.loss
        return cls(
            champion=verdict.challenger_bundle,
            loss=verdict.loss,
            value=before.value if is_same else verdict.challenger_loss,
            verdict=verdict.verdict,
            reason=verdict.reason,
            holdout=before.holdout if is_same else verdict.holdout,
        )


def champion_path(advice: str) -> Path:
    """Return the directory of the champion.

    Raises InputError if DVC has not pulled the champion to this clone. Before the first release, the error message ends
    with `advice`.
    """
    if CHAMPION.is_dir() and any(CHAMPION.iterdir()):
        return CHAMPION
    if RELEASE.is_file() and Release.read(RELEASE).champion:
        raise InputError(f"{CHAMPION}/ is not in this clone; run `dvc pull {CHAMPION_DVC}`.")
    raise InputError(f"No model is live yet; {advice}.")

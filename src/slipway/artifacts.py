"""The files that the rooms exchange: where each lies, and the types of those that are JSON.

Paths are relative to the top of the repository, where every command runs.
"""

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import atomic
from slipway.errors import InputError

PARAMS = Path("params.yaml")
DATA = Path("data")
DATA_DVC = Path("data.dvc")
LOCK = Path("dvc.lock")

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
"""What says which model is live, and how it scored; only a release changes them."""
PIPELINE_FILES = (str(LOCK), str(EVALUATION), str(VERDICT))
"""What the pipeline says of itself; a change may bring them too."""


EMPTY = "d751713988987e9331980363e24189ce"
"""DVC's hash of a folder with nothing in it, as a champion and data are before the first."""


def data_hash() -> str | None:
    """The hash of data/ that data.dvc states, without the `.dir` behind it; None where DVC does not track data/ yet."""
    try:
        content = DATA_DVC.read_bytes()
    except FileNotFoundError:
        return None
    if (stated := stated_hash(content)) is None:
        raise InputError(f"{DATA_DVC} is not a file of DVC's; restore it with `git checkout {DATA_DVC}`.")
    return stated


def stated_hash(content: bytes) -> str | None:
    """The hash that a .dvc file states of what it tracks, without the `.dir` behind it; None where it is none."""
    try:
        return str(YAML(typ="safe").load(content.decode())["outs"][0]["md5"]).removesuffix(".dir")
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        return None


class Artifact(BaseModel):
    """A JSON file that one step writes and others read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        atomic.write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError where the file is missing or is something else."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path} is missing; run `dvc repro`.") from None
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise InputError(f"{path}: {where}: {problem['msg']}; run `dvc repro --force`.") from None


class DeliveryCounts(Artifact):
    rows: int
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    """How many rows have each reason; a row can have several."""


class Validation(Artifact):
    rows: int
    accepted: int
    quarantined: int
    deliveries: dict[str, DeliveryCounts]

    @property
    def reasons(self) -> Counter[str]:
        """How many rows have each reason, over all deliveries."""
        return sum((Counter(each.reasons) for each in self.deliveries.values()), Counter())


class Parity(Artifact):
    """How far the exported graph is from the fitted estimator, on every training and holdout row."""

    rows: int
    tolerance: float
    largest_relative_difference: float
    rows_beyond_tolerance: int


class Holdout(Artifact):
    """The rows on which models are judged."""

    rows: int
    first: date | None
    last: date | None


class Contender(Artifact):
    """A model on the holdout. `bundle` and `bytes` are None for the naive baseline."""

    bundle: str | None
    bytes: int | None
    loss: float
    metrics: dict[str, float]


class SliceScore(Artifact):
    """The mean loss of both models on a part of the holdout."""

    column: str
    value: str
    rows: int
    champion: float | None
    challenger: float


class Churn(Artifact):
    """How the challenger's answers differ from the champion's on the holdout.

    For a classification `differences` are those of probabilities, and `moved` is the share of rows whose
    most probable class changes; for a regression they are relative to the champion's answer, and `moved` is the
    share of rows that change by more than 5%.
    """

    mean_difference: float
    largest_difference: float
    moved: float


class Evaluation(Artifact):
    """Everything that scoring says, before anybody decides."""

    loss: str
    holdout: Holdout
    champion: Contender | None
    challenger: Contender
    baseline: Contender
    slices: tuple[SliceScore, ...]
    churn: Churn | None
    importance: dict[str, float]
    """By how much the challenger's loss rises when a feature is shuffled, largest first."""


class Latency(Artifact):
    """Microseconds to score one row, this machine, one thread: median of many; None of what was not timed here."""

    champion: float | None
    challenger: float | None


class Comparison(Artifact):
    """Mean loss of the reference minus that of the challenger: above zero, the challenger is better."""

    rows: int
    groups: int | None
    """How many groups the rows belong to, where groups were held out: they are what was drawn, and what varies."""
    difference: float
    interval: tuple[float, float]
    confidence: float


class SliceVerdict(Artifact):
    column: str
    value: str
    comparison: Comparison
    reference_loss: float
    """The reference's mean loss on the slice."""
    judged: bool
    """False where the slice has too few rows to count."""
    regressed: bool

    @property
    def relative(self) -> float:
        """The difference as a share of the reference's loss."""
        return self.comparison.difference / self.reference_loss if self.reference_loss else 0.0


class FloorVerdict(Artifact):
    metric: str
    value: float
    bound: str
    held: bool


class Decay(Artifact):
    """The champion's loss when it was released, on the holdout of that day, and on the holdout of today."""

    at_release: float
    now: float
    released_on: Holdout


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
    decay: Decay | None

    @property
    def may_ship(self) -> bool:
        return self.verdict in ("ship", "first")


class Release(Artifact):
    """What was known of the champion when it was released. `champion` is None before the first release."""

    champion: str | None
    loss: str | None = None
    value: float | None = None
    verdict: Literal["ship", "first", "hold"] | None = None
    """`hold` where a maintainer has overruled it."""
    reason: str | None = None
    holdout: Holdout | None = None

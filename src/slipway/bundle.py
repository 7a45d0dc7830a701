"""The bundle is the directory of one trained model. It contains everything that serving needs.

    model.onnx          the ONNX graph of the model, including preprocessing
    schema.json         the columns, and how they map to the inputs of the graph
    reference.json      the distributions of features and predictions in the training data, for drift
    golden.json         a few training rows, or the model's `EXAMPLES`, with their expected predictions
    training_rows.npy   the ids of the training rows, which must not be in a holdout

The hash of the directory identifies the model everywhere. This module may import only the packages of the server.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slipway.errors import InputError

MODEL = "model.onnx"
SCHEMA = "schema.json"
REFERENCE = "reference.json"
GOLDEN = "golden.json"
TRAINING_ROWS = "training_rows.npy"

DESKTOP_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that desktop systems create in every folder that a person opens. .dvcignore lists them too."""

CPU = ("CPUExecutionProvider",)
ONNX_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}

Tensors = Mapping[str, NDArray[Any]]
UnknownFields = Literal["refuse", "ignore"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Plain):
    """A feature. For a date, `minimum` and `maximum` are ISO dates. For a text, they are numbers of characters.

    A value that equals a bound is allowed, unless `exclusive_minimum` or `exclusive_maximum` is set.
    """

    name: str
    type: Literal["number", "date", "category", "text", "vector", "image"]
    boolean: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True for a boolean column. The graph receives 1 or 0. A client may send true and false, or 1 and 0."""
    whole: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True for an integer column without `numbers`. A client may send 8 and 8.0, but not 8.5."""
    shape: tuple[int, ...] | None = Field(default=None, exclude_if=lambda shape: shape is None)
    """The shape of one value: the length of a vector, or height, width and channels of an image."""
    required: bool
    minimum: float | str | None = None
    maximum: float | str | None = None
    exclusive_minimum: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    exclusive_maximum: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    values: tuple[str, ...] | None = None
    numbers: tuple[float, ...] | None = Field(default=None, exclude_if=lambda numbers: numbers is None)
    """The only numbers that are allowed, in ascending order. None if all numbers in the range are allowed."""
    private: Literal["no", "drop", "hash"] | None = Field(default=None, exclude_if=lambda mark: mark is None)
    """How the prediction log stores the column: unchanged ("no"), not at all ("drop"), or as a hash ("hash"). None if
    the model does not define it.
    """


class ArrayColumn(NamedTuple):
    """A vector or image column: the shape of one value, and the data type of the graph's input."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Decision(_Plain):
    """The rule that turns probabilities into one class: the class with the smallest expected cost (Elkan 2001)."""

    costs: tuple[tuple[float, ...], ...]
    """`costs[i][j]` is the cost of the answer `j` if class `i` is true."""
    threshold: float | None
    """For two classes: the answer is the second class if its probability is at least this number. None for more
    classes.
    """

    def chosen(self, probabilities: NDArray[Any]) -> NDArray[np.intp]:
        """Return the position of the chosen class for each row of `probabilities` [rows, classes]."""
        if self.threshold is not None:
            return np.asarray(probabilities[:, 1] >= np.float32(self.threshold), dtype=np.intp)
        # Sums in float64 give the same choice for float32 probabilities and for their copies in float64.
        return np.asarray((probabilities.astype(np.float64) @ np.array(self.costs)).argmin(axis=1))


class Schema(_Plain):
    """The inputs and outputs of the model.

    The graph has two main inputs. `numbers` (float32) contains numbers, and dates as days since 1970-01-01.
    `categories` (string) contains categories and texts. Both inputs have their columns in the order of `columns`. Each
    vector and each image has a further input with the name of the column: float32 [rows, length] for a vector, and
    uint8 [rows, height, width, channels] for an image. The output has the shape [rows, 1] for a regression, and [rows,
    classes] for a classification.
    """

    kind: Literal["regression", "classification"]
    key: tuple[str, ...]
    """The columns whose hash is the id of a training row."""
    row_ids: str = ""
    """How the ids of rows are computed: the version and the key columns (`slipway.pipeline.row_ids`). The ids of two
    bundles can only be compared if the values of this field are equal.
    """
    target: str
    classes: tuple[str, ...] | None
    columns: tuple[Column, ...]
    unknown_fields: UnknownFields = "refuse"
    """How the server treats a field of a record that is not in `columns`."""
    decision: Decision | None = Field(default=None, exclude_if=lambda rule: rule is None)
    """The rule that chooses the answered class. Without a rule, the answer is the most probable class."""

    def content(self) -> bytes:
        """Return the content of schema.json.

        The default value of `unknown_fields` is left out, so that bundles that are older than this field keep their
        hash.
        """
        left_out = {"unknown_fields"} if self.unknown_fields == "refuse" else None
        return self.model_dump_json(indent=1, exclude=left_out).encode() + b"\n"

    def chosen(self, predictions: NDArray[Any]) -> NDArray[np.intp]:
        """Return the position of the answered class for each row of the probabilities `predictions` [rows, classes]."""
        if self.decision is not None:
            return self.decision.chosen(predictions)
        return np.asarray(predictions.argmax(axis=1))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the predictions: the classes, or the target of a regression."""
        return self.classes or (self.target,)

    @property
    def numbers(self) -> list[str]:
        return [column.name for column in self.columns if column.type in ("number", "date")]

    @property
    def categories(self) -> list[str]:
        """The names of the columns in the input `categories`, which include the texts."""
        return [column.name for column in self.columns if column.type in ("category", "text")]

    @property
    def texts(self) -> list[str]:
        return [column.name for column in self.columns if column.type == "text"]

    @property
    def arrays(self) -> dict[str, ArrayColumn]:
        """The columns that have a separate input in the graph: vectors and images."""
        return {
            column.name: ArrayColumn(column.shape, np.dtype(np.uint8 if column.type == "image" else np.float32))
            for column in self.columns
            if column.shape is not None
        }


class FeatureReference(_Plain):
    """The number of training rows in each bin of one feature or prediction.

    A text is counted by its length, a vector by its norm, and an image by its mean brightness from 0 to 255.

    For numbers, bin `i` includes its upper edge `edges[i]`. The last bin has no upper edge, so there is one more count
    than edges. For categories, there is one count for each of `values`. The value `(other)` represents all rare values.
    """

    edges: tuple[float, ...] | None = None
    values: tuple[str, ...] | None = None
    counts: tuple[int, ...]
    missing: int


class Reference(_Plain):
    """The training distributions of those features and predictions that servers count in bins.

    If a model has very many features, only the first features are included.
    """

    features: dict[str, FeatureReference]
    prediction: dict[str, FeatureReference]
    """The distributions of the predictions: one entry for a regression, or for a classification one entry for the
    probability of each class.
    """


class Golden(_Plain):
    """A few rows in the form in which a client sends them, and the expected prediction for each row."""

    rows: tuple[dict[str, bool | float | str | tuple[float, ...] | None], ...]
    predictions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked."""

    path: Path
    schema: Schema
    session: onnxruntime.InferenceSession

    @cached_property
    def hash(self) -> str:
        return folder_hash(self.path)

    @cached_property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    def predict(self, tensors: Tensors) -> NDArray[np.float32]:
        """Return the predictions for inputs of the graph, in the shape [rows, 1] or [rows, classes]."""
        answer = self.session.run(None, dict(tensors))[0]
        return np.asarray(answer, dtype=np.float32).reshape(len(answer), -1)

    def training_rows(self) -> NDArray[np.uint64]:
        """Return the sorted ids of the training rows."""
        try:
            rows: NDArray[np.uint64] = np.load(self.path / TRAINING_ROWS, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _corrupt(self.path, TRAINING_ROWS, error) from None
        if rows.dtype != np.uint64 or rows.ndim != 1 or (rows[1:] < rows[:-1]).any():
            raise _corrupt(self.path, TRAINING_ROWS, ValueError("not a sorted array of ids"))
        return rows

    def was_trained_on(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return a mask of the ids that belong to this model's training rows."""
        return contained(ids, self.training_rows())


def contained(ids: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return a mask of the ids that are in the sorted array `known`. Unlike np.isin, this does not copy `known`."""
    if not len(known):
        return np.zeros(len(ids), dtype=np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def load_bundle(path: Path, providers: Sequence[str] = CPU) -> Bundle:
    """Load a bundle to predict on one thread, with the given execution providers of ONNX Runtime.

    Raises InputError if a file is missing or corrupt, or if a provider does not work here.
    """
    _check_providers(providers, onnxruntime.get_available_providers())
    try:
        schema = Schema.model_validate_json((path / SCHEMA).read_bytes())
    except (OSError, ValidationError) as error:
        raise _corrupt(path, SCHEMA, error) from None
    try:
        session = onnx_session((path / MODEL).read_bytes(), providers)
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise _corrupt(path, MODEL, error) from None
    _check_providers(providers, session.get_providers())  # a provider of a GPU may lack libraries
    arrays = {name: (ONNX_TYPES[each.dtype.name], *each.shape) for name, each in schema.arrays.items()}
    inputs = {
        tensor.name: (tensor.type, *tensor.shape[1:]) if tensor.name in arrays else tensor.shape[-1]
        for tensor in session.get_inputs()
    }
    expected = {"numbers": len(schema.numbers), "categories": len(schema.categories), **arrays}
    if inputs != {name: width for name, width in expected.items() if width}:
        raise InputError(f"{path}: {MODEL} takes {inputs} and {SCHEMA} describes {expected}; restore the bundle.")
    return Bundle(path, schema, session)


@lru_cache(maxsize=2)
def bundle_with(path: Path, identity: str) -> Bundle:
    """Load the bundle at a path, once in each process. Raises InputError if the bundle's hash is not `identity`."""
    bundle = load_bundle(path)
    if bundle.hash != identity:
        raise InputError(f"A worker has the bundle {bundle.hash} at {path}, not {identity}; copy the latter to it.")
    return bundle


def _check_providers(wanted: Sequence[str], working: Sequence[str]) -> None:
    """Raise InputError if a provider does not work. ONNX Runtime itself only warns, and uses the CPU."""
    for name in wanted:
        if name not in working:
            raise InputError(
                f"ONNX Runtime cannot use {name} here; choose from {', '.join(working)} in SLIPWAY_EXECUTION_PROVIDERS."
            )


def onnx_session(model: bytes, providers: Sequence[str] = CPU, *, quiet: bool = False) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session that runs on one thread. With `quiet`, errors are raised, but not logged.

    For throughput, more replicas are better than more threads.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if quiet else 3
    return onnxruntime.InferenceSession(model, options, providers=list(providers))


def folder_hash(path: Path, without: Collection[str] = ()) -> str:
    """Return the hash that DVC computes for a directory: 32 hex digits, without the suffix `.dir` that .dvc files add.

    DVC hashes a JSON list with the path and the MD5 hash of each file, sorted by path. Unfinished files of
    `slipway.atomic` and files that desktop systems create are left out, as in .dvcignore. `without` lists the top-level
    files and folders that are left out too.
    """
    files = sorted(
        (name.as_posix(), path / name)
        for name in (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        if name.name not in DESKTOP_FILES
        and name.parts[0] not in without
        and not any(part.endswith(".partial") for part in name.parts)
    )
    listing = [
        {"md5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": name}
        for name, file in files
    ]
    return hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()


def check_columns(bundle: Bundle, delivered: Sequence[str]) -> None:
    """Raise InputError if the data lacks a column that the bundle expects."""
    lacking = [column.name for column in bundle.schema.columns if column.name not in delivered]
    if lacking:
        raise InputError(
            f"{bundle.path} expects the columns {', '.join(lacking)}, which the data does not have; "
            "keep them in the deliveries until a model without them is live."
        )


def _corrupt(path: Path, name: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(
            f"{path}/{name} is missing; get the bundle with `dvc pull {path}`, or make it with `dvc repro`."
        )
    detail = str(error).splitlines()[0].rstrip(".:")
    return InputError(f"{path}/{name} is corrupt ({detail}); restore the bundle with `dvc checkout --force {path}`.")

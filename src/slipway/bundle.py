"""Read a bundle: the directory of one trained model, with all files that the server needs.

    model.onnx          the ONNX graph of the model, including preprocessing
    schema.json         the columns, and how they map to the inputs of the graph
    reference.json      the distributions of features and predictions in the training data, for drift
    golden.json         a few training rows, or the model's `EXAMPLES`, with their expected predictions
    training_rows.npy   the ids of the training rows, which must not be in a holdout

The hash of the directory identifies the model everywhere. This module may import only packages that the image of
the server contains.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

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
"""Files that macOS and Windows create in opened folders. `folder_hash` ignores them, as DVC does with .dvcignore."""

SIGNALS = "signals"
"""The name of the graph's optional second output: an array of shape [rows, signals] for detecting drift."""
CPU = ("CPUExecutionProvider",)
ONNX_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}

Tensors = Mapping[str, NDArray[Any]]
Content = TypeVar("Content", bound=BaseModel)
UnknownFields = Literal["refuse", "ignore"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Plain):
    """A feature. Its `minimum` and `maximum` are ISO dates for a date, and numbers of characters for a text.

    A value equal to `minimum` or `maximum` is allowed, unless `exclusive_minimum` or `exclusive_maximum` is set.
    """

    name: str
    type: Literal["number", "date", "category", "text", "vector", "image"]
    boolean: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True for a boolean column. The graph receives 1 or 0. A client may send true and false, or 1 and 0."""
    whole: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    """True for a column of integers without a list of `numbers`. The server accepts 8 and 8.0, but not 8.5."""
    shape: tuple[int, ...] | None = Field(default=None, exclude_if=lambda shape: shape is None)
    """The shape of one value: the length of a vector, or height, width and channels of an image."""
    required: bool
    minimum: float | str | None = None
    maximum: float | str | None = None
    exclusive_minimum: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    exclusive_maximum: bool = Field(default=False, exclude_if=lambda is_set: not is_set)
    values: tuple[str, ...] | None = None
    numbers: tuple[float, ...] | None = Field(default=None, exclude_if=lambda numbers: numbers is None)
    """The allowed numbers, in ascending order. None if all numbers from `minimum` to `maximum` are allowed."""
    private: Literal["no", "drop", "hash"] | None = Field(default=None, exclude_if=lambda mark: mark is None)
    """How the prediction log stores the column: unchanged ("no"), not at all ("drop"), or as a hash ("hash"). None if
    the model does not set `private`.
    """


class ArrayColumn(NamedTuple):
    """A vector or image column: the shape of one value, and the data type of the graph's input."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Decision(_Plain):
    """The rule that selects a class from the probabilities: the class with the smallest expected cost (Elkan 2001)."""

    costs: tuple[tuple[float, ...], ...]
    """`costs[i][j]` is the cost of selecting class `j` if the true class is `i`."""
    threshold: float | None
    """For two classes, the second class is selected if its probability is at least this number. None for three or more
    classes.
    """

    def chosen(self, probabilities: NDArray[Any]) -> NDArray[np.intp]:
        """Return the index of the selected class for each row of `probabilities` [rows, classes]."""
        if self.threshold is not None:
            return np.asarray(probabilities[:, 1] >= np.float32(self.threshold), dtype=np.intp)
        # With sums in float64, float32 probabilities and their float64 copies always give the same class.
        return np.asarray((probabilities.astype(np.float64) @ np.array(self.costs)).argmin(axis=1))


class Schema(_Plain):
    """The inputs and outputs of the model.

    The graph has two main inputs. `numbers` (float32) contains numbers, and dates as days since 1970-01-01.
    `categories` (string) contains categories and texts. Both inputs have their columns in the order of `columns`. Each
    vector and each image has a further input with the name of the column: float32 [rows, length] for a vector, and
    uint8 [rows, height, width, channels] for an image. The output has the shape [rows, 1] for a regression, and [rows,
    classes] for a classification. A second output `signals` is optional.
    """

    kind: Literal["regression", "classification"]
    key: tuple[str, ...]
    """The columns that identify a row. The id of a training row is a hash of their values."""
    row_ids: str = ""
    """The method that computes the ids of rows: its version and the key columns (`slipway.pipeline.row_ids`). The ids
    of two bundles can be compared only if this field is equal in both bundles.
    """
    target: str
    classes: tuple[str, ...] | None
    columns: tuple[Column, ...]
    unknown_fields: UnknownFields = "refuse"
    """How the server treats a field of a record that is not in `columns`."""
    decision: Decision | None = Field(default=None, exclude_if=lambda rule: rule is None)
    """The rule that selects a class. A bundle without a rule selects the most probable class."""

    def content(self) -> bytes:
        """Return the content of schema.json.

        The field `unknown_fields` is left out if it has the default value. A bundle that is older than this field
        therefore keeps its hash.
        """
        left_out = {"unknown_fields"} if self.unknown_fields == "refuse" else None
        return self.model_dump_json(indent=1, exclude=left_out).encode() + b"\n"

    def chosen(self, predictions: NDArray[Any]) -> NDArray[np.intp]:
        """Return the index of the selected class for each row of the probabilities `predictions` [rows, classes]."""
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
        """The names of the columns in the graph's input `categories`: category columns and text columns."""
        return [column.name for column in self.columns if column.type in ("category", "text")]

    @property
    def texts(self) -> list[str]:
        return [column.name for column in self.columns if column.type == "text"]

    @property
    def unpublished(self) -> list[str]:
        """The names of the columns whose values must not be published: texts, vectors, images and private columns."""
        return [
            column.name
            for column in self.columns
            if column.type in ("text", "vector", "image") or column.private in ("drop", "hash")
        ]

    @property
    def arrays(self) -> dict[str, ArrayColumn]:
        """The columns that have a separate input in the graph: vectors and images."""
        return {
            column.name: ArrayColumn(column.shape, np.dtype(np.uint8 if column.type == "image" else np.float32))
            for column in self.columns
            if column.shape is not None
        }


class FeatureReference(_Plain):
    """The distribution of one feature in the training data: the number of rows in each bin.

    The bins of a text are ranges of its length. The bins of a vector are ranges of its norm. The bins of an image are
    ranges of its mean brightness, from 0 to 255.

    For numbers, bin `i` includes its upper edge `edges[i]`. The last bin has no upper edge, so there is one more count
    than edges. For categories, there is one count for each of `values`. The value `(other)` represents all rare values.
    """

    edges: tuple[float, ...] | None = None
    values: tuple[str, ...] | None = None
    counts: tuple[int, ...]
    missing: int


class Reference(_Plain):
    """The distributions of features and predictions in the training data. Requests with other distributions are drift.

    If a model has very many features, only the first ones are included, as many as `train.max_metric_series` allows.
    """

    features: dict[str, FeatureReference]
    """The distributions of the features, and of the signals (`signal_names`) at the end."""
    prediction: dict[str, FeatureReference]
    """The distributions of the predictions. A regression has one entry. A classification has one entry for the
    probability of each class.
    """


class Golden(_Plain):
    """A few rows in the form in which a client sends them, and the expected prediction for each row."""

    rows: tuple[dict[str, bool | float | str | tuple[float, ...] | None], ...]
    predictions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, whose files were checked when it was loaded."""

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
        return self.predict_with_signals(tensors)[0]

    def predict_with_signals(self, tensors: Tensors) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Return the predictions, and the values of each signal of the graph, by the name of the signal."""
        predictions, *others = self.session.run(None, dict(tensors))
        signals = {name: values for each in others for name, values in zip(signal_names(each), each.T, strict=True)}
        return np.asarray(predictions, dtype=np.float32).reshape(len(predictions), -1), signals

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
        """Return an array that is True for each id of a training row of this model."""
        return contained(ids, self.training_rows())


def signal_names(signals: NDArray[Any]) -> list[str]:
    """Return the name of each column of `signals`, an output of the graph."""
    return [f"{SIGNALS}[{number}]" for number in range(signals.shape[1])]


def contained(ids: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return, for each of `ids`, whether the sorted array `known` contains it.

    Unlike np.isin, this function does not copy `known`.
    """
    if not len(known):
        return np.zeros(len(ids), dtype=np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def load_bundle(path: Path, providers: Sequence[str] = CPU) -> Bundle:
    """Load a bundle to predict on one thread, with the given execution providers of ONNX Runtime.

    Raises InputError if a file is missing or corrupt, or if a provider does not work on this machine.
    """
    _check_providers(providers, onnxruntime.get_available_providers())
    schema = _read(path, SCHEMA, Schema)
    try:
        session = onnx_session((path / MODEL).read_bytes(), providers)
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise _corrupt(path, MODEL, error) from None
    _check_providers(providers, session.get_providers())  # libraries of a GPU provider may be missing
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
    """Load a bundle, at most once in each process. Raises InputError if the hash of the bundle is not `identity`."""
    bundle = load_bundle(path)
    if bundle.hash != identity:
        raise InputError(f"A worker has the bundle {bundle.hash} at {path}, not {identity}; copy the latter to it.")
    return bundle


def read_reference(path: Path) -> Reference:
    """Read the training distributions of a bundle. Raises InputError if the file is missing or corrupt."""
    return _read(path, REFERENCE, Reference)


def read_golden(path: Path) -> Golden:
    """Read the golden rows of a bundle. Raises InputError if the file is missing or corrupt."""
    return _read(path, GOLDEN, Golden)


def _check_providers(wanted: Sequence[str], working: Sequence[str]) -> None:
    """Raise InputError if a provider does not work. ONNX Runtime itself only warns, and uses the CPU."""
    for name in wanted:
        if name not in working:
            raise InputError(
                f"ONNX Runtime cannot use {name} here; choose from {', '.join(working)} in SLIPWAY_EXECUTION_PROVIDERS."
            )


def onnx_session(model: bytes, providers: Sequence[str] = CPU) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session that runs on one thread and logs nothing.

    Its exceptions contain each error. In a log of a server, an error could quote a value of a request.
    To serve more requests, start more replicas instead of using more threads.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=list(providers))


def folder_hash(path: Path, without: Collection[str] = ()) -> str:
    """Return the hash that DVC computes for a directory: 32 hex digits, without the suffix `.dir` that .dvc files add.

    DVC hashes a JSON list with the path and the MD5 hash of each file, sorted by path. The files that .dvcignore lists
    are left out: unfinished files of `slipway.atomic`, and files that desktop systems create. `without` lists further
    files and folders to leave out, by their names in the directory.
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


def _read(path: Path, name: str, kind: type[Content]) -> Content:
    try:
        return kind.model_validate_json((path / name).read_bytes())
    except (OSError, ValidationError) as error:
        raise _corrupt(path, name, error) from None


def _corrupt(path: Path, name: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(
            f"{path}/{name} is missing; get the bundle with `dvc pull {path}`, or make it with `dvc repro`."
        )
    detail = str(error).splitlines()[0].rstrip(".:")
    return InputError(f"{path}/{name} is corrupt ({detail}); restore the bundle with `dvc checkout --force {path}`.")

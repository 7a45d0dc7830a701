"""Represent ensembles of trees as plain arrays, independent of the library that fitted them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Link = Literal["identity", "shares", "sigmoid", "softmax", "exp"]
Comparison = Literal["<=", "<"]


class NotConvertible(Exception):
    """An estimator cannot be converted exactly. The message names the estimator and an alternative."""


class NotExportable(NotConvertible):
    """A step has an option that skl2onnx ignores without an error, so skl2onnx must not convert the model."""


@dataclass(frozen=True)
class Tree:
    """A tree as arrays with one element for each node. A row goes left if the comparison with the threshold is true."""

    left: NDArray[np.int64]
    """Index of the left child, or -1 at a leaf."""
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    """The value that a leaf adds to the sum of its target."""
    members: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """For each node that splits by category: the categories that go left."""

    @classmethod
    def of_one_leaf(cls, value: float) -> "Tree":
        nowhere = np.array([-1])
        return cls(nowhere, nowhere, np.zeros(1, int), np.zeros(1), np.zeros(1, bool), np.array([value]))


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaf values are added up in the same order and precision as in the library that fitted them."""

    trees: Sequence[tuple[int, Tree]]
    """The trees, each with the index of the target that it adds to."""
    base: Sequence[float]
    """The value that the sum of each target starts with."""
    link: Link
    """The function that converts sums to predictions. With `shares`, the sums already are probabilities.

    With `shares` and two classes, the only sum is the probability of the second class.
    """
    divisor: float = 1.0
    """The sums are divided by this number."""
    slope: float = 1.0
    """The sums are multiplied by this number before the link is applied."""
    comparison: Comparison = "<="
    reads: Literal["float32", "float64"] = "float64"
    """The type to which the library casts its inputs before it compares them with thresholds."""
    dtype: Literal["float32", "float64"] = "float64"
    """The type in which the library adds up leaves."""
    whole: frozenset[int] = frozenset()
    """Indices of the features that are categories. The digits after the decimal point of their values are ignored."""
    zero_is_missing: bool = False
    """True if the library treats zeros of a sparse matrix as missing values."""

    @property
    def targets(self) -> int:
        return len(self.base)


def search_tree(knots: NDArray[np.float64]) -> Tree:
    """Return a tree with one feature. The tree predicts how many of the sorted `knots` are at most the feature's value.

    Use the tree in an ensemble whose `comparison` is `<`.
    """
    left, right, threshold, value = [], [], [], []
    parts = [(0, len(knots))]
    for low, high in parts:  # the loop appends to this list
        middle = (low + high) // 2
        leaf = low == high
        left.append(-1 if leaf else len(parts))
        right.append(-1 if leaf else len(parts) + 1)
        threshold.append(0.0 if leaf else knots[middle])
        value.append(low)
        if not leaf:
            parts += [(low, middle), (middle + 1, high)]
    return Tree(
        left=np.array(left),
        right=np.array(right),
        feature=np.zeros(len(left), int),
        threshold=np.array(threshold),
        missing_left=np.zeros(len(left), bool),
        value=np.array(value, dtype=np.float64),
    )

"""Ensembles of trees as plain arrays, independent of the library that fitted them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Link = Literal["identity", "shares", "sigmoid", "softmax", "exp"]
Comparison = Literal["<=", "<"]


class NotConvertible(Exception):
    """An estimator cannot be converted exactly. The message names the estimator and an alternative."""


@dataclass(frozen=True)
class Tree:
    """One entry for each node: a row goes left if its feature compares true with the threshold."""

    left: NDArray[np.int64]
    """The node to go to, -1 at a leaf."""
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    """The value that a leaf adds."""
    members: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """By node that splits categories: those that go left."""

    @classmethod
    def of_one_leaf(cls, value: float) -> "Tree":
        nowhere = np.array([-1])
        return cls(nowhere, nowhere, np.zeros(1, int), np.zeros(1), np.zeros(1, bool), np.array([value]))


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves are added up, in the order and the precision of the original library."""

    trees: Sequence[tuple[int, Tree]]
    """Each tree with the target that it adds to."""
    base: Sequence[float]
    """The value that each target starts with."""
    link: Link
    """The function from sums to predictions. `shares`: the sums are probabilities, for two classes of the second."""
    divisor: float = 1.0
    """The sums are divided by it."""
    slope: float = 1.0
    """The sums are multiplied by it before the link."""
    comparison: Comparison = "<="
    reads: Literal["float32", "float64"] = "float64"
    """The type to which the library casts its inputs before it compares them."""
    dtype: Literal["float32", "float64"] = "float64"
    """The type in which the library adds up."""
    whole: frozenset[int] = frozenset()
    """Features that are categories. Their fraction is cut off."""
    zero_is_missing: bool = False
    """True if the library treats zeros of a sparse matrix as missing values."""

    @property
    def targets(self) -> int:
        return len(self.base)


def search_tree(knots: NDArray[np.float64]) -> Tree:
    """Return a tree that counts the sorted `knots` up to the value of its one feature. Its comparison is `<`."""
    left, right, threshold, value = [], [], [], []
    parts = [(0, len(knots))]
    for low, high in parts:  # grows as it goes
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

"""Compute distances between two distributions from the number of rows in each bin."""

import numpy as np
from numpy.typing import NDArray

from slipway.statistics.bins import count_numbers, decile_edges


def population_stability(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Return the population stability index (PSI) of two distributions, which is 0 if they are equal.

    `before` and `now` contain the number of rows in each bin.

    PSI is the symmetric Kullback-Leibler divergence. As a rule of thumb, a PSI below 0.1 means little change, and a PSI
    above 0.25 means a large change (Siddiqi, Credit Risk Scorecards, 2006). Half a row is added to each bin, because
    the PSI is undefined for empty bins.
    """
    old, new = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    return float(((new - old) * np.log(new / old)).sum())


def jensen_shannon(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Return the Jensen-Shannon divergence of two distributions, from 0 to 1 bit.

    `before` and `now` contain the number of rows in each bin.
    """
    shares = np.stack([counts / counts.sum() for counts in (before, now)])
    middle = np.broadcast_to(shares.mean(axis=0), shares.shape)
    filled = shares > 0  # an empty bin adds nothing
    bits = float((shares[filled] * np.log2(shares[filled] / middle[filled])).sum() / 2)
    return max(0.0, bits)


def bin_numbers(before: NDArray[np.float64], now: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the values of each array in bins, whose edges are the deciles of `before`. Values must not be missing."""
    edges = decile_edges(before)
    return count_numbers(before, edges), count_numbers(now, edges)


def bin_categories(before: NDArray[np.str_], now: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count how often each array contains each distinct value. Missing values are not allowed."""
    values, position = np.unique(np.concatenate([before, now]), return_inverse=True)
    counts = (np.bincount(each, minlength=len(values)) for each in np.split(position, [len(before)]))
    return next(counts), next(counts)

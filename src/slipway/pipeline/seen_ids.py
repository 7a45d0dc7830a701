"""Keep the ids of all accepted rows, and find the delivery of each id."""

import numpy as np
from numpy.typing import NDArray

from slipway.pipeline.row_ids import Ids

Owners = NDArray[np.int32]
NEW = -1
"""The owner of an id that no delivery contains."""
BITS_PER_ID = 16
"""Minimum number of filter bits per id. With 16 bits, the filter recognises on average at least 15 of 16 new ids as
new.
"""
FEWEST_BITS = 16
BLOCK_IDS = 128 * 1024


class IdFilter:
    """An approximate set of ids. `may_have` is true for every added id, and for a few ids that were not added.

    The first bits of an id select one bit of an array. Ids are hashes, so they are spread evenly over the array.
    """

    def __init__(self, bits: int = FEWEST_BITS) -> None:
        self.bits = bits
        self._table = np.zeros(2 ** (bits - 3), dtype=np.uint8)

    def may_have(self, ids: Ids) -> NDArray[np.bool_]:
        """Return a mask of the ids that are possibly in the set. An id outside of this mask is not in the set."""
        places, bits = self._places(ids)
        found: NDArray[np.bool_] = (self._table[places] & bits) != 0
        return found

    def add(self, ids: Ids) -> None:
        """Add ids to the set."""
        np.bitwise_or.at(self._table, *self._places(ids))

    def _places(self, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        places = (ids >> np.uint64(64 - self.bits)).astype(np.int64)
        return places >> 3, np.left_shift(1, places & 7).astype(np.uint8)


class SeenIds:
    """A growing set of row ids. Each id has an owner, which is the number of its delivery.

    The ids are kept in sorted arrays. A new array that is longer than half of the previous array is merged with it.
    There are therefore at most log2(rows) arrays, and adding n ids costs O(n log n) on average. A search in a large
    array is slow, because each step reads a distant part of memory. A filter therefore first finds the ids that are
    certainly new.
    """

    def __init__(self) -> None:
        self._arrays: list[tuple[Ids, Owners]] = []
        self._filter = IdFilter()
        self._number = 0
        self._has_removed = False

    def owners(self, ids: Ids) -> Owners:
        """Return the owner of each id, or `NEW` for an id that no delivery contains."""
        found = np.full(len(ids), NEW, dtype=np.int32)
        searched = self._to_search(ids)
        for known, owners in self._arrays:
            places, matches = _find(known, ids[searched])
            found[searched[matches]] = owners[places[matches]]
        return found

    def add(self, ids: Ids, owner: int, *, all_new: bool) -> None:
        """Add ids from one delivery. The delivery also becomes the owner of ids that are in the set already.

        `all_new` is True if none of the ids is in the set yet.
        """
        if not all_new or self._has_removed:
            ids = ids[~self._replace(ids, owner)]
        if not len(ids):
            return
        self._arrays.append((np.sort(ids), np.full(len(ids), owner, dtype=np.int32)))
        while len(self._arrays) > 1 and len(self._arrays[-2][0]) < 2 * len(self._arrays[-1][0]):
            self._arrays.append(_merge(self._arrays.pop(-2), self._arrays.pop()))
        self._number += len(ids)
        self._add_to_filter(ids)

    def remove(self, ids: Ids) -> None:
        """Remove ids from the set.

        The removed ids keep their places in the arrays, because moving all other ids would be slow.
        """
        self._replace(ids, NEW)
        self._has_removed = True

    def _add_to_filter(self, ids: Ids) -> None:
        if BITS_PER_ID * self._number <= 2**self._filter.bits:
            self._filter.add(ids)
            return
        self._filter = IdFilter((BITS_PER_ID * self._number - 1).bit_length())
        for array, _ in self._arrays:
            for start in range(0, len(array), BLOCK_IDS):
                self._filter.add(array[start : start + BLOCK_IDS])

    def _to_search(self, ids: Ids) -> NDArray[np.intp]:
        """Return the positions of the ids that are possibly in the set. They are ordered by id for a faster search."""
        searched = np.flatnonzero(self._filter.may_have(ids))
        return searched[np.argsort(ids[searched])]

    def _replace(self, ids: Ids, owner: int) -> NDArray[np.bool_]:
        """Change the owner of the `ids` that are already in the arrays. Return a mask of these ids."""
        known = np.zeros(len(ids), dtype=np.bool_)
        searched = self._to_search(ids)
        for array, owners in self._arrays:
            places, matches = _find(array, ids[searched])
            owners[places[matches]] = owner
            known[searched[matches]] = True
        return known


def _find(known: Ids, ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the position of each id in a sorted array, and a mask of the ids that the array contains."""
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return places, known[places] == ids


def _merge(first: tuple[Ids, Owners], second: tuple[Ids, Owners]) -> tuple[Ids, Owners]:
    """Merge two sorted arrays of ids with their owners, and free the memory of each array as soon as possible."""
    ids, owners = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    del first, second
    owners = owners[np.argsort(ids, kind="stable")]
    ids.sort(kind="stable")  # for two sorted parts, this takes linear time and, unlike indexing, no memory for a copy
    return ids, owners

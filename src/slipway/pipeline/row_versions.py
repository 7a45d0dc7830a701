"""Find the newest version of each row. A later delivery can replace or delete the rows of earlier deliveries."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slipway.pipeline.row_ids import NO_IDS, Ids

Mask = NDArray[np.bool_]


class Versions:
    """The ids whose earlier rows are replaced or deleted.

    Each id is stored with a row number. Rows with the same id and a smaller row number are replaced or deleted.
    """

    def __init__(self) -> None:
        self._ids: list[Ids] = []
        self._starts: list[NDArray[np.int64]] = []

    def add(self, ids: Ids, start: int) -> None:
        """Add ids. All rows with these ids and a row number below `start` are replaced or deleted."""
        if len(ids):
            self._ids.append(ids)
            self._starts.append(np.full(len(ids), start))

    def newest(self) -> "NewestVersions":
        """Return the sorted ids, each with the row number that was added last."""
        if not self._ids:
            return NewestVersions(NO_IDS, np.array([], dtype=np.int64))
        ids, starts = np.concatenate(self._ids), np.concatenate(self._starts)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        is_last = np.append(ids[1:] != ids[:-1], True)
        return NewestVersions(ids[is_last], starts[order][is_last])


@dataclass(frozen=True)
class NewestVersions:
    """Sorted ids. For each id, `starts` is the number of the first row that no later delivery replaces or deletes."""

    ids: Ids
    starts: NDArray[np.int64]

    def find(self, ids: Ids, start: int) -> tuple[Mask, Mask]:
        """Return a mask of the newest version of each row, and a mask of the rows that have several versions.

        The rows are numbered from `start`.
        """
        newest, repeated = np.ones(len(ids), dtype=np.bool_), np.zeros(len(ids), dtype=np.bool_)
        if len(self.ids):
            order = np.argsort(ids)  # a search for sorted ids is faster
            places = np.minimum(np.searchsorted(self.ids, ids[order]), len(self.ids) - 1)
            repeated[order] = self.ids[places] == ids[order]
            newest[order] = start + order >= self.starts[places]
            newest |= ~repeated
        return newest, repeated

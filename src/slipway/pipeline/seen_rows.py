"""Check each delivery against the rows of all earlier deliveries.

The time to check a delivery hardly depends on the number of earlier deliveries.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from slipway.config import Validate
from slipway.contract import Model
from slipway.pipeline.columns import ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery
from slipway.pipeline.delivery import RowNumbers
from slipway.pipeline.row_ids import Ids
from slipway.pipeline.typed_rows import fault_table, join_faults

Owners = NDArray[np.int32]
NEW = -1
"""Replaces the number of the delivery if an id is new."""
EARLIEST = pd.Timestamp.min.to_datetime64()


class SeenIds:
    """A growing set of row ids. Each id is stored with the number of its delivery, its owner.

    The ids are kept in sorted arrays. A new array is merged with the array before it, unless the earlier array is at
    least twice as long. There are therefore at most log2(rows) arrays, and adding n ids costs O(n log n) on average.
    """

    def __init__(self) -> None:
        self._arrays: list[tuple[Ids, Owners]] = []

    def owners(self, ids: Ids) -> Owners:
        """Return the number of each id's delivery, or `NEW` for an id that no delivery contains."""
        found = np.full(len(ids), NEW, dtype=np.int32)
        for known, owners in self._arrays:
            places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            matches = known[places] == ids
            found[matches] = owners[places[matches]]
        return found

    def add(self, ids: Ids, owner: int, *, all_new: bool) -> None:
        """Add ids from one delivery. The delivery also becomes the owner of ids that are in the set already.

        `all_new` is True if none of the ids is in the set yet.
        """
        if len(ids) and not all_new:
            ids = ids[~self._replace(ids, owner)]
        if not len(ids):
            return
        self._arrays.append((np.sort(ids), np.full(len(ids), owner, dtype=np.int32)))
        while len(self._arrays) > 1 and len(self._arrays[-2][0]) < 2 * len(self._arrays[-1][0]):
            self._arrays.append(_merge(self._arrays.pop(-2), self._arrays.pop()))

    def _replace(self, ids: Ids, owner: int) -> NDArray[np.bool_]:
        """Change the owner of the ids that are in the set. Return a mask of these ids."""
        known = np.zeros(len(ids), dtype=np.bool_)
        for array, owners in self._arrays:
            places = np.minimum(np.searchsorted(array, ids), len(array) - 1)
            matches = array[places] == ids
            owners[places[matches]] = owner
            known |= matches
        return known


def _merge(first: tuple[Ids, Owners], second: tuple[Ids, Owners]) -> tuple[Ids, Owners]:
    """Merge two sorted arrays of ids with their owners, and free the memory of each array as soon as possible."""
    ids, owners = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    del first, second
    owners = owners[np.argsort(ids, kind="stable")]
    ids.sort(kind="stable")  # takes linear time for two sorted parts, and no memory for a copy, unlike indexing
    return ids, owners


class SeenRows:
    """The ids of all accepted rows so far, and the latest time in the deliveries before the current one."""

    def __init__(self, model: Model, rules: Validate) -> None:
        self._model, self._rules = model, rules
        self._ids = SeenIds()
        self._names: list[str] = []
        self._end_of_current = EARLIEST
        self._latest: tuple[str, np.datetime64] | None = None

    def check(self, delivery: Delivery) -> Delivery:
        """Check a delivery, or the next part of the current delivery, and store the ids of its accepted rows.

        Rows that repeat a key or are too old get a fault, and are removed from the accepted rows.
        """
        self._begin(delivery.name)
        table, time = delivery.table, self._model.TIME
        rows, ids = table.column(ROW).to_numpy(), table.column(ROW_ID).to_numpy()
        times = table.column(time).to_numpy() if time else None
        owners = self._ids.owners(ids)
        is_new = owners == NEW
        found = [*self._repeated(rows, ids, owners)]
        if times is not None and self._latest and self._rules.late_rows == "quarantine":
            replaces = ~is_new & (self._rules.repeated_keys == "replace")
            found += _too_early(rows, times, replaces, *self._latest)
        if found:
            faults = join_faults([delivery.faults, *found])
            fresh = ~np.isin(rows, faults[ROW].to_numpy())
            delivery = replace(delivery, faults=faults, table=table.filter(pa.array(fresh)))
            ids, is_new = ids[fresh], is_new[fresh]
            times = None if times is None else times[fresh]
        self._ids.add(ids, len(self._names) - 1, all_new=bool(is_new.all()))
        if times is not None and len(times):
            self._end_of_current = max(times.max(), self._end_of_current)
        replaced = len(ids) - int(np.count_nonzero(is_new))
        return replace(delivery, replaced=replaced) if replaced else delivery

    def _begin(self, name: str) -> None:
        """Start a new delivery, unless `name` is the current delivery."""
        if self._names and self._names[-1] == name:
            return
        if self._end_of_current > (self._latest[1] if self._latest else EARLIEST):
            self._latest = (self._names[-1], self._end_of_current)
        self._names.append(name)
        self._end_of_current = EARLIEST

    def _repeated(self, rows: RowNumbers, ids: Ids, owners: Owners) -> Iterator[pd.DataFrame]:
        current = len(self._names) - 1
        if len(np.unique(ids)) < len(ids) or (owners == current).any():
            repeated = (owners == current) | pd.Index(ids).duplicated()
            yield fault_table(pd.Index(rows[repeated]), "the same key as an earlier row of the delivery")
        if self._rules.repeated_keys == "replace" or (owners == NEW).all():
            return
        for owner in np.unique(owners[(owners != NEW) & (owners != current)]):
            yield fault_table(pd.Index(rows[owners == owner]), f"already delivered in {self._names[owner]}")


def _too_early(
    rows: RowNumbers,
    times: NDArray[np.datetime64],
    replaces: NDArray[np.bool_],
    earlier: str,
    end: np.datetime64,
) -> Iterator[pd.DataFrame]:
    early = (times < end) & ~replaces
    if early.any():
        yield fault_table(
            pd.Index(rows[early]),
            f"dated before the end of the earlier delivery {earlier} ({pd.Timestamp(end):%Y-%m-%d})",
        )

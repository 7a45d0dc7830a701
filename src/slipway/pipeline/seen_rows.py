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
from slipway.pipeline.row_ids import NO_IDS, Ids
from slipway.pipeline.seen_ids import NEW, Owners, SeenIds
from slipway.pipeline.typed_rows import fault_table, join_faults

EARLIEST = pd.Timestamp.min.to_datetime64()


class SeenRows:
    """The ids of all accepted rows so far, and the latest time in the deliveries before the current one.

    The ids do not include deleted rows.
    """

    def __init__(self, model: Model, rules: Validate) -> None:
        self._model, self._rules = model, rules
        self._ids = SeenIds()
        self._names: list[str] = []
        self._end_of_current = EARLIEST
        self._deleted: list[Ids] = []
        self._latest: tuple[str, np.datetime64] | None = None

    def check(self, delivery: Delivery) -> Delivery:
        """Check a delivery, or the next part of the current delivery, and store the ids of its accepted rows.

        Rows that repeat a key or are too old get a fault, and are removed from the accepted rows. If the delivery is a
        list of keys, the ids of its keys are removed.
        """
        self._begin(delivery.name)
        if delivery.is_key_list:
            return self._delete(delivery)
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
        return delivery if is_new.all() else replace(delivery, replaced=ids[~is_new])

    def _delete(self, keys: Delivery) -> Delivery:
        """Remove the ids of a list of keys, so that these keys are valid again in later deliveries."""
        ids = np.unique(keys.table.column(ROW_ID).to_numpy())
        known = self._ids.owners(ids) != NEW
        repeated = np.isin(ids, np.concatenate([NO_IDS, *self._deleted]))
        self._ids.remove(ids[known])
        self._deleted.append(ids[known])
        return replace(keys, deleted=ids[known], unmatched=int(np.count_nonzero(~known & ~repeated)))

    def _begin(self, name: str) -> None:
        """Start a new delivery, unless `name` is the current delivery."""
        if self._names and self._names[-1] == name:
            return
        if self._end_of_current > (self._latest[1] if self._latest else EARLIEST):
            self._latest = (self._names[-1], self._end_of_current)
        self._names.append(name)
        self._deleted = []
        self._end_of_current = EARLIEST

    def _repeated(self, rows: RowNumbers, ids: Ids, owners: Owners) -> Iterator[pd.DataFrame]:
        current = len(self._names) - 1
        if len(np.unique(ids)) < len(ids) or (owners == current).any():
            repeated = (owners == current) | pd.Index(ids).duplicated()
            yield fault_table(pd.Index(rows[repeated]), "the same key as an earlier row of the delivery")
        if self._rules.repeated_keys == "replace" or (owners == NEW).all():
            return
        known = (owners != NEW) & (owners != current)
        if known.any():
            reasons = [f"already delivered in {self._names[owner]}" for owner in owners[known].tolist()]
            yield fault_table(pd.Index(rows[known]), reasons)


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

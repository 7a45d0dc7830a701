"""Count the requests in a shipped prediction log in the same way as the servers count requests for Prometheus."""

from datetime import datetime, timedelta

import pyarrow.compute as pc

from slipway.bundle import Bundle, Reference
from slipway.config import duration
from slipway.errors import InputError
from slipway.integrations.log_store import DAY, LogStore
from slipway.monitoring.log_tables import UNREADABLE, answer_columns, read_table, refuse_copy
from slipway.monitoring.metric_counts import RequestCounts
from slipway.monitoring.row_counts import add_counts, count_rows
from slipway.pipeline.logged_rows import logged_rows
from slipway.pipeline.tensors import features
from slipway.serving.log_segments import header_in

COUNTED = ("number", "date", "category", "text")


def count_log(store: LogStore, bundle: Bundle, reference: Reference, window: str, now: datetime) -> RequestCounts:
    """Count the requests to a bundle that were logged in the window that ends now.

    Features are left out if the log does not store their values in a countable form, for example if they are private.
    Raises InputError if the log has no such request, or cannot be read.
    """
    since = now - timedelta(seconds=duration(window))
    total: RequestCounts | None = None
    for name in store.files():
        day, _, rest = name.partition("/")
        if day >= f"{DAY}{since.date()}" and rest.startswith(f"bundle={bundle.hash}/"):
            counts = _count_file(store, name, bundle, reference, since, now)
            total = counts if total is None else add_counts(total, counts)
    if total is None or not total.rows:
        raise InputError(
            f"{store.address} has no request to the champion {bundle.hash} in the last {window}; correct the address, "
            "or use a longer window."
        )
    return total


def _count_file(
    store: LogStore, name: str, bundle: Bundle, reference: Reference, since: datetime, now: datetime
) -> RequestCounts:
    content = store.read(name)
    try:
        table = read_table(content)
        header = header_in(table.schema.metadata)
        refuse_copy(name, header)
        table = table.filter((pc.field("time") >= pc.scalar(since)) & (pc.field("time") <= pc.scalar(now)))
        columns = zip(header.outputs, answer_columns(header), strict=True)
        outputs = {name: table.column(each).to_numpy() for name, each in columns}
        known = [each for each in bundle.schema.columns if each.type in COUNTED and each.private in (None, "no")]
        schema = bundle.schema.model_copy(update={"columns": tuple(known)})
        frame = features(logged_rows(table.to_pandas(), known), schema)
    except UNREADABLE:
        raise InputError(f"{store.address}/{name} is not a file of a prediction log; remove it.") from None
    return count_rows(frame, outputs, reference)

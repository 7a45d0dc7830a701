"""Count requests for drift detection: from Prometheus, the output of /metrics, a delivery, or a prediction log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd

from slipway import artifacts, config
from slipway.bundle import Bundle, Reference, check_columns
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.integrations.prometheus import Prometheus
from slipway.monitoring.log_counts import count_log
from slipway.monitoring.metric_counts import Counts, Malformed, RequestCounts, read_page, request_counts
from slipway.monitoring.replica_counts import read_counts
from slipway.monitoring.row_counts import count_rows
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.validate import check_deliveries
from slipway.statistics.bins import finite_numbers

MAX_BYTES = 4 * 2**20
"""Maximum size of a file with the output of /metrics."""


@dataclass(frozen=True)
class DriftSource:
    """The options of `slipway drift`. At most one of `prometheus`, `metrics`, `delivery` and `log` is set."""

    prometheus: str | None = None
    metrics: tuple[Path, ...] = ()
    delivery: str | None = None
    window: str | None = None
    token: str | None = None
    log: str | None = None

    def read(self, rule: config.Drift, bundle: Bundle, reference: Reference, today: date) -> RequestCounts:
        """Read the request counts from the chosen source, by default from the Prometheus server at `drift.prometheus`.

        Raises InputError if there is no source or more than one.
        """
        sources = [bool(each) for each in (self.prometheus, self.metrics, self.delivery, self.log)]
        if sum(sources) > 1:
            raise InputError("--prometheus, --metrics, --delivery and --log cannot be combined; use one of them.")
        if self.metrics:
            return of_pages(self.metrics, bundle, reference)
        if self.delivery:
            return of_delivery(self.delivery, today, bundle, reference)
        if self.log:
            return count_log(LogStore(self.log), bundle, reference, self.window or rule.window, datetime.now(UTC))
        url = self.prometheus or rule.prometheus
        if url is None:
            raise InputError(
                "Use --prometheus, --metrics, --delivery or --log, or set drift.prometheus in params.yaml."
            )
        counts = read_counts(Prometheus(url, self.token), rule.label_matchers, bundle.hash, self.window or rule.window)
        try:
            return request_counts(counts, reference)
        except Malformed as error:
            raise InputError(f"{url} {error}; let it scrape servers of one release of Slipway.") from None


def of_pages(paths: Sequence[Path], bundle: Bundle, reference: Reference) -> RequestCounts:
    """Read files with the output of /metrics, one file for each replica, and add up their counts."""
    total = Counts()
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("--metrics names a file twice, which would be counted twice; name one file for each replica.")
    for path in paths:
        try:
            counts = read_page(_text(path), bundle.hash)
            request_counts(counts, reference)
        except Malformed as error:
            raise InputError(f"{path} {error}; download it again from a server of the champion.") from None
        total.update(counts)
    return request_counts(total, reference)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) <= MAX_BYTES:
            return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a file with the output of /metrics.") from None
    raise InputError(f"{path} has more than {MAX_BYTES:,} bytes; name a file with the output of /metrics.")


def of_delivery(name: str, today: date, bundle: Bundle, reference: Reference) -> RequestCounts:
    """Count the accepted rows of the delivery `name` in data/ as if they were requests."""
    rules = load_params(artifacts.PARAMS).validate_
    deliveries = check_deliveries(artifacts.DATA, load_model(), rules, today, artifacts.CHECKED)
    accepted = [each.accepted for each in deliveries if each.name == name and not each.is_key_list]
    if not accepted:
        raise InputError(f"{artifacts.DATA}/ has no delivery {name}; name one that is in {artifacts.DATA}/.")
    rows = pd.concat(accepted, ignore_index=True)
    check_columns(bundle, list(rows.columns))
    return of_rows(bundle, reference, features(rows, bundle.schema))


def of_rows(bundle: Bundle, reference: Reference, frame: pd.DataFrame) -> RequestCounts:
    """Count rows and their predictions as a server does. `frame` is the result of the function `features`."""
    answers, signals = bundle.predict_with_signals(tensors(frame, bundle.schema))
    counted = frame.assign(**{name: finite_numbers(values) for name, values in signals.items()})
    return count_rows(counted, dict(zip(bundle.schema.outputs, answers.T, strict=True)), reference)

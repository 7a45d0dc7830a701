"""Read the counts of requests for drift from Prometheus, from the output of /metrics, or from a delivery."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from slipway import artifacts, config
from slipway.bundle import REFERENCE, Bundle, FeatureReference, Reference, check_columns
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import InputError
from slipway.integrations.prometheus import Prometheus
from slipway.monitoring.metric_counts import BinCounts, Counts, Malformed, RequestCounts, read_page, request_counts
from slipway.monitoring.replica_counts import read_counts
from slipway.pipeline.tensors import features, measured, tensors
from slipway.pipeline.validate import check_deliveries
from slipway.statistics.bins import OTHER, category_rows, count_numbers

MAX_BYTES = 4 * 2**20
"""Maximum size of a file with the output of /metrics."""


@dataclass(frozen=True)
class DriftSource:
    """The options of `slipway drift`. `prometheus`, `metrics` and `delivery` are sources, of which one can be used."""

    prometheus: str | None = None
    metrics: tuple[Path, ...] = ()
    delivery: str | None = None
    window: str | None = None
    token: str | None = None

    def read(self, rule: config.Drift, bundle: Bundle, reference: Reference, today: date) -> RequestCounts:
        """Read the counts of requests. The default source is the Prometheus server at `drift.prometheus`.

        Raises InputError if there is no source or more than one.
        """
        sources = [bool(each) for each in (self.prometheus, self.metrics, self.delivery)]
        if sum(sources) > 1:
            raise InputError("--prometheus, --metrics and --delivery cannot be combined; use one of them.")
        if self.metrics:
            return of_pages(self.metrics, bundle, reference)
        if self.delivery:
            return of_delivery(self.delivery, today, bundle, reference)
        url = self.prometheus or rule.prometheus
        if url is None:
            raise InputError("Use --prometheus, --metrics or --delivery, or set drift.prometheus in params.yaml.")
        counts = read_counts(Prometheus(url, self.token), rule.label_matchers, bundle.hash, self.window or rule.window)
        try:
            return request_counts(counts, reference)
        except Malformed as error:
            raise InputError(f"{url} {error}; let it scrape servers of one release of Slipway.") from None


def read_reference(path: Path) -> Reference:
    """Read the distributions of a bundle's training data."""
    try:
        return Reference.model_validate_json((path / REFERENCE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path / REFERENCE}: {str(error).splitlines()[0]}; restore the bundle.") from None


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
    """Count the accepted rows of a delivery as if they were requests."""
    rules = load_params(artifacts.PARAMS).validate_
    deliveries = check_deliveries(artifacts.DATA, load_model(), rules, today, artifacts.CHECKED)
    accepted = [each.accepted for each in deliveries if each.name == name]
    if not accepted:
        raise InputError(f"{artifacts.DATA}/ has no delivery {name}; name one of {artifacts.DATA}/.")
    rows = pd.concat(accepted, ignore_index=True)
    check_columns(bundle, list(rows.columns))
    return of_rows(bundle, reference, features(rows, bundle.schema))


def of_rows(bundle: Bundle, reference: Reference, frame: pd.DataFrame) -> RequestCounts:
    """Count rows and their predictions as a server does. `frame` is the result of `features`."""
    answers = bundle.predict(tensors(frame, bundle.schema))
    names = bundle.schema.classes or (bundle.schema.target,)
    outputs = dict(zip(names, answers.T, strict=True))  # of many classes, only the first are in the reference
    return RequestCounts(
        rows=len(frame),
        features={name: _count_feature(frame[name], each) for name, each in reference.features.items()},
        prediction={name: _count(outputs[name], each) for name, each in reference.prediction.items()},
    )


def _count_feature(values: "pd.Series[Any]", reference: FeatureReference) -> BinCounts:
    return _count(values.to_numpy() if reference.edges is None else measured(values), reference)


def _count(values: NDArray[Any], reference: FeatureReference) -> BinCounts:
    if reference.values is None:
        present = values[~np.isnan(values)]
        counts = count_numbers(present, np.array(reference.edges, dtype=np.float32))
        return BinCounts(tuple(counts.tolist()), len(values) - len(present))
    found = Counter(values.tolist())
    missing = found.pop("", 0)
    frequent = {value: found.pop(value, 0) for value in category_rows(reference) if value != OTHER}
    return BinCounts((*frequent.values(), found.total()), missing)

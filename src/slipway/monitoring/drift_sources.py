"""Where it is read what the live model was asked: Prometheus, pages of /metrics, or a delivery."""

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
from slipway.contract import load_model
from slipway.errors import InputError
from slipway.monitoring.metric_counts import Asked, Counts, Malformed, Rows, asked, read_page
from slipway.monitoring.prometheus import Prometheus
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.validate import check_deliveries
from slipway.statistics.bins import count_numbers

MAX_BYTES = 4 * 2**20
"""Of a page of /metrics."""


@dataclass(frozen=True)
class Named:
    """What a person named; `prometheus`, `metrics` and `delivery` are sources."""

    prometheus: str | None = None
    metrics: tuple[Path, ...] = ()
    delivery: str | None = None
    window: str | None = None
    token: str | None = None

    def read(self, rule: config.Drift, bundle: Bundle, reference: Reference, today: date) -> Asked:
        """Read what the champion was asked. Raises InputError unless exactly one source is given."""
        sources = [bool(each) for each in (self.prometheus, self.metrics, self.delivery)]
        if sum(sources) > 1:
            raise InputError("Name one of --prometheus, --metrics and --delivery; each is a source of its own.")
        if self.metrics:
            return of_pages(self.metrics, bundle, reference)
        if self.delivery:
            return of_delivery(self.delivery, today, bundle, reference)
        url = self.prometheus or rule.prometheus
        if url is None:
            raise InputError("Name --prometheus, --metrics or --delivery, or drift.prometheus in params.yaml.")
        server = Prometheus(url, rule.label_matchers, self.token)
        counts = server.counts(bundle.hash, self.window or rule.window)
        try:
            return asked(counts, reference)
        except Malformed as error:
            raise InputError(f"{url} {error}; let it scrape servers of one release of Slipway.") from None


def read_reference(path: Path) -> Reference:
    """How the training of a bundle was distributed."""
    try:
        return Reference.model_validate_json((path / REFERENCE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path / REFERENCE}: {str(error).splitlines()[0]}; restore the bundle.") from None


def of_pages(paths: Sequence[Path], bundle: Bundle, reference: Reference) -> Asked:
    """Of pages that were scraped from one replica each."""
    total = Counts()
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("A page of /metrics is named twice, and would count twice; name each replica's once.")
    for path in paths:
        try:
            counts = read_page(_text(path), bundle.hash)
            asked(counts, reference)
        except Malformed as error:
            raise InputError(f"{path} {error}; scrape it anew from a server of the champion.") from None
        total.update(counts)
    return asked(total, reference)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) <= MAX_BYTES:
            return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a page of /metrics.") from None
    raise InputError(f"{path} has more than {MAX_BYTES:,} bytes; name a page of /metrics.")


def of_delivery(name: str, today: date, bundle: Bundle, reference: Reference) -> Asked:
    """Of the rows of a delivery that validation accepts, as if the champion had been asked them."""
    deliveries = check_deliveries(artifacts.DATA, load_model(), today)
    accepted = [each.accepted for each in deliveries if each.name == name]
    if not accepted:
        raise InputError(f"{artifacts.DATA}/{name}.csv does not exist; name a delivery of {artifacts.DATA}/.")
    rows = pd.concat(accepted, ignore_index=True)
    check_columns(bundle, list(rows.columns))
    return ask(bundle, reference, features(rows, bundle.schema))


def ask(bundle: Bundle, reference: Reference, frame: pd.DataFrame) -> Asked:
    """The counts that a server would have which is asked these rows; `frame` is one of `features`."""
    answers = bundle.predict(tensors(frame, bundle.schema))
    outputs = zip(reference.prediction.items(), answers.T, strict=True)
    return Asked(
        rows=len(frame),
        features={name: _count(frame[name].to_numpy(), each) for name, each in reference.features.items()},
        prediction={name: _count(values, each) for (name, each), values in outputs},
    )


def _count(values: NDArray[Any], reference: FeatureReference) -> Rows:
    if reference.values is None:
        known = values[~np.isnan(values)]
        counts = count_numbers(known, np.array(reference.edges, dtype=np.float32))
        return Rows(tuple(counts.tolist()), len(values) - len(known))
    found = Counter(values.tolist())
    missing = found.pop("", 0)
    known_values = [found.pop(value, 0) for value in reference.values]
    return Rows((*known_values, found.total()), missing)

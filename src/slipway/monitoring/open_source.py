"""Open the source of deliveries that params.yaml names."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Protocol

from slipway.config import Ingest, Params
from slipway.contract import Model
from slipway.delivery_names import Listing
from slipway.integrations.delivery_source import DeliverySource
from slipway.integrations.delta_source import DeltaSource
from slipway.integrations.query_source import QuerySource
from slipway.monitoring.taken_rows import TakenRows


class Source(Protocol):
    """A source of deliveries. Every method raises InputError if the source cannot be read."""

    @property
    def address(self) -> str: ...

    def listing(self) -> Listing: ...

    def where(self, name: str, /) -> str: ...

    def fetched(self, name: str, /) -> AbstractContextManager[Path]: ...

    def has(self, name: str, ingested: Path, /) -> bool: ...


def open_source(
    params: Params, model: Model, today: date, environ: Mapping[str, str], until: str | None = None
) -> Source:
    """Return the configured source. A SQL query creates the delivery `until` again, without newer rows."""
    if params.ingest.query:
        return open_query(params.ingest, model, environ, until, today)
    if params.ingest.format == "delta":
        return DeltaSource(params.ingest, TakenRows().deliveries)
    return DeliverySource(params.ingest.source)


def open_query(
    settings: Ingest, model: Model, environ: Mapping[str, str], until: str | None = None, today: date | None = None
) -> QuerySource:
    """Return the source for a SQL query. The source finds new rows by comparing the query's rows with data/."""
    return QuerySource(settings, model.KEY, TakenRows(), environ, until, today)

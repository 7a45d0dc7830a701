"""Checks of the champion and queries skip lists of keys."""

import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import model
from slipway.artifacts import DeliveryCounts
from slipway.config import load_params
from slipway.errors import InputError
from slipway.monitoring.decay import delivered_rows
from slipway.monitoring.ingest import IngestedDelivery, IngestResult
from slipway.monitoring.open_data_pr import _message
from slipway.monitoring.taken_rows import TakenRows
from tests.slipway.conftest import TODAY, edit

pytestmark = pytest.mark.usefixtures("listed")


@pytest.fixture
def listed(workplace: Path) -> None:
    """Delete 40 rows of 1997A, and a row that no delivery has and that is newer than all others."""
    edit(workplace / "params.yaml", "validate:\n", "validate:\n  deletions: accept\n")
    keys = pd.read_csv(workplace / "data/1997A.csv", dtype=str).iloc[:41][list(model.KEY)]
    keys.loc[40, str(model.TIME)] = "1999-12-31"
    keys.to_csv(workplace / "data/1999.deleted.csv", index=False)


def test_the_champion_is_checked_on_the_newest_delivery_of_rows() -> None:
    found = delivered_rows(load_params(Path("params.yaml")), model, TODAY)
    assert found.names == ("1997A", "1997B")
    rows = sum(len(pd.read_csv(f"data/{name}.csv")) for name in found.names)
    assert len(found.rows) == rows - 40


def test_the_newest_row_in_data_is_not_a_listed_key() -> None:
    newest = pd.read_csv("data/1997B.csv")[str(model.TIME)].max()
    assert TakenRows().newest(str(model.TIME), pa.date32()) == datetime.date.fromisoformat(newest)


def test_the_pull_request_names_the_deleted_rows() -> None:
    counts = DeliveryCounts(rows=42, accepted=41, quarantined=1, reasons={}, lists_keys=True, deleted=40, unmatched=1)
    message = _message(
        IngestResult((IngestedDelivery("1999.deleted", counts),), (), {}, ()), load_params(Path("params.yaml"))
    )
    assert message.startswith(
        "Ingest 1999.deleted: 40 sales deleted\n\n42 keys were delivered, 1 of them quarantined.\n"
    )


def test_drift_of_a_list_of_keys_is_refused() -> None:
    from slipway.monitoring.drift_sources import of_delivery

    bundle = reference = None
    with pytest.raises(InputError, match=r"data/ has no delivery 1999\.deleted"):
        of_delivery("1999.deleted", TODAY, bundle, reference)  # type: ignore[arg-type]

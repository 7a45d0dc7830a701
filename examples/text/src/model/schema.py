"""One row is one support ticket, with the team that answered it."""

import pandera.pandas as pa
from pandera.engines.pandas_engine import DateTime

TARGET = "team"
TIME = "received"
KEY = ("ticket",)


def _text(longest: int, nullable: bool = False) -> pa.Column:
    return pa.Column(str, pa.Check.str_length(max_value=longest), nullable=nullable, metadata={"kind": "text"})


SCHEMA = pa.DataFrameSchema(
    {
        "ticket": pa.Column(str),
        "received": pa.Column(DateTime(to_datetime_kwargs={"format": "%Y-%m-%d"})),
        "channel": pa.Column(str, pa.Check.isin(["mail", "form", "chat"])),
        "subject": _text(100, nullable=True),
        "body": _text(2_000),
        TARGET: pa.Column(str, pa.Check.isin(["billing", "delivery", "technical"])),
    }
)
# Anyone may see these rows: they are in the bundle and in the API documentation.
EXAMPLES = (
    {"channel": "mail", "subject": "Invoice", "body": "The invoice of March has the wrong amount. Please correct it."},
    {"channel": "chat", "subject": None, "body": "The app shows an error after the update."},
)

"""The schema of a delivery. Each row is the sale of a house in Lucas County, Ohio.

Validation checks every delivered row against `SCHEMA`, and quarantines invalid rows with the reason. The bundle also
contains the ranges and categories of `SCHEMA`, so the server rejects other values.
"""

import pandas as pd
import pandera.pandas as pa
from pandera.engines.pandas_engine import DateTime

TARGET = "price"
TIME = "sale_date"

# The data lacks the county's parcel number, but these seven columns together identify a sale.
KEY = (
    "sale_date",
    "latitude",
    "longitude",
    "year_built",
    "living_area_sqft",
    "lot_size_sqft",
    "frontage_ft",
)


def _number(smallest: float, largest: float) -> pa.Column:
    return pa.Column(float, pa.Check.in_range(smallest, largest))


def _category(*values: str) -> pa.Column:
    return pa.Column(str, pa.Check.isin(values))


def _built_before_the_sale(sales: pd.DataFrame) -> pd.Series:
    return sales["year_built"] < sales["sale_date"].dt.year


SCHEMA = pa.DataFrameSchema(
    {
        "sale_date": pa.Column(
            DateTime(to_datetime_kwargs={"format": "%Y-%m-%d"}),
            pa.Check.in_range(pd.Timestamp("1990-01-01"), pd.Timestamp("2030-12-31")),
        ),
        "price": _number(1_000, 5_000_000),  # dollars
        "living_area_sqft": _number(100, 20_000),
        "lot_size_sqft": _number(500, 1_000_000),
        "frontage_ft": _number(0, 2_000),
        # In 15% of the rows, the depth is 0, which means "not recorded". Trees can separate it from real depths.
        "depth_ft": _number(0, 5_000),
        "year_built": _number(1_800, 2_030),
        "stories": _category("one", "one+half", "two", "two+half", "three", "bilevel", "multilvl"),
        "wall": _category("wood", "brick", "partbrk", "metlvnyl", "stucdrvt", "ccbtile", "stone"),
        "rooms": _number(1, 40),
        "bedrooms": _number(0, 20),
        "full_baths": _number(0, 15),
        "half_baths": _number(0, 10),
        "garage": _category("attached", "detached", "basement", "carport", "no garage"),
        "garage_sqft": _number(0, 10_000),
        "latitude": _number(41.3, 41.9),  # degrees north
        "longitude": _number(-84.0, -83.0),  # degrees east
    },
    checks=[
        # A known fault of the data: land was sold, but the row describes the house that was built there later.
        pa.Check(_built_before_the_sale, error="year_built is not before the year of the sale"),
    ],
)

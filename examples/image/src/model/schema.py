"""One row is the scan of one handwritten digit, with the digit that a person read."""

import pandera.pandas as pa
from pandera.engines.pandas_engine import DateTime

TARGET = "digit"
TIME = "scanned"
KEY = ("scan",)

SCHEMA = pa.DataFrameSchema(
    {
        "scan": pa.Column(str),
        "scanned": pa.Column(DateTime(to_datetime_kwargs={"format": "%Y-%m-%d"})),
        "photo": pa.Column(object, metadata={"kind": "image", "size": (8, 8), "channels": 1}),
        "ink": pa.Column(object, metadata={"kind": "vector", "length": 8}),
        TARGET: pa.Column(str, pa.Check.isin([*"0123456789"])),
    }
)
PHOTO = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAL0lEQVR42m3GQRUAEBQAsL0fhCKSKKSQCJJIQAMHjnYatA7U1RFKA2Hkff"
    "P8MxMOQosG3ZLNNRwAAAAASUVORK5CYII="
)
# Anyone may see these rows: they are in the bundle and in the API documentation.
EXAMPLES = ({"photo": PHOTO, "ink": [1.24, 2, 2.76, 1.59, 1.59, 1.59, 1.59, 1.59]},)

"""The columns that the pipeline adds to those of the model."""

ROW_ID = "row_id"
"""A 64-bit hash of the row's key."""
DELIVERY = "delivery"
"""The delivery that brought the row."""
SLICE = "slice: "
"""Before the name of a sliced column: the slice that the row belongs to."""

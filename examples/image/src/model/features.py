"""The columns that the model reads."""

FEATURES = ("photo", "ink")

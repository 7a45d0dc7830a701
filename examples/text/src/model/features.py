"""The columns that the model reads."""

FEATURES = ("channel", "subject", "body")

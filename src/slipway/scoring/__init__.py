"""Batch scoring: predictions for files that are too large for a request."""

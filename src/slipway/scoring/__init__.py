"""Batch scoring: predict the rows of files that are too large for a request to the server."""

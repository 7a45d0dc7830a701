"""Describe errors, and compare file properties, of any storage that fsspec supports."""

from typing import Any

STAMPS = ("size", "mtime", "ETag", "etag", "md5Hash", "LastModified", "updated")
"""Properties that change when a file changes. Each kind of storage has some of them."""


def describe_error(error: Exception) -> str:
    """Return the type and the first line of an error. Each kind of storage has its own exceptions."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(".")


def stamps_of(info: dict[str, Any]) -> dict[str, Any]:
    """Return the properties in `STAMPS` from fsspec's `info` about a file. Properties that `info` lacks are None."""
    return {key: info.get(key) for key in STAMPS}

"""Describe the errors and the file properties of any storage that fsspec supports."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slipway.errors import InputError

USER = re.compile(r"(?<=://)[^\s'\"]*@")
"""Matches the user and the password of an address, up to the last @, because a password can contain @."""
QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
"""Matches the query string of an address. It can contain a signature."""
MASK = "***"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk."""

STAMPS = ("size", "mtime", "ETag", "etag", "md5Hash", "LastModified", "updated")
"""Properties that change when a file changes. Each storage system has some of these properties."""


def refuse_empty(address: str) -> None:
    """Raise InputError if an address is empty, because fsspec would use the working directory."""
    if not address.strip("/ "):
        raise InputError("The address of a folder or a bucket is empty; name one, such as s3://bucket/folder.")


def without_secrets(text: str) -> str:
    """Mask the user, the password and the query string of each address in a text."""
    return QUERY.sub(rf"\1?{MASK}", USER.sub(f"{MASK}@", text))


@contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Convert the errors of a storage to InputError. `name` names the storage in the message, without secrets."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{name} needs a package ({error}); add it to requirements/model.in, or to requirements/batch.in for the "
            "batch image."
        ) from None
    except Exception as error:  # each storage has its own exceptions
        if isinstance(error, OSError) and error.errno in FULL:  # the disk of a copy, not the storage
            raise
        reason = without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])[:200].rstrip(".")
        raise InputError(f"{name} cannot be used ({reason}); check it and its credentials.") from None


def stamps_of(info: dict[str, Any]) -> dict[str, Any]:
    """Return the properties in `STAMPS` from fsspec's `info` about a file. Properties that `info` lacks are None."""
    return {key: info.get(key) for key in STAMPS}

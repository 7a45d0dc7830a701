"""Define the errors that a user can fix. Each message is one sentence: what is wrong, where, and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "free some space",
    errno.EIO: "check the disk",
    errno.EROFS: "make its file system writable",
    errno.EACCES: "give your user access to it",
    errno.EPERM: "give your user access to it",
}
"""What to do about an error of the machine's disk or of its permissions."""


class SlipwayError(Exception):
    """Base class of the errors that a user can fix. A command prints the error's message instead of a traceback."""

    exit_code = 2


class InputError(SlipwayError):
    """A file, a key or a value is missing or invalid (exit code 2)."""


class CheckFailed(SlipwayError):
    """The input is valid, but a check failed or the verdict is `hold` (exit code 1)."""

    exit_code = 1


@contextmanager
def disk_errors(folder: str | None = None) -> Iterator[None]:
    """Convert errors of the machine's disk or of its permissions to InputError. Other errors are not changed.

    The message names the file of the error or, if the error has no file, the folder to which the block writes.
    """
    try:
        yield
    except OSError as error:
        # If a disk is full, NumPy raises an error without a code.
        code = errno.ENOSPC if error.errno is None and folder else error.errno
        if code not in REMEDIES:
            raise
        path = error.filename2 or error.filename or folder
        where = f" ({os.fsdecode(path)})" if isinstance(path, str | bytes | os.PathLike) else ""
        raise InputError(f"{os.strerror(code)}{where}; {REMEDIES[code]}, and run this again.") from error

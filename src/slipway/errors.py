"""Define the errors that a user can fix. Each message is one sentence: what is wrong, where, and what to do."""


class SlipwayError(Exception):
    """Base class of the errors that a user can fix. A command prints the error's message instead of a traceback."""

    exit_code = 2


class InputError(SlipwayError):
    """A file, a key or a value is missing or invalid (exit code 2)."""


class CheckFailed(SlipwayError):
    """The input is valid, but a check failed or the verdict is `hold` (exit code 1)."""

    exit_code = 1

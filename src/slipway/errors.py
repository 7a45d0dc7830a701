"""The errors that a user can cause. Each message is one sentence: what is wrong, where, and what to do."""


class SlipwayError(Exception):
    """Base class of errors that end a command with one sentence instead of a traceback."""

    exit_code = 2


class InputError(SlipwayError):
    """A file, a key or a value is missing or not valid (exit code 2)."""


class CheckFailed(SlipwayError):
    """A check failed, or the verdict is hold, although all input is valid (exit code 1)."""

    exit_code = 1

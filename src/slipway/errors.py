"""The errors that a person can cause. Each message is one sentence: what is wrong, where, what to do."""


class SlipwayError(Exception):
    """Base of the errors that end a command with one sentence instead of a traceback."""

    exit_code = 2


class InputError(SlipwayError):
    """A file, a key or a value cannot be used (exit code 2)."""


class CheckFailed(SlipwayError):
    """The input could be read, and a check or a verdict said no (exit code 1)."""

    exit_code = 1

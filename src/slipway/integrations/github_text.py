"""Keep texts from having an effect on GitHub, such as mentioning a person."""

import re

REFERENCE = r"[@#](?=\w)|\bGH(?=-\d)"
"""Matches the start of a mention, and of a reference to an issue."""
ZERO_WIDTH = "\u200b"


def without_effect(text: str, starts: re.Pattern[str]) -> str:
    """Insert an invisible character after each match of `starts`, so that GitHub does not recognise what follows."""
    return starts.sub(lambda found: f"{found[0]}{ZERO_WIDTH}", text)

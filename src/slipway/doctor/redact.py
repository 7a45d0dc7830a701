"""Keeping secrets out of what is shown: those that are known, and what looks like one."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from slipway.doctor.context import Fork

MASK = "***"
NAMES = re.compile(
    r"token|secret|password|passwd|key|credential|connection_string|kube_?config|sas|auth(?!or)", re.IGNORECASE
)
"""Of variables, and of settings of a DVC remote."""
SHORTEST = 6
"""Characters; a shorter one would hide words that are none."""
USER = re.compile(r"(?<=://)[^\s'\"]*@")
"""In an address; as far as to the last @, since a password may have one."""
QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
"""Of an address, where signatures are."""
ASSIGNED = re.compile(
    r"((?:password|passwd|token|secret|signature|sig|key|credential)[\w-]*['\"]?\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE
)
TOKENS = re.compile(
    r"\bgh[a-z]_\w{16,}|\bgithub_pat_\w+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]+\.[\w.-]+"
    r"|(?<=Bearer )\S+|(?<=Basic )\S+"
)


def secrets(fork: Fork) -> list[str]:
    """All secrets that this process knows, the longest first."""
    found = {fork.token or ""}
    for settings in (fork.environ, *fork.remotes.values()):
        found.update(_of(settings))
    found.update(_of({"origin": fork.origin or ""}))
    if not isinstance(fork.settings, Exception):
        found.update(_of({"source": fork.settings.ingest.source}))
    return sorted((each for each in found if len(each) >= SHORTEST), key=len, reverse=True)


def masked(text: str, known: list[str]) -> str:
    """The text without what is known, and without what looks like a secret."""
    for secret in known:
        text = text.replace(secret, MASK)
    text = QUERY.sub(rf"\1?{MASK}", USER.sub(f"{MASK}@", text))
    return TOKENS.sub(MASK, ASSIGNED.sub(rf"\1{MASK}", text))


def _of(settings: Mapping[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        text = str(value)
        if NAMES.search(name):
            yield text
            if len(text) > 100:  # a file: programs quote parts of it
                yield from (word for word in text.split() if len(word) >= 16)
        for user in USER.findall(text):
            password = user[:-1].partition(":")[2] or user[:-1]
            yield password
            yield unquote(password)
        for query in re.findall(r"://[^\s?]*\?(\S+)", text):
            yield from (value for _, _, value in (each.partition("=") for each in query.split("&")))

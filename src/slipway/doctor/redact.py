"""Mask secrets in the output: known values of secrets, and text that looks like a token or a password."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from slipway.doctor.context import Fork
from slipway.integrations.storage import MASK, USER, without_secrets

NAMES = re.compile(
    r"token|secret|password|passwd|key|credential|connection_string|kube_?config|sas|auth(?!or)", re.IGNORECASE
)
"""Matches the names of variables and settings that contain a secret."""
SHORTEST = 6
"""Minimum length of a value to mask. A shorter value can be an ordinary word."""
ASSIGNED = re.compile(
    r"((?:password|passwd|token|secret|signature|sig|key|credential)[\w-]*['\"]?\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE
)
TOKENS = re.compile(
    r"\bgh[a-z]_\w{16,}|\bgithub_pat_\w+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]+\.[\w.-]+"
    r"|(?<=Bearer )\S+|(?<=Basic )\S+"
)


def secrets(fork: Fork) -> list[str]:
    """Return all secrets in the environment variables and in the configuration, the longest secret first."""
    found = {fork.token or ""}
    for settings in (fork.environ, *fork.remotes.values()):
        found.update(_of(settings))
    found.update(_of({"origin": fork.origin or ""}))
    if not isinstance(fork.settings, Exception):
        found.update(_of({"source": fork.settings.ingest.source}))
    return sorted((each for each in found if len(each) >= SHORTEST), key=len, reverse=True)


def masked(text: str, known: list[str]) -> str:
    """Mask the known secrets in a text, and all parts of the text that look like a token or a password."""
    for secret in known:
        text = text.replace(secret, MASK)
    return TOKENS.sub(MASK, ASSIGNED.sub(rf"\1{MASK}", without_secrets(text)))


def _of(settings: Mapping[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        text = str(value)
        if NAMES.search(name):
            yield text
            if len(text) > 100:  # may be the content of a file, from which programs print parts
                yield from (word for word in text.split() if len(word) >= 16)
        for user in USER.findall(text):
            password = user[:-1].partition(":")[2] or user[:-1]
            yield password
            yield unquote(password)
        for query in re.findall(r"://[^\s?]*\?(\S+)", text):
            yield from (value for _, _, value in (each.partition("=") for each in query.split("&")))

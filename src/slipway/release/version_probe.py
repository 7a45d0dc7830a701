"""Request the provenance of the model that a running server serves."""

import requests
from pydantic import ValidationError

from slipway.errors import InputError
from slipway.provenance import Provenance


def ask(url: str, seconds: float = 10) -> Provenance:
    """Return the provenance that the server at `url` sends on /version. Raise InputError without a valid answer."""
    try:
        answer = requests.get(f"{url.rstrip('/')}/version", timeout=seconds, headers={"Connection": "close"})
        answer.raise_for_status()
        return Provenance.model_validate(answer.json()["provenance"])
    except requests.RequestException as error:
        raise InputError(f"{url} does not answer ({type(error).__name__})") from None
    except (ValidationError, KeyError, TypeError):
        raise InputError(f"{url} answers, but its /version is not that of a Slipway server") from None

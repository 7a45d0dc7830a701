"""What a running server says of the model in it."""

import requests
from pydantic import ValidationError

from slipway.errors import InputError
from slipway.serving.provenance import Lineage


def ask(url: str, seconds: float = 10) -> Lineage:
    """Where the model that answers comes from, as /version says; raises InputError where nothing says it."""
    try:
        answer = requests.get(f"{url.rstrip('/')}/version", timeout=seconds, headers={"Connection": "close"})
        answer.raise_for_status()
        return Lineage.model_validate(answer.json()["lineage"])
    except requests.RequestException as error:
        raise InputError(f"{url} does not answer ({type(error).__name__})") from None
    except (ValidationError, KeyError, TypeError):
        raise InputError(f"{url} answers, and not as a server of Slipway") from None

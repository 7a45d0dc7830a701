"""Random bodies that are almost valid. The server never answers with 5xx, crashes or leaks memory.

The bodies have the structure of the three protocols and of the model's schema, with random changes.
"""

import asyncio
import json
import random
import resource
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.provenance import Provenance
from slipway.serving.asgi import Application
from slipway.serving.routes import make_app
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.slipway.serving.odd import ROW
from tests.slipway.serving.test_protocols import columns, split, tensors

BODIES = {"odd_bundle": 25_000, "lenient_bundle": 5_000}
"""How many bodies each bundle gets. The second one differs only in fields that it ignores."""
IN_ONE_EXAMPLE = 100
NASTY: list[Any] = [
    *(None, True, False, 0, -0.0, 1, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 1e-320, 3.4028235e38, 3.5e38),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "\x00", "\ud800", "é", "e\u0301", "\U0001f600", "x" * 3000, "NaN", "1", "null", "2001-01-01"),
    *(
        "2001-02-30",
        "0000-00-00",
        "9999-12-31",
        "2001-01-01T00:00:00.000",
        "-2001-01-01",
        "2001-1-1",
        "\u0662001-01-01",
    ),
    *([], {}, [[]], [{}], [None], {"": None}, {"a": {"a": {"a": []}}}, [1] * 50, ROW, [ROW] * 6),
]
PATHS = ("/predict", "/invocations", "/v2/models/odd/infer")


def bodies(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return valid paths and bodies for all protocols."""
    rows = [row, dict(row)]
    return [
        ("/predict", row),
        ("/predict", rows),
        *(("/invocations", {key: rows}) for key in ("dataframe_records", "instances", "inputs")),
        ("/invocations", split(rows)),
        ("/invocations", columns(rows)),
        ("/v2/models/odd/infer", {**tensors(rows), "id": "1", "outputs": [{"name": "prediction"}]}),
    ]


def mutated(value: Any, chance: random.Random) -> Any:
    """Return the value with one of its parts replaced, removed, added, doubled or swapped."""
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return chance.choice(NASTY)
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    place, part = chance.choice(items)
    what = chance.random()
    if isinstance(value, dict):
        changed = dict(value)
        if what < 0.1:
            del changed[place]
        elif what < 0.2:
            changed[str(chance.choice(NASTY))[:40]] = part
        elif what < 0.3:
            other = chance.choice(items)[0]
            changed[place], changed[other] = changed[other], changed[place]
        else:
            changed[place] = mutated(part, chance)
        return changed
    sequence = list(value)
    if what < 0.1:
        del sequence[place]
    elif what < 0.25:
        sequence.insert(place, chance.choice([part, *NASTY]))
    elif what < 0.3:
        sequence *= chance.choice([2, 7])
    else:
        sequence[place] = mutated(part, chance)
    return sequence


def written(body: Any, chance: random.Random) -> bytes:
    """Encode a body as JSON, sometimes with broken text."""
    text = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    while chance.random() < 0.15 and text:
        at = chance.randrange(len(text))
        text = chance.choice(
            [
                text[:at],
                text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :],
                text[:at] + chance.choice([b"\\", b'"', b"{", b"[" * 3000, b"}", b",", b"\xff", b"e9999"]) + text[at:],
                text + text[:at],
            ]
        )
    return text


async def post(app: Application, path: str, body: bytes) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("bundle", BODIES)
def test_no_body_breaks_the_server(bundle: str, request: pytest.FixtureRequest) -> None:
    model, most = ServedModel(request.getfixturevalue(bundle), "odd", 5), BODIES[bundle]
    app = Application(model, Settings(), make_app(model, Provenance(bundle=model.hash)))
    statuses: Counter[int] = Counter()
    memory: list[int] = []

    @settings(
        max_examples=most // IN_ONE_EXAMPLE,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))
    def send(chance: random.Random) -> None:
        for _ in range(IN_ONE_EXAMPLE):
            path, body = chance.choice(bodies(dict(ROW)))
            for _ in range(chance.choice([0, 1, 1, 1, 2, 4])):
                body = mutated(body, chance)
            text = written(body, chance)
            if chance.random() < 0.05:
                path = chance.choice(PATHS)
            status, answer = loop.run_until_complete(post(app, path, text))
            assert status in (200, 400, 413, 422), (status, path, text)
            document = json.loads(answer)
            assert status == 200 or document["detail"]
            statuses[status] += 1
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    loop = asyncio.new_event_loop()
    send()
    loop.close()
    assert statuses[200] > most / 100
    assert statuses[400] > most / 100
    assert statuses[422] > most / 10
    assert memory[-1] - memory[len(memory) // 4] < 20_000, "kilobytes"

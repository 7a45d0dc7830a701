"""Prediction requests to the ASGI application: refusals, headers, metrics and logs."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slipway.provenance import Provenance
from slipway.serving.asgi import Application
from slipway.serving.predict import LoadShedder
from slipway.serving.routes import make_app
from slipway.serving.runs import ONE_RUN_EACH, Runs
from slipway.serving.served_model import ServedModel
from slipway.serving.server import make_config
from slipway.serving.settings import Settings
from tests.slipway.serving.odd import AREA, ROW, SOLD, expected
from tests.slipway.serving.test_binary_tensors import message, texts
from tests.slipway.serving.test_protocols import tensors

BODY = json.dumps(ROW).encode()
JSON = {"content-type": "application/json"}


@pytest.fixture
def application(odd_model: ServedModel) -> Callable[..., Application]:
    def make(**settings: Any) -> Application:
        made = Application(odd_model, Settings(**settings), make_app(odd_model, Provenance(bundle=odd_model.hash)))
        made.ready = True
        return made

    return make


def ask(application: Application, method: str, path: str, **request: Any) -> httpx.Response:
    """Send one request in this process."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def post(application: Application, path: str = "/predict", content: Any = BODY, **headers: str) -> httpx.Response:
    return ask(
        application, "POST", path, content=content, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()}
    )


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    return document


def metric(application: Application, name: str, **labels: str) -> float:
    """Return the value of a metric, parsed as Prometheus does."""
    text = ask(application, "GET", "/metrics").text
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_every_answer_has_the_hash_of_the_bundle(
    application: Callable[..., Application], odd_model: ServedModel
) -> None:
    app = application()
    answer = post(app)
    assert answer.json() == {"prediction": expected(ROW)}
    assert answer.headers["slipway-bundle"] == odd_model.hash
    assert answer.headers["content-type"] == "application/json"
    for path in ("/version", "/metrics", "/nowhere", "/readyz"):
        assert ask(app, "GET", path).headers["slipway-bundle"] == odd_model.hash


def test_keep_alive_may_be_a_fraction_of_a_second(application: Callable[..., Application]) -> None:
    assert make_config(application(), Settings(keep_alive=0.5)).timeout_keep_alive == 0.5


def test_request_ids_and_trace_ids_are_returned(application: Callable[..., Application]) -> None:
    app = application()
    assert post(app, x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    made = [post(app).headers["x-request-id"] for _ in range(3)]
    assert len(set(made)) == 3
    for hostile in ("a b", "x" * 129, ""):
        assert post(app, x_request_id=hostile).headers["x-request-id"] not in (hostile, *made)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert post(app, traceparent=trace).headers["traceparent"] == trace
    assert "traceparent" not in post(app, traceparent="nonsense").headers
    assert ask(app, "GET", "/version", headers={"traceparent": trace}).headers["traceparent"] == trace


def test_other_media_types_and_encodings_are_refused(application: Callable[..., Application]) -> None:
    app = application()
    for headers in (
        {"content_type": "text/csv"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "application/jsonp"},
        {"content_encoding": "gzip"},
        {"inference_header_content_length": "10"},
    ):
        problem(post(app, **headers), 415)
    for media in ("application/json; charset=utf-8", "Application/JSON"):
        assert post(app, content_type=media).status_code == 200


def test_binary_tensors_are_answered_in_json(application: Callable[..., Application]) -> None:
    def as_bytes(value: Any) -> bytes:
        return texts(value.encode()) if isinstance(value, str) else np.array(value, "<f4").tobytes()

    path, content = "/v2/models/odd/infer", json.dumps(tensors([ROW])).encode()
    binary, length = message(
        [(each["name"], each["datatype"], [1, 1], as_bytes(each["data"][0])) for each in tensors([ROW])["inputs"]]
    )
    headers = {"inference_header_content_length": length.decode(), "content_type": "application/octet-stream"}
    answer = post(application(), path, binary, **headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == post(application(), path, content).json()
    assert answer.json()["outputs"][0]["data"] == [expected(ROW)]
    problem(post(application(), path, binary[:-1], **headers), 400)
    problem(post(application(), path, binary, **headers | {"content_encoding": "gzip"}), 415)


def test_other_methods_are_refused(application: Callable[..., Application]) -> None:
    app = application()
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        answer = ask(app, method, "/predict")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
    for path in ("/healthz", "/v2/models/odd/ready"):
        answer = ask(app, "POST", path)
        problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD"
    assert problem(ask(app, "DELETE", "/version"), 405)


def test_other_paths_are_not_found(application: Callable[..., Application]) -> None:
    app = application()
    for path in (
        "/v2/models/other/infer",
        "/v2/models/odd/versions/0/infer",
        "/predict/",
        "/../etc/passwd",
    ):
        problem(ask(app, "POST", path, content=BODY), 404)


def test_a_body_that_is_too_large_is_refused(application: Callable[..., Application]) -> None:
    app = application(max_body=len(BODY))
    assert post(app).status_code == 200
    assert "larger than" in problem(post(app, content=BODY + b" "), 413)["detail"]

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 100

    asked = post(app, content=chunks())
    problem(asked, 413)
    assert asked.headers["connection"] == "close"
    claimed = ask(app, "POST", "/predict", content=b"", headers=JSON | {"content-length": "10000000000"})
    problem(claimed, 413)


def asgi(application: Application, messages: Callable[[], Any]) -> list[dict[str, Any]]:
    """Return the messages that the application sends, for messages that ordinary clients do not send."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    asyncio.run(application(scope, messages, send))
    return sent


def test_a_body_that_does_not_end_gets_a_408(application: Callable[..., Application]) -> None:
    app = application(deadline=0.05)
    first = True

    async def stalls() -> dict[str, Any]:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": BODY[:10], "more_body": True}
        await asyncio.sleep(5)
        raise AssertionError

    start, _ = asgi(app, stalls)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert metric(app, "slipway_requests_total", route="/predict", status="408") == 1


def test_a_client_that_leaves_gets_no_answer(application: Callable[..., Application]) -> None:
    app = application()
    messages = iter([{"type": "http.request", "body": BODY[:10], "more_body": True}, {"type": "http.disconnect"}])

    async def leaves() -> dict[str, Any]:
        return next(messages)

    assert asgi(app, leaves) == []
    assert metric(app, "slipway_requests_total", route="/predict", status="499") == 1
    assert metric(app, "slipway_requests_in_flight") == 1  # the request for metrics itself


def test_the_number_of_open_bodies_is_limited(application: Callable[..., Application]) -> None:
    app = application(max_uploads=2)

    async def crowd() -> list[int]:
        done = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield BODY[:5]
            await done.wait()
            yield BODY[5:]

        # The transport of httpx reads a whole request, so the messages are sent by hand.
        async def one() -> int:
            parts = slow()
            statuses = []

            async def receive() -> dict[str, Any]:
                part = await anext(parts)
                return {"type": "http.request", "body": part, "more_body": part == BODY[:5]}

            async def send(message: dict[str, Any]) -> None:
                statuses.append(message.get("status"))

            await app({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive, send)
            return int(statuses[0])

        tasks = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0.05)
        done.set()
        return sorted(await asyncio.gather(*tasks))

    assert asyncio.run(crowd()) == [200, 200, 503, 503, 503]


def test_requests_after_too_much_work_in_one_iteration_are_refused(application: Callable[..., Application]) -> None:
    """Probes are always answered."""
    app = application(max_wait=0.001)

    async def crowd() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:  # type: ignore[arg-type]
            requests = [client.post("/predict", content=BODY, headers=JSON) for _ in range(300)]
            requests += [client.get("/healthz"), client.get("/readyz")]
            return await asyncio.gather(*requests)

    answers = asyncio.run(crowd())
    refused = [each for each in answers if each.status_code == 503]
    assert 0 < len(refused) < 300
    assert {each.headers["retry-after"] for each in refused} == {"1"}
    assert {each.status_code for each in answers[-2:]} == {200}
    assert post(app).status_code == 200


def test_overload_is_measured_in_cpu_time_and_not_in_elapsed_time(odd_model: ServedModel) -> None:
    async def turns() -> None:
        turn = LoadShedder(0.02, Runs(odd_model, ONE_RUN_EACH, 1000))
        assert not turn.is_overloaded()
        time.sleep(0.05)
        assert not turn.is_overloaded()
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass
        assert turn.is_overloaded()
        await asyncio.sleep(0)
        assert not turn.is_overloaded()

    asyncio.run(turns())


def test_readiness_is_not_liveness(application: Callable[..., Application]) -> None:
    app = application()
    ready = ("/readyz", "/v2/health/ready", "/v2/models/odd/ready")
    alive = ("/healthz", "/v2/health/live", "/ping", "/health")
    for app.ready, app.draining, status in ((False, False, 503), (True, False, 200), (True, True, 503)):
        assert {ask(app, "GET", path).status_code for path in ready} == {status}
        assert {ask(app, "GET", path).status_code for path in alive} == {200}


def test_readiness_of_a_model_has_its_name(application: Callable[..., Application], odd_model: ServedModel) -> None:
    app = application()
    for path in ("/v2/models/odd/ready", f"/v2/models/odd/versions/{odd_model.hash}/ready"):
        assert ask(app, "GET", path).json() == {"name": "odd", "ready": True}
        app.draining = True
        assert ask(app, "GET", path).json() == {"name": "odd", "ready": False}
        app.draining = False
    assert ask(app, "GET", "/v2/health/ready").json() == {"ready": True}


def test_a_server_that_drains_answers_and_closes(application: Callable[..., Application]) -> None:
    app = application()
    assert "connection" not in post(app).headers
    app.draining = True
    for path in ("/predict", "/healthz", "/version"):
        answer = post(app) if path == "/predict" else ask(app, "GET", path)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


def test_a_bug_is_answered_with_500_and_logged_without_the_request(
    application: Callable[..., Application],
    odd_model: ServedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(tensors: Any) -> None:
        raise RuntimeError(f"secret {tensors}")

    monkeypatch.setattr(odd_model, "run", fail)
    app = application()
    with caplog.at_level(logging.DEBUG):
        problem(post(app, content=json.dumps(ROW | {"note": "secret"}).encode()), 500)
    (record,) = [each for each in caplog.records if each.name == "slipway.serving"]
    assert record.__dict__["error"] == "RuntimeError"
    assert "served_model.py" in record.__dict__["traceback"]
    assert "secret" not in str([record.__dict__]).replace('f"secret', "")


def test_requests_are_not_logged(application: Callable[..., Application], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="slipway"):
        for settings in ({}, {"log_requests": True}):
            app = application(**settings)
            post(app, "/predict?secret", json.dumps(ROW | {"note": "secret"}).encode())
            post(app, content=b'{"secret": "secret"}')
    records = [each.__dict__ for each in caplog.records if each.name.startswith(("slipway", "uvicorn"))]
    assert "secret" not in str(records)
    logged = [each for each in records if each["message"] == "request"]
    assert [(each["path"], each["status"]) for each in logged] == [("/predict", 200), ("/predict", 422)]


def test_rows_are_counted_in_the_bins_of_the_training_data(application: Callable[..., Application]) -> None:
    app = application()
    rows = [ROW | {AREA: area, "kind": kind} for area, kind in ((0, "a"), (1, "b"), (1.5, None), (9, "b"))]
    post(app, content=json.dumps(rows).encode())
    post(app, content=json.dumps({AREA: 2.5, "note": "x"}).encode())
    buckets = [metric(app, "slipway_feature_bucket", feature=AREA, le=edge) for edge in ("1.0", "2.0", "3.0", "+Inf")]
    assert buckets == [2, 3, 4, 5]  # edges belong to the bin below them
    assert metric(app, "slipway_feature_sum", feature=AREA) == 14
    assert metric(app, "slipway_feature_count", feature=SOLD) == 4
    assert metric(app, "slipway_feature_missing_total", feature=SOLD) == 1
    values = {value: metric(app, "slipway_feature_values_total", feature="kind", value=value) for value in ("a", "b")}
    assert values == {"a": 1, "b": 2}
    assert metric(app, "slipway_feature_missing_total", feature="kind") == 2
    assert metric(app, "slipway_feature_values_total", feature="note", value="(other)") == 5
    assert metric(app, "slipway_prediction_count", output="price") == 5


def test_more_rows_than_a_batch_are_counted(odd_bundle: Path) -> None:
    model = ServedModel(odd_bundle, "odd", 10_000)
    app = Application(model, Settings(), make_app(model, Provenance(bundle=model.hash)))
    for rows in (3000, 3000, 9000, 1):
        assert post(app, content=json.dumps([ROW] * rows).encode()).status_code == 200
    assert metric(app, "slipway_prediction_count", output="price") == 15_001


def test_predictions_are_answered_while_metrics_are_rendered(application: Callable[..., Application]) -> None:
    app = application()
    finished: list[str] = []

    async def both() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:  # type: ignore[arg-type]

            async def send(method: str, path: str, **request: Any) -> None:
                assert (await client.request(method, path, **request)).status_code == 200
                finished.append(path)

            await asyncio.gather(send("GET", "/metrics"), send("POST", "/predict", content=BODY, headers=JSON))

    asyncio.run(both())
    assert finished == ["/predict", "/metrics"]


def test_every_answer_is_counted_once(application: Callable[..., Application]) -> None:
    app = application()
    post(app)
    post(app, content=b"{}")
    ask(app, "GET", "/nowhere")
    count = {("/predict", "200"): 1, ("/predict", "422"): 1, ("other", "404"): 1}
    for (route, status), value in count.items():
        assert metric(app, "slipway_requests_total", route=route, status=status) == value
    assert metric(app, "slipway_request_seconds_count", route="/predict") == 2
    assert metric(app, "slipway_model_info") == 1


def test_a_client_cannot_create_metrics(application: Callable[..., Application]) -> None:
    """Otherwise a client could fill Prometheus."""
    app = application()
    post(app, f"/{'x' * 50}", json.dumps(ROW | {"note": "chosen"}).encode())
    post(app, content=json.dumps(ROW | {"note": "chosen"}).encode())
    assert not re.search("xxx|chosen", ask(app, "GET", "/metrics").text)
